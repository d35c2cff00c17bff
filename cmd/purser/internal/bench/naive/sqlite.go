package naive

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	_ "modernc.org/sqlite" // the driver "sqlite", the one that the store uses
)

// sqliteBooks are a file with one writing connection, as SQLite has one writer anyway: whoever
// waits for it waits in Go, which is cheaper than SQLite's polling. Statements are prepared
// once.
type sqliteBooks struct {
	db                                 *sql.DB
	take, insert, find, settle, credit *sql.Stmt
	row                                *sql.Stmt
}

// sqlitePragmas are those of the store: the log is written ahead and synced on every commit.
const sqlitePragmas = "?_txlock=immediate&_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)&_pragma=synchronous(full)" +
	"&_pragma=cache_size(-16384)"

// OpenSQLite makes books in a new file.
func OpenSQLite(ctx context.Context, path string) (Books, error) {
	db, err := sql.Open("sqlite", "file:"+path+sqlitePragmas)
	if err != nil {
		return nil, fmt.Errorf("open naive books: %w", err)
	}
	db.SetMaxOpenConns(1)
	b := &sqliteBooks{db: db}
	if err := b.prepare(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open naive books: %w", err), db.Close())
	}
	return b, nil
}

func (b *sqliteBooks) prepare(ctx context.Context) error {
	for _, ddl := range []string{
		`CREATE TABLE naive_accounts (id TEXT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL, charged BIGINT NOT NULL) WITHOUT ROWID`,
		`CREATE TABLE naive_reservations (id TEXT NOT NULL PRIMARY KEY, account TEXT NOT NULL, state BIGINT NOT NULL,
			held BIGINT NOT NULL, charged BIGINT NOT NULL, created BIGINT NOT NULL, settled BIGINT NOT NULL) WITHOUT ROWID`,
		`CREATE TABLE naive_rows (id BIGINT NOT NULL PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID`,
	} {
		if _, err := b.db.ExecContext(ctx, ddl); err != nil {
			return err
		}
	}
	for _, s := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&b.take, `UPDATE naive_accounts SET balance = balance - $2 WHERE id = $1 AND balance >= $2`},
		{&b.insert, `INSERT INTO naive_reservations (id, account, state, held, charged, created, settled)
			VALUES ($1, $2, 1, $3, 0, $4, 0) ON CONFLICT (id) DO NOTHING`},
		{&b.find, `SELECT state, held, charged, created, settled FROM naive_reservations WHERE id = $1 AND account = $2`},
		{&b.settle, `UPDATE naive_reservations SET state = $3, charged = $4, settled = $5
			WHERE id = $1 AND account = $2 AND state = 1 RETURNING held, created`},
		{&b.credit, `UPDATE naive_accounts SET balance = balance + $2 - $3, charged = charged + $3 WHERE id = $1`},
		{&b.row, `INSERT INTO naive_rows (id, body) VALUES ($1, $2)`},
	} {
		var err error
		if *s.to, err = b.db.PrepareContext(ctx, s.sql); err != nil {
			return err
		}
	}
	return nil
}

// write runs fn in a transaction and commits it if fn says so.
func (b *sqliteBooks) write(ctx context.Context, fn func(tx *sql.Tx) (commit bool, err error)) error {
	tx, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	commit, err := fn(tx)
	if err != nil || !commit {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// Reserve implements Books.
func (b *sqliteBooks) Reserve(ctx context.Context, id, account string, amount, now int64) (ok bool, err error) {
	err = b.write(ctx, func(tx *sql.Tx) (bool, error) {
		inserted, err := affected(tx.StmtContext(ctx, b.insert).ExecContext(ctx, id, account, amount, now))
		if err != nil {
			return false, err
		}
		if !inserted {
			r, found, err := b.look(ctx, tx, id, account)
			ok = found && r.Held == amount
			return false, err
		}
		ok, err = affected(tx.StmtContext(ctx, b.take).ExecContext(ctx, account, amount))
		return ok, err
	})
	return ok, err
}

// Settle implements Books.
func (b *sqliteBooks) Settle(ctx context.Context, id, account string, state, charge, now int64) (r Reservation, found bool, err error) {
	err = b.write(ctx, func(tx *sql.Tx) (bool, error) {
		r = Reservation{ID: id, Account: account, State: state, Charged: charge, SettledAfter: now}
		err := tx.StmtContext(ctx, b.settle).QueryRowContext(ctx, id, account, state, charge, now).Scan(&r.Held, &r.Created)
		if errors.Is(err, sql.ErrNoRows) {
			r, found, err = b.look(ctx, tx, id, account)
			return false, err
		}
		if err != nil {
			return false, err
		}
		found, err = affected(tx.StmtContext(ctx, b.credit).ExecContext(ctx, account, r.Held, charge))
		return found, err
	})
	return r, found, err
}

func (b *sqliteBooks) look(ctx context.Context, tx *sql.Tx, id, account string) (r Reservation, found bool, err error) {
	r = Reservation{ID: id, Account: account}
	err = tx.StmtContext(ctx, b.find).QueryRowContext(ctx, id, account).Scan(&r.State, &r.Held, &r.Charged, &r.Created, &r.SettledAfter)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	return r, err == nil, err
}

func affected(r sql.Result, err error) (bool, error) {
	if err != nil {
		return false, err
	}
	n, err := r.RowsAffected()
	return n == 1, err
}

// Seed implements Books.
func (b *sqliteBooks) Seed(ctx context.Context, accounts []string, balance int64) error {
	return b.write(ctx, func(tx *sql.Tx) (bool, error) {
		for _, a := range accounts {
			if _, err := tx.ExecContext(ctx, `INSERT INTO naive_accounts (id, balance, charged) VALUES ($1, $2, 0)`, a, balance); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// Sums implements Books.
func (b *sqliteBooks) Sums(ctx context.Context) (balances, held, charged int64, err error) {
	err = b.db.QueryRowContext(ctx, sumsSQL).Scan(&balances, &held, &charged)
	return balances, held, charged, err
}

// InsertRow implements Books.
func (b *sqliteBooks) InsertRow(ctx context.Context, n int64) error {
	_, err := b.row.ExecContext(ctx, n, rowBody)
	return err
}

// Drop implements Books.
func (b *sqliteBooks) Drop(ctx context.Context) error {
	for _, statement := range drops {
		if _, err := b.db.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Close implements Books.
func (b *sqliteBooks) Close() error { return b.db.Close() }
