package naive

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// serverBooks are tables on PostgreSQL or CockroachDB. Each operation is one statement, and so
// one round trip and one transaction that holds its row lock no longer than the server needs:
// faster than BEGIN, two statements and COMMIT in every case that we measured.
//
// An account is updated by its key alone: a predicate beside the key, or a CHECK on the table,
// costs CockroachDB the row lock that keeps 64 clients of one account from aborting one
// another. So the condition stands in the values, and taken says whether it held.
//
// PostgreSQL runs at READ COMMITTED, which is enough for single statements that lock the row
// they change, and twice as fast as SERIALIZABLE on one hot account. CockroachDB is asked for the
// same; before 23.2 it is serializable all the same.
type serverBooks struct {
	pool *pgxpool.Pool
}

const (
	reserveSQL = `WITH a AS (
    UPDATE naive_accounts SET balance = balance - CASE WHEN balance >= $3 THEN $3 ELSE 0 END, taken = balance >= $3
    WHERE id = $2 RETURNING taken
)
INSERT INTO naive_reservations (id, account, state, held, charged, created, settled)
SELECT $1, $2, 1, $3, 0, $4, 0 FROM a WHERE taken`

	// settleSQL credits nothing unless the reservation was held: r is empty then.
	settleSQL = `WITH r AS (
    UPDATE naive_reservations SET state = $3, charged = $4, settled = $5
    WHERE id = $1 AND account = $2 AND state = 1 RETURNING held, created
), a AS (
    UPDATE naive_accounts SET balance = balance + COALESCE((SELECT held - $4 FROM r), 0),
        charged = charged + COALESCE((SELECT $4 FROM r), 0)
    WHERE id = $2 RETURNING id
)
SELECT held, created FROM r, a`

	findSQL = `SELECT state, held, charged, created, settled FROM naive_reservations WHERE id = $1 AND account = $2`
	rowSQL  = `INSERT INTO naive_rows (id, body) VALUES ($1, $2)`
)

// Connections in the pool. More of them than this make one hot row slower on PostgreSQL, and
// many rows no faster on machines of a few cores.
const maxConns = 16

// OpenServer makes books in a database that has none.
func OpenServer(ctx context.Context, url string) (Books, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("open naive books: %w", err)
	}
	config.MaxConns, config.MinConns = maxConns, maxConns
	config.ConnConfig.RuntimeParams["default_transaction_isolation"] = "read committed"
	config.ConnConfig.RuntimeParams["application_name"] = "purser bench naive"
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("open naive books: %w", err)
	}
	b := &serverBooks{pool: pool}
	for _, ddl := range []string{
		`CREATE TABLE naive_accounts (id TEXT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL, charged BIGINT NOT NULL, taken BOOLEAN NOT NULL)`,
		`CREATE TABLE naive_reservations (id TEXT NOT NULL PRIMARY KEY, account TEXT NOT NULL, state BIGINT NOT NULL,
			held BIGINT NOT NULL, charged BIGINT NOT NULL, created BIGINT NOT NULL, settled BIGINT NOT NULL)`,
		`CREATE TABLE naive_rows (id BIGINT NOT NULL PRIMARY KEY, body BYTEA NOT NULL)`,
	} {
		if _, err := pool.Exec(ctx, ddl); err != nil {
			pool.Close()
			return nil, fmt.Errorf("open naive books: %w", err)
		}
	}
	return b, nil
}

// Reserve implements Books.
func (b *serverBooks) Reserve(ctx context.Context, id, account string, amount, now int64) (ok bool, err error) {
	err = again(ctx, func() error {
		tag, err := b.pool.Exec(ctx, reserveSQL, id, account, amount, now)
		ok = tag.RowsAffected() == 1
		return err
	})
	var failed *pgconn.PgError
	if !errors.As(err, &failed) || failed.Code != "23505" {
		return ok, err
	}
	r, found, err := b.look(ctx, id, account) // the key was used before; nothing was taken
	return found && r.Held == amount, err
}

// Settle implements Books.
func (b *serverBooks) Settle(ctx context.Context, id, account string, state, charge, now int64) (r Reservation, found bool, err error) {
	r = Reservation{ID: id, Account: account, State: state, Charged: charge, SettledAfter: now}
	err = again(ctx, func() error {
		return b.pool.QueryRow(ctx, settleSQL, id, account, state, charge, now).Scan(&r.Held, &r.Created)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return b.look(ctx, id, account)
	}
	return r, err == nil, err
}

func (b *serverBooks) look(ctx context.Context, id, account string) (r Reservation, found bool, err error) {
	r = Reservation{ID: id, Account: account}
	err = b.pool.QueryRow(ctx, findSQL, id, account).Scan(&r.State, &r.Held, &r.Charged, &r.Created, &r.SettledAfter)
	if errors.Is(err, pgx.ErrNoRows) {
		return r, false, nil
	}
	return r, err == nil, err
}

// tries bounds how often a statement is run that lost against others.
const tries = 20

// again runs fn until it does not fail for serialization.
func again(ctx context.Context, fn func() error) (err error) {
	for range tries {
		err = fn()
		var failed *pgconn.PgError
		if !errors.As(err, &failed) || failed.Code != "40001" || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// Seed implements Books.
func (b *serverBooks) Seed(ctx context.Context, accounts []string, balance int64) error {
	const most = 1000
	for len(accounts) > 0 {
		n := min(len(accounts), most)
		var rows pgx.Batch
		for _, a := range accounts[:n] {
			rows.Queue(`INSERT INTO naive_accounts (id, balance, charged, taken) VALUES ($1, $2, 0, false)`, a, balance)
		}
		if err := b.pool.SendBatch(ctx, &rows).Close(); err != nil {
			return err
		}
		accounts = accounts[n:]
	}
	return nil
}

// Sums implements Books.
func (b *serverBooks) Sums(ctx context.Context) (balances, held, charged int64, err error) {
	err = b.pool.QueryRow(ctx, sumsSQL).Scan(&balances, &held, &charged)
	return balances, held, charged, err
}

// InsertRow implements Books.
func (b *serverBooks) InsertRow(ctx context.Context, n int64) error {
	_, err := b.pool.Exec(ctx, rowSQL, n, rowBody)
	return err
}

// Drop implements Books.
func (b *serverBooks) Drop(ctx context.Context) error {
	for _, statement := range drops {
		if _, err := b.pool.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Close implements Books.
func (b *serverBooks) Close() error {
	b.pool.Close()
	return nil
}
