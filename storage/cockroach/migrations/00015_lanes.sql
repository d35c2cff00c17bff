-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS lanes (
    lane_id BIGINT NOT NULL PRIMARY KEY,
    incarnation_id TEXT NOT NULL,
    guest SMALLINT NOT NULL,
    state SMALLINT NOT NULL,                 -- 1 OPEN, 2 CLOSING, 3 CLOSED
    gc_before BIGINT NOT NULL,               -- R16
    seal_time BIGINT NOT NULL,               -- R54; 0 = not sealed
    create_time BIGINT NOT NULL,
    close_time BIGINT NOT NULL
);
