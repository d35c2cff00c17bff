-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS plans (
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    display_name TEXT NOT NULL,
    rate_card TEXT NOT NULL,
    entitlements TEXT NOT NULL,              -- JSON
    fallback TEXT NOT NULL,                  -- JSON array
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (id, version)
);
