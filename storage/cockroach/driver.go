package cockroach

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cockroachdb/cockroach-go/v2/crdb"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// Bounds of the retries after serialization failures.
const (
	maxTries     = 10
	firstBackoff = 2 * time.Millisecond
	lastBackoff  = 100 * time.Millisecond
)

// driver is a relational.Driver over pgx. Flushes, other writes and reads have a pool each, so
// that a burst of one does not make the others wait for a connection.
type driver struct {
	flush, write, read *pgxpool.Pool
	dialect            dialect
	limit              time.Duration // for one statement, as the client counts it
}

var _ relational.Driver = (*driver)(nil)

// Write see [relational.Driver]. The loop is cockroach-go's for single statements, around
// whole transactions. Its ExecuteTx (crdbpgxv5) is not for us: PostgreSQL reports 40001 at
// COMMIT, whose error ExecuteTx drops; its savepoints cost two round trips; and any other
// error of its RELEASE is called ambiguous, also where the database was definite.
func (d *driver) Write(ctx context.Context, fn func(relational.Tx) error) error {
	return d.again(ctx, func(ctx context.Context) error {
		return d.attempt(ctx, d.write, pgx.TxOptions{IsoLevel: pgx.Serializable}, fn)
	})
}

// Read see [relational.Driver].
func (d *driver) Read(ctx context.Context, fn func(relational.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}
	return d.again(ctx, func(ctx context.Context) error { return d.attempt(ctx, d.read, options, fn) })
}

// Snapshot see [relational.Driver].
func (d *driver) Snapshot(ctx context.Context, fn func(relational.Tx) error) error {
	options := pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: d.dialect.unhurried()}
	return d.again(ctx, func(ctx context.Context) error { return d.attempt(ctx, d.read, options, fn) })
}

// again runs fn until it ends with anything but a serialization failure, maxTries times at
// most, then says CONTENTION.
func (d *driver) again(ctx context.Context, fn func(context.Context) error) error {
	tries := 0
	err := crdb.ExecuteCtx(crdb.WithMaxRetries(ctx, maxTries-1), func(ctx context.Context, _ ...any) error {
		if tries++; tries > 1 {
			if err := pause(ctx, tries-2); err != nil {
				return unavailable(err)
			}
		}
		return fn(ctx)
	})
	var exhausted *crdb.MaxRetriesExceededError
	if errors.As(err, &exhausted) {
		return &quota.Error{Reason: quota.ReasonContention, NotApplied: true, RetryAfter: lastBackoff,
			Message: "too many conflicting transactions", Err: err}
	}
	return ended(err)
}

// pause waits before retry n (from 0): doubling, bounded, half of it random, so that those
// who collided do not meet again.
func pause(ctx context.Context, n int) error {
	span := min(firstBackoff<<n, lastBackoff)
	timer := time.NewTimer(span/2 + rand.N(span/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// attempt runs fn in one transaction and commits it.
func (d *driver) attempt(ctx context.Context, pool *pgxpool.Pool, options pgx.TxOptions, fn func(relational.Tx) error) error {
	conn, err := d.acquire(ctx, pool)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx, err := d.begin(ctx, conn, options)
	if err != nil {
		return err
	}
	// Behind a commit this does nothing; behind a cancelled context the connection is broken
	// already, and Release throws it away.
	defer func() { d.rollback(ctx, tx) }()
	t := &transaction{tx: tx, dialect: d.dialect, limit: d.limit}
	if err := fn(t); t.restart != nil {
		return t.restart
	} else if err != nil {
		return err
	}
	at := atCommit
	if options.AccessMode == pgx.ReadOnly {
		at = beforeCommit // nothing was written, so there is nothing to be unsure of
	}
	return d.commit(ctx, tx, at)
}

func (d *driver) acquire(ctx context.Context, pool *pgxpool.Pool) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, connectError(err)
	}
	return conn, nil
}

func (d *driver) begin(ctx context.Context, conn *pgxpool.Conn, options pgx.TxOptions) (pgx.Tx, error) {
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	tx, err := conn.BeginTx(ctx, options)
	return tx, d.dialect.classify(beforeCommit, conn.Conn(), err)
}

// commit waits for the answer even if the caller hangs up: giving up would leave the outcome
// unknown, and cost the connection.
func (d *driver) commit(ctx context.Context, tx pgx.Tx, at stage) error {
	if err := live(ctx, tx.Conn()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.limit)
	defer cancel()
	err := tx.Commit(ctx)
	return d.dialect.classify(at, tx.Conn(), err)
}

// rollback ends a transaction that failed, also when the caller has hung up: the connection
// goes back to the pool clean.
func (d *driver) rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.limit)
	defer cancel()
	// A rollback that fails leaves a broken connection, which the pool discards.
	_ = tx.Rollback(ctx)
}

// appendSQL is a flush: one statement that commits by itself, fenced by the lane's state
// (R3), with neither ON CONFLICT, whose read costs CockroachDB a round, nor RETURNING.
const appendSQL = `INSERT INTO journal (lane_id, tag, k1, k2, kind, body)
SELECT v.lane_id, v.tag, v.k1, v.k2, v.kind, v.body
FROM unnest($1::INT8[], $2::INT2[], $3::INT8[], $4::INT8[], $5::INT2[], $6::BYTEA[]) AS v(lane_id, tag, k1, k2, kind, body)
WHERE EXISTS (SELECT 1 FROM lanes WHERE lane_id = $7 AND state = 1)`

// Append see [relational.Driver]. A failure of the statement itself is definite; a lost
// connection or a server going down leaves the outcome unknown, and the caller sends the
// same rows again (R5).
func (d *driver) Append(ctx context.Context, lane quota.LaneID, rows []relational.JournalRow) (int64, error) {
	args := appendArgs(lane, rows)
	var inserted int64
	err := d.again(ctx, func(ctx context.Context) (err error) {
		inserted, err = d.insert(ctx, args)
		return err
	})
	return inserted, err
}

func (d *driver) insert(ctx context.Context, args []any) (int64, error) {
	conn, err := d.acquire(ctx, d.flush)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	if err := live(ctx, conn.Conn()); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	tag, err := conn.Exec(ctx, appendSQL, args...)
	if err != nil {
		return 0, d.dialect.classify(atCommit, conn.Conn(), err)
	}
	return tag.RowsAffected(), nil
}

// appendArgs turns rows into one array for each column.
func appendArgs(lane quota.LaneID, rows []relational.JournalRow) []any {
	n := len(rows)
	lanes, tags, k1s, k2s := make([]int64, n), make([]int16, n), make([]int64, n), make([]int64, n)
	kinds, bodies := make([]int16, n), make([][]byte, n)
	for i := range rows {
		r := &rows[i]
		lanes[i], tags[i], k1s[i], k2s[i], kinds[i], bodies[i] = r.Lane, r.Tag, r.K1, r.K2, r.Kind, r.Body
	}
	return []any{lanes, tags, k1s, k2s, kinds, bodies, int64(lane)}
}

// Close see [relational.Driver]. It waits for connections in use.
func (d *driver) Close() error {
	for _, pool := range []*pgxpool.Pool{d.flush, d.write, d.read} {
		if pool != nil {
			pool.Close()
		}
	}
	return nil
}
