-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS changes (
    revision BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (revision, kind, id)
);
