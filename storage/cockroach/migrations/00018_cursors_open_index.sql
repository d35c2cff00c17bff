-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS cursors_open ON cursors (lane_id) WHERE finished = 0;
