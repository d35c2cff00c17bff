-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS features (
    id TEXT NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    meters TEXT NOT NULL,                    -- JSON array
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
