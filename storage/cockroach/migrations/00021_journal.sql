-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS journal (
    lane_id BIGINT NOT NULL,
    tag SMALLINT NOT NULL,                   -- 1 batch, 2 entry, 3 note
    k1 BIGINT NOT NULL,
    k2 BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (lane_id, tag, k1, k2)
);
