-- +goose NO TRANSACTION
-- +goose Up
-- A draw on the wallet reads the grants that count, not a payer's million window pots.
CREATE INDEX IF NOT EXISTS pots_grants ON pots (payer_id) WHERE kind = 1 AND (available > 0 OR escrowed > 0);
