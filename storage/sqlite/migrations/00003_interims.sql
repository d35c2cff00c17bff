-- +goose Up
CREATE TABLE interims (
    lane_id BIGINT NOT NULL,                 -- of the reservation's owner
    sequence BIGINT NOT NULL,
    number BIGINT NOT NULL,                  -- the highest counts (R23)
    expire_time BIGINT NOT NULL,
    body BYTEA NOT NULL,                     -- the EXPIRED record that charges it
    PRIMARY KEY (lane_id, sequence)
) WITHOUT ROWID;
