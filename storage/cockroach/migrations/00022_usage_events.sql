-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS usage_events (
    lane_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    phase SMALLINT NOT NULL,
    account_id TEXT NOT NULL,
    payer_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    feature TEXT NOT NULL,
    labels TEXT NOT NULL,                    -- JSON object
    price_version BIGINT NOT NULL,
    usage TEXT NOT NULL,                     -- JSON: [{meter, quantity, micros}]
    charged BIGINT NOT NULL,
    covered BIGINT NOT NULL,
    uncovered BIGINT NOT NULL,
    grants TEXT NOT NULL,                    -- JSON: [{grant, micros}]
    outcome SMALLINT NOT NULL,
    reserve_time BIGINT NOT NULL,
    settle_time BIGINT NOT NULL,
    nonce BIGINT NOT NULL,                   -- with lane and sequence: the reservation's id
    PRIMARY KEY (lane_id, sequence, phase)
);
