-- +goose NO TRANSACTION
-- +goose Up
CREATE TABLE IF NOT EXISTS budgets (
    account_id TEXT NOT NULL,
    id TEXT NOT NULL,
    unit TEXT NOT NULL,                      -- '' = credits, else a meter
    cap BIGINT NOT NULL,
    window_kind SMALLINT NOT NULL,
    label_key TEXT NOT NULL,
    label_value TEXT NOT NULL,
    soft SMALLINT NOT NULL,
    warn_percent SMALLINT NOT NULL,
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (account_id, id)
);
