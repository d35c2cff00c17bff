-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS debts (
    payer_id TEXT NOT NULL PRIMARY KEY,
    debt BIGINT NOT NULL
);
