-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS requests (
    principal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    result TEXT NOT NULL,                    -- JSON of the resource answered
    create_time BIGINT NOT NULL,
    PRIMARY KEY (principal, request_id)
);
