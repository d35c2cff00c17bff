-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS mac_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    secret BYTEA NOT NULL,
    sign_from BIGINT NOT NULL,
    create_time BIGINT NOT NULL
);
