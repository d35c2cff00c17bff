-- +goose NO TRANSACTION
-- +goose Up
INSERT INTO revision (id, value) VALUES (1, 0) ON CONFLICT (id) DO NOTHING;
