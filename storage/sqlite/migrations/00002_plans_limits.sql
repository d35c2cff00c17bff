-- +goose Up
ALTER TABLE plans ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';   -- JSON: rates and concurrency limits of all features together
