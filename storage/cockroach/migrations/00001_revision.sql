-- +goose NO TRANSACTION
-- +goose Up
-- Times are unix nanoseconds, 9223372036854775807 = never; amounts are micros of a credit or
-- counts of a meter. Every row has one kind of writer (R21).

CREATE TABLE IF NOT EXISTS revision (
    id BIGINT NOT NULL PRIMARY KEY,          -- one row: 1
    value BIGINT NOT NULL                    -- order of admin transactions, no gaps (R32)
);
