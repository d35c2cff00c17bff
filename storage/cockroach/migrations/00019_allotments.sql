-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS allotments (
    lane_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    payer_id TEXT NOT NULL,
    pot_id TEXT NOT NULL,
    amount BIGINT NOT NULL,
    spent BIGINT NOT NULL,                   -- once closed
    state SMALLINT NOT NULL,                 -- 1 open, 3 closed
    not_after BIGINT NOT NULL,
    shrink_sequence BIGINT NOT NULL,         -- R19
    create_time BIGINT NOT NULL,
    PRIMARY KEY (lane_id, number)
);
