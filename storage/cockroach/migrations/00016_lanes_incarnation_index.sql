-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX IF NOT EXISTS lanes_incarnation ON lanes (incarnation_id);
