-- +goose NO TRANSACTION
-- +goose Up
CREATE UNIQUE INDEX IF NOT EXISTS rate_cards_price_version ON rate_cards (price_version);
