-- +goose Up
-- Times are unix nanoseconds, 9223372036854775807 = never; amounts are micros of a credit or
-- counts of a meter. Every row has one kind of writer (R21).

CREATE TABLE revision (
    id BIGINT NOT NULL PRIMARY KEY,          -- one row: 1
    value BIGINT NOT NULL                    -- order of admin transactions, no gaps (R32)
);
INSERT INTO revision (id, value) VALUES (1, 0);

CREATE TABLE changes (
    revision BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (revision, kind, id)
) WITHOUT ROWID;

CREATE TABLE features (
    id TEXT NOT NULL PRIMARY KEY,
    kind SMALLINT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    meters TEXT NOT NULL,                    -- JSON array
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE plans (
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    display_name TEXT NOT NULL,
    rate_card TEXT NOT NULL,
    entitlements TEXT NOT NULL,              -- JSON
    fallback TEXT NOT NULL,                  -- JSON array
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (id, version)
) WITHOUT ROWID;

CREATE TABLE rate_cards (
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    price_version BIGINT NOT NULL,           -- numbers versions over all rate cards
    effective_time BIGINT NOT NULL,
    prices TEXT NOT NULL,                    -- JSON
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    PRIMARY KEY (id, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX rate_cards_price_version ON rate_cards (price_version);

CREATE TABLE accounts (
    id TEXT NOT NULL PRIMARY KEY,
    parent_id TEXT NOT NULL,
    payer_id TEXT NOT NULL,
    display_name TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    status SMALLINT NOT NULL,
    suspend_reason TEXT NOT NULL,
    epoch BIGINT NOT NULL,                   -- every draw checks it (R12)
    plan_id TEXT NOT NULL,
    plan_version BIGINT NOT NULL,
    create_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE budgets (
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
) WITHOUT ROWID;

-- Written by draw, return, close, admin calls and the projector's claims; never per settlement.
CREATE TABLE pots (
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
) WITHOUT ROWID;
CREATE INDEX pots_expiry ON pots (end_time) WHERE kind = 1 AND available > 0;
-- A draw on the wallet reads the grants that count, not a payer's million window pots.
CREATE INDEX pots_grants ON pots (payer_id) WHERE kind = 1 AND (available > 0 OR escrowed > 0);

CREATE TABLE debts (
    payer_id TEXT NOT NULL PRIMARY KEY,
    debt BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE incarnations (
    id TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    address TEXT NOT NULL,
    state SMALLINT NOT NULL,                 -- 1 LIVE, 2 DEAD, 3 DRAINED
    lease_sequence BIGINT NOT NULL,
    lease_nonce BIGINT NOT NULL,
    issue_until BIGINT NOT NULL,
    hold_until BIGINT NOT NULL,              -- no token of it is promised beyond (R31)
    close_after BIGINT NOT NULL,             -- 0 = hold_until decides; written once (R29)
    acked_revision BIGINT NOT NULL,
    start_time BIGINT NOT NULL,
    end_time BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE lanes (
    lane_id BIGINT NOT NULL PRIMARY KEY,
    incarnation_id TEXT NOT NULL,
    guest SMALLINT NOT NULL,
    state SMALLINT NOT NULL,                 -- 1 OPEN, 2 CLOSING, 3 CLOSED
    gc_before BIGINT NOT NULL,               -- R16
    seal_time BIGINT NOT NULL,               -- R54; 0 = not sealed
    create_time BIGINT NOT NULL,
    close_time BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX lanes_incarnation ON lanes (incarnation_id);

-- Apart from lanes: flushes read the lane's row, the projector writes this one.
CREATE TABLE cursors (
    lane_id BIGINT NOT NULL PRIMARY KEY,
    batch_no BIGINT NOT NULL,
    finished SMALLINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX cursors_open ON cursors (lane_id) WHERE finished = 0;

CREATE TABLE allotments (
    lane_id BIGINT NOT NULL,
    number BIGINT NOT NULL,
    payer_id TEXT NOT NULL,
    pot_id TEXT NOT NULL,
    amount BIGINT NOT NULL,
    spent BIGINT NOT NULL,                   -- once closed
    state SMALLINT NOT NULL,                 -- 1 open, 3 closed
    not_after BIGINT NOT NULL,
    shrink_sequence BIGINT NOT NULL,         -- R19
    create_time BIGINT NOT NULL,
    PRIMARY KEY (lane_id, number)
) WITHOUT ROWID;
CREATE INDEX allotments_open ON allotments (payer_id, lane_id) WHERE state = 1;

CREATE TABLE journal (
    lane_id BIGINT NOT NULL,
    tag SMALLINT NOT NULL,                   -- 1 batch, 2 entry, 3 note
    k1 BIGINT NOT NULL,
    k2 BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (lane_id, tag, k1, k2)
) WITHOUT ROWID;

CREATE TABLE usage_events (
    lane_id BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    phase SMALLINT NOT NULL,
    account_id TEXT NOT NULL,
    payer_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    feature TEXT NOT NULL,
    labels TEXT NOT NULL,                    -- JSON object
    price_version BIGINT NOT NULL,
    usage TEXT NOT NULL,                     -- JSON: [{meter, quantity, micros}]
    charged BIGINT NOT NULL,
    covered BIGINT NOT NULL,
    uncovered BIGINT NOT NULL,
    grants TEXT NOT NULL,                    -- JSON: [{grant, micros}]
    outcome SMALLINT NOT NULL,
    reserve_time BIGINT NOT NULL,
    settle_time BIGINT NOT NULL,
    nonce BIGINT NOT NULL,                   -- with lane and sequence: the reservation's id
    PRIMARY KEY (lane_id, sequence, phase)
) WITHOUT ROWID;
CREATE INDEX usage_events_account ON usage_events (account_id, settle_time);

CREATE TABLE rollups (
    account_id TEXT NOT NULL,
    hour BIGINT NOT NULL,
    feature TEXT NOT NULL,
    meter TEXT NOT NULL,
    quantity BIGINT NOT NULL,
    micros BIGINT NOT NULL,
    events BIGINT NOT NULL,
    PRIMARY KEY (account_id, hour, feature, meter)
) WITHOUT ROWID;

-- What was spent of a pot as the projector knows it: rows that draws never touch (R21).
CREATE TABLE spent (
    payer_id TEXT NOT NULL,
    pot_id TEXT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (payer_id, pot_id)
) WITHOUT ROWID;

CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    hash BYTEA NOT NULL,
    role SMALLINT NOT NULL,
    principal TEXT NOT NULL,
    account_id TEXT NOT NULL,
    labels TEXT NOT NULL,                    -- JSON object
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL,
    revoke_time BIGINT NOT NULL,
    revision BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE mac_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    secret BYTEA NOT NULL,
    sign_from BIGINT NOT NULL,
    create_time BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE requests (
    principal TEXT NOT NULL,
    request_id TEXT NOT NULL,
    digest BYTEA NOT NULL,
    result TEXT NOT NULL,                    -- JSON of the resource answered
    create_time BIGINT NOT NULL,
    PRIMARY KEY (principal, request_id)
) WITHOUT ROWID;
