-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS rate_cards (
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    price_version BIGINT NOT NULL,           -- numbers versions over all rate cards
    effective_time BIGINT NOT NULL,
    prices TEXT NOT NULL,                    -- JSON
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (id, version)
);
