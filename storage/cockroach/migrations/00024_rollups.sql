-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS rollups (
    account_id TEXT NOT NULL,
    hour BIGINT NOT NULL,
    feature TEXT NOT NULL,
    meter TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    micros BIGINT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (account_id, hour, feature, meter)
);
