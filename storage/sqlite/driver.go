package sqlite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// readers is how many reads run at once beside the writer.
const readers = 4

// driver is a relational.Driver over one writing and a few reading connections. A channel
// holds those that are free: waiting for one is first come, first served, and watches the
// context.
type driver struct {
	file    string
	writing chan *session // nil if read-only
	reading chan *session
	opened  []chan *session // where each open session comes back to
	closing chan struct{}
	once    sync.Once
	closed  error // of Close
}

var _ relational.Driver = (*driver)(nil)

// openDriver opens the connections, checks the file and, in an empty one, makes the schema.
func openDriver(ctx context.Context, file string, o *Options) (*driver, error) {
	d := &driver{file: file, reading: make(chan *session, readers), closing: make(chan struct{})}
	err := d.open(ctx, o)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *driver) open(ctx context.Context, o *Options) error {
	if !o.ReadOnly {
		w, err := openSession(ctx, d.file, dsn(d.file, true, o.MaxPages), o.Clock)
		if err != nil {
			return err
		}
		d.writing = make(chan *session, 1)
		d.add(d.writing, w)
		if err := prepare(ctx, w); err != nil {
			return err
		}
	}
	for range readers {
		r, err := openSession(ctx, d.file, dsn(d.file, false, 0), o.Clock)
		if err != nil {
			return err
		}
		d.add(d.reading, r)
	}
	return d.Read(ctx, func(tx relational.Tx) error { return checkSchema(ctx, tx, d.file) })
}

func (d *driver) add(to chan *session, s *session) {
	d.opened = append(d.opened, to)
	to <- s
}

// take waits for a free session.
func (d *driver) take(ctx context.Context, from chan *session) (*session, error) {
	select {
	case s := <-from:
		return s, nil
	case <-d.closing:
		return nil, &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true,
			Message: fmt.Sprintf("store %s is closed", d.file)}
	case <-ctx.Done():
		return nil, unavailable(d.file, ctx.Err())
	}
}

// Write see [relational.Driver]. fn runs once: there is nobody to conflict with.
func (d *driver) Write(ctx context.Context, fn func(relational.Tx) error) error {
	if d.writing == nil {
		return &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true,
			Message: fmt.Sprintf("store %s was opened for reading only", d.file)}
	}
	s, err := d.take(ctx, d.writing)
	if err != nil {
		return err
	}
	defer func() { d.writing <- s }()
	return s.within(ctx, "BEGIN IMMEDIATE", "COMMIT", fn)
}

// Read see [relational.Driver]. It waits for no writer, and no writer waits for it.
func (d *driver) Read(ctx context.Context, fn func(relational.Tx) error) error {
	s, err := d.take(ctx, d.reading)
	if err != nil {
		return err
	}
	defer func() { d.reading <- s }()
	return s.within(ctx, "BEGIN", "ROLLBACK", fn)
}

// Snapshot see [relational.Driver]. Readers of a WAL file disturb nobody.
func (d *driver) Snapshot(ctx context.Context, fn func(relational.Tx) error) error {
	return d.Read(ctx, fn)
}

const (
	selectLaneState = `SELECT state FROM lanes WHERE lane_id = $1`
	insertRow       = `INSERT INTO journal (lane_id, tag, k1, k2, kind, body) VALUES ($1, $2, $3, $4, $5, $6)`
)

// Append see [relational.Driver]. One writer makes the look at the lane and the inserts one
// step (R3).
func (d *driver) Append(ctx context.Context, lane quota.LaneID, rows []relational.JournalRow) (inserted int64, err error) {
	err = d.Write(ctx, func(tx relational.Tx) error {
		open, err := laneOpen(ctx, tx, lane)
		if err != nil || !open {
			return err
		}
		args := make([][]any, len(rows))
		for i := range rows {
			r := &rows[i]
			args[i] = []any{r.Lane, r.Tag, r.K1, r.K2, r.Kind, r.Body}
		}
		inserted, err = tx.Bulk(ctx, insertRow, args)
		return err
	})
	if err != nil {
		return 0, err
	}
	return inserted, nil
}

func laneOpen(ctx context.Context, tx relational.Tx, lane quota.LaneID) (bool, error) {
	rows, err := tx.Query(ctx, selectLaneState, int64(lane))
	if err != nil {
		return false, err
	}
	defer rows.Close()
	var state int16
	for rows.Next() {
		if err := rows.Scan(&state); err != nil {
			return false, err
		}
	}
	return state == int16(quota.LaneOpen), rows.Err()
}

// Close see [relational.Driver]. It waits for what runs; later calls are refused.
func (d *driver) Close() error {
	d.once.Do(func() {
		close(d.closing)
		// From the last, the writer at the end: the last connection to close folds the log into
		// the file, which only a writer can.
		for _, sessions := range slices.Backward(d.opened) {
			d.closed = errors.Join(d.closed, (<-sessions).close())
		}
	})
	return d.closed
}
