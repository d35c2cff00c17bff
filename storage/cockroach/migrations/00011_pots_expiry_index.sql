-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS pots_expiry ON pots (end_time) WHERE kind = 1 AND available > 0;
