-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS allotments_open ON allotments (payer_id, lane_id) WHERE state = 1;
