-- +goose Up
ALTER TABLE incarnations ADD COLUMN wishes TEXT NOT NULL DEFAULT '';   -- JSON: pots the other nodes are to give back of (protocol 3.2)
