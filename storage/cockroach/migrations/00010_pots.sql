-- +goose NO TRANSACTION
-- +goose Up
-- Written by draw, return, close, admin calls and the projector's claims; never per settlement.
CREATE TABLE IF NOT EXISTS pots (
    payer_id TEXT NOT NULL,
    pot_id TEXT NOT NULL,
    kind SMALLINT NOT NULL,                  -- 1 grant, 2 budget window, 3 quota window
    unit TEXT NOT NULL,
    granted BIGINT NOT NULL,
    available BIGINT NOT NULL,
    escrowed BIGINT NOT NULL,
    spent BIGINT NOT NULL,
    expired BIGINT NOT NULL,
    refunded BIGINT NOT NULL,
    direct BIGINT NOT NULL,
    start_time BIGINT NOT NULL,              -- window start, or when the grant becomes effective
    end_time BIGINT NOT NULL,                -- window end, or when the grant expires
    account_id TEXT NOT NULL,
    limit_id TEXT NOT NULL,
    selector TEXT NOT NULL,
    grant_kind SMALLINT NOT NULL,
    priority BIGINT NOT NULL,
    cost_basis TEXT NOT NULL,
    note TEXT NOT NULL,
    voided SMALLINT NOT NULL,
    create_time BIGINT NOT NULL,
    PRIMARY KEY (payer_id, pot_id)
);
