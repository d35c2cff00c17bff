-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL,
    role SMALLINT NOT NULL,
    principal TEXT NOT NULL,
    account_id TEXT NOT NULL,
    labels TEXT NOT NULL,                    -- JSON object
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    revoke_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
