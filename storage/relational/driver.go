// Package relational is the part of storage that SQLite, PostgreSQL and CockroachDB share:
// row mapping, and every operation that is the same SQL on all of them. A [Driver] supplies
// what differs: connections, transactions with their retries, and the journal's hot insert.
//
// SQL here is the subset that all three accept: numbered parameters ($1), ON CONFLICT
// (columns), RETURNING, BIGINT unix nanoseconds for times, no types beyond BIGINT, SMALLINT,
// TEXT and BYTEA, no arrays, no dialect functions.
package relational

import (
	"context"

	"github.com/purser-io/purser/quota"
)

// Rows is a result set. Close is idempotent; Err is read after Next returned false.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close()
}

// Query is a statement that returns rows, with its arguments.
type Query struct {
	SQL  string
	Args []any
}

// Tx is one transaction at SERIALIZABLE.
type Tx interface {
	// Exec runs a statement and returns the rows affected.
	Exec(ctx context.Context, sql string, args ...any) (int64, error)
	Query(ctx context.Context, sql string, args ...any) (Rows, error)
	// Queries runs queries one after the other, in one round trip where the database has any,
	// and calls scan for every row with the number of its query; scan reads it with rows.Scan.
	Queries(ctx context.Context, queries []Query, scan func(query int, rows Rows) error) error
	// Bulk runs one statement once for each row of arguments, in one round trip where the
	// database has any, and returns the rows affected in all.
	Bulk(ctx context.Context, sql string, rows [][]any) (int64, error)
	// Now is the database's transaction time, unix ns (R44); the injected clock on SQLite.
	Now(ctx context.Context) (int64, error)
	// ForUpdate is the suffix that locks the rows a SELECT reads, " FOR UPDATE" or "" where
	// there is one writer only.
	ForUpdate() string
}

// Driver runs transactions on one database.
type Driver interface {
	// Write runs fn in a SERIALIZABLE transaction and commits. fn may run again after a
	// serialization failure and so must keep no state across calls. An unknown outcome of the
	// commit is returned as quota.ReasonOutcomeUnknown, a failure that surely wrote nothing as
	// STORE_UNAVAILABLE, STORE_FULL or CONTENTION; errors of fn come back as they are.
	Write(ctx context.Context, fn func(Tx) error) error
	// Read runs fn in a read-only transaction over one consistent state. fn may run again.
	Read(ctx context.Context, fn func(Tx) error) error
	// Snapshot is Read for those who read whole tables while others write: no transaction of
	// theirs fails or waits because of it. It may itself wait for a quiet instant to begin at.
	Snapshot(ctx context.Context, fn func(Tx) error) error
	// Append inserts journal rows in one statement, provided that lane is open (R3). It
	// returns 0 if it is not. A duplicate key is ErrDuplicate, with nothing inserted.
	Append(ctx context.Context, lane quota.LaneID, rows []JournalRow) (int64, error)
	Close() error
}

// ErrDuplicate is a unique violation, from Driver.Append or inside a transaction.
const ErrDuplicate = duplicate("duplicate key")

type duplicate string

func (d duplicate) Error() string { return string(d) }

// Tags of the journal's rows. One table and one key prefix per lane, so that a flush is a
// write of one range on CockroachDB.
const (
	TagBatch int16 = 1 // (lane, 1, batch number, 0): the full records
	TagEntry int16 = 2 // (owner's lane, 2, sequence, phase): one entry
	TagNote  int16 = 3 // (owner's lane, 3, guest lane, batch number): a note
)

// JournalRow is a row of the journal.
type JournalRow struct {
	Lane   int64
	Tag    int16
	K1, K2 int64
	Kind   int16 // entries: the settlement's kind
	Body   []byte
}

// Store is every store interface of quota over a Driver.
type Store struct {
	Driver
}

// New returns a Store over d.
func New(d Driver) *Store { return &Store{Driver: d} }
