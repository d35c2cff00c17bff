-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS incarnations (
    id TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    address TEXT NOT NULL,
    state SMALLINT NOT NULL,                 -- 1 LIVE, 2 DEAD, 3 DRAINED
    lease_sequence BIGINT NOT NULL,
    lease_nonce BIGINT NOT NULL,
    issue_until BIGINT NOT NULL,
    hold_until BIGINT NOT NULL,              -- no token of it is promised beyond (R31)
    close_after BIGINT NOT NULL,             -- 0 = hold_until decides; written once (R29)
    acked_revision BIGINT NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT NOT NULL
);
