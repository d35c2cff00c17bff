-- +goose NO TRANSACTION
-- +goose Up
-- What was spent of a pot as the projector knows it: rows that draws never touch (R21).
CREATE TABLE IF NOT EXISTS spent (
    payer_id TEXT NOT NULL,
    pot_id TEXT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (payer_id, pot_id)
);
