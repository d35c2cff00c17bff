-- +goose NO TRANSACTION
-- +goose Up
ALTER TABLE incarnations ADD COLUMN IF NOT EXISTS wishes TEXT NOT NULL DEFAULT '';   -- JSON: pots the other nodes are to give back of (protocol 3.2)
