-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT NOT NULL PRIMARY KEY,
    parent_id TEXT NOT NULL,
    payer_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    status SMALLINT NOT NULL,
    suspend_reason TEXT NOT NULL,
    epoch BIGINT NOT NULL,                   -- every draw checks it (R12)
    plan_id TEXT NOT NULL,
    plan_version BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
);
