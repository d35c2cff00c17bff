-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS usage_events_account ON usage_events (account_id, settle_time);
