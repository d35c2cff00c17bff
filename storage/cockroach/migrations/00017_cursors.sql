-- +goose NO TRANSACTION
-- +goose Up
-- Apart from lanes: flushes read the lane's row, the projector writes this one.
CREATE TABLE IF NOT EXISTS cursors (
    lane_id BIGINT NOT NULL PRIMARY KEY,
    batch_no BIGINT NOT NULL,
    finished SMALLINT NOT NULL
);
