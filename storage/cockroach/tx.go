package cockroach

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/purser-io/purser/storage/relational"
)

// bulkRows bounds the statements sent in one round trip, and with them the memory they take.
const bulkRows = 1000

// transaction is a relational.Tx over pgx. It remembers the first error after which the
// transaction has to run again, in case the closure wraps it beyond recognition or drops it.
type transaction struct {
	tx      pgx.Tx
	dialect dialect
	limit   time.Duration // for one statement, as the client counts it
	restart error
}

var _ relational.Tx = (*transaction)(nil)

// fail classifies the error of a statement.
func (t *transaction) fail(err error) error {
	err = t.dialect.classify(beforeCommit, t.tx.Conn(), err)
	var again restart
	if t.restart == nil && errors.As(err, &again) {
		t.restart = again
	}
	return err
}

// Exec see [relational.Tx].
func (t *transaction) Exec(ctx context.Context, sql string, args ...any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	tag, err := t.tx.Exec(ctx, sql, args...)
	if err != nil {
		return 0, t.fail(err)
	}
	return tag.RowsAffected(), nil
}

// Query see [relational.Tx].
func (t *transaction) Query(ctx context.Context, sql string, args ...any) (relational.Rows, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	rows, err := t.tx.Query(ctx, sql, args...)
	if err != nil {
		cancel()
		return nil, t.fail(err)
	}
	return &resultSet{Rows: rows, fail: t.fail, cancel: cancel}, nil
}

// Queries see [relational.Tx].
func (t *transaction) Queries(ctx context.Context, queries []relational.Query, scan func(int, relational.Rows) error) error {
	for first := 0; first < len(queries); first += bulkRows {
		part := queries[first:min(first+bulkRows, len(queries))]
		if err := t.queries(ctx, part, func(i int, rows relational.Rows) error { return scan(first+i, rows) }); err != nil {
			return err
		}
	}
	return nil
}

// queries sends what goes in one round trip.
func (t *transaction) queries(ctx context.Context, queries []relational.Query, scan func(int, relational.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	var b pgx.Batch
	for i := range queries {
		b.Queue(queries[i].SQL, queries[i].Args...)
	}
	results := t.tx.SendBatch(ctx, &b)
	for i := range queries {
		if err := t.result(results, func(rows relational.Rows) error { return scan(i, rows) }); err != nil {
			_ = results.Close() // which says the same again
			return err
		}
	}
	if err := results.Close(); err != nil {
		return t.fail(err)
	}
	return nil
}

// result reads the next query's rows.
func (t *transaction) result(results pgx.BatchResults, scan func(relational.Rows) error) error {
	rows, err := results.Query()
	if err != nil {
		return t.fail(err)
	}
	set := &resultSet{Rows: rows, fail: t.fail, cancel: func() {}}
	defer set.Close()
	for set.Next() {
		if err := scan(set); err != nil {
			return err
		}
	}
	return set.Err()
}

// Bulk see [relational.Tx].
func (t *transaction) Bulk(ctx context.Context, sql string, rows [][]any) (int64, error) {
	var affected int64
	for len(rows) > 0 {
		n := min(len(rows), bulkRows)
		a, err := t.batch(ctx, sql, rows[:n])
		if err != nil {
			return 0, t.fail(err)
		}
		affected, rows = affected+a, rows[n:]
	}
	return affected, nil
}

func (t *transaction) batch(ctx context.Context, sql string, rows [][]any) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	var b pgx.Batch
	for _, args := range rows {
		b.Queue(sql, args...)
	}
	results := t.tx.SendBatch(ctx, &b)
	var affected int64
	for range rows {
		tag, err := results.Exec()
		if err != nil {
			return 0, errors.Join(err, results.Close())
		}
		affected += tag.RowsAffected()
	}
	return affected, results.Close()
}

// Now see [relational.Tx]. The timestamp is converted here: epoch arithmetic in SQL is
// numeric on PostgreSQL and floating on CockroachDB.
func (t *transaction) Now(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, t.limit)
	defer cancel()
	var now time.Time
	if err := t.tx.QueryRow(ctx, `SELECT transaction_timestamp()`).Scan(&now); err != nil {
		return 0, t.fail(err)
	}
	return now.UnixNano(), nil
}

// ForUpdate see [relational.Tx].
func (t *transaction) ForUpdate() string { return " FOR UPDATE" }

// resultSet classifies the errors of a query, most of which come up while it is read.
type resultSet struct {
	pgx.Rows
	fail   func(error) error
	cancel context.CancelFunc
}

// Err see [relational.Rows].
func (r *resultSet) Err() error {
	if err := r.Rows.Err(); err != nil {
		return r.fail(err)
	}
	return nil
}

// Close see [relational.Rows].
func (r *resultSet) Close() {
	r.Rows.Close()
	r.cancel()
}
