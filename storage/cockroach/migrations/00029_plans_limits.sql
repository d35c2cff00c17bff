-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE plans ADD COLUMN IF NOT EXISTS limits TEXT NOT NULL DEFAULT '{}';   -- JSON: rates and concurrency limits of all features together
