package auditor

import (
	"context"
	"time"

	"github.com/purser-io/purser/quota"
)

// pace keeps a reader at work for a share of the time only.
type pace struct {
	ctx   context.Context
	share float64
	now   func() time.Time
	since time.Time // when it last went to work
	rows  int
}

const (
	paceRows = 256              // between looks at the clock
	least    = time.Millisecond // of work that is worth a rest
	longest  = time.Second      // rest: a database takes a reader that is silent for longer for dead
)

// row is called for every row read.
func (p *pace) row() error {
	if p.rows++; p.rows%paceRows != 0 {
		return nil
	}
	busy := p.now().Sub(p.since)
	if busy < least {
		return nil
	}
	if !sleep(p.ctx, min(time.Duration(float64(busy)*(1/p.share-1)), longest)) {
		return p.ctx.Err()
	}
	p.since = p.now()
	return nil
}

// pacedStore is a store whose audit rests in between.
type pacedStore struct {
	quota.AuditStore
	pace *pace
}

// Audit see [quota.AuditStore].
func (s *pacedStore) Audit(ctx context.Context, fn func(quota.AuditReader) error) error {
	return s.AuditStore.Audit(ctx, func(r quota.AuditReader) error { return fn(&pacedReader{r, s.pace}) })
}

type pacedReader struct {
	inner quota.AuditReader
	pace  *pace
}

// paced rests before a row is looked at.
func paced[T any](p *pace, fn func(T) error) func(T) error {
	return func(row T) error {
		if err := p.row(); err != nil {
			return err
		}
		return fn(row)
	}
}

// Pots see [quota.AuditReader].
func (r *pacedReader) Pots(fn func(quota.Pot) error) error { return r.inner.Pots(paced(r.pace, fn)) }

// Allotments see [quota.AuditReader].
func (r *pacedReader) Allotments(fn func(quota.AllotmentRow) error) error {
	return r.inner.Allotments(paced(r.pace, fn))
}

// Lanes see [quota.AuditReader].
func (r *pacedReader) Lanes(fn func(quota.LaneRow) error) error {
	return r.inner.Lanes(paced(r.pace, fn))
}

// Entries see [quota.AuditReader].
func (r *pacedReader) Entries(fn func(quota.Entry) error) error {
	return r.inner.Entries(paced(r.pace, fn))
}

// Batches see [quota.AuditReader].
func (r *pacedReader) Batches(fn func(quota.Batch) error) error {
	return r.inner.Batches(paced(r.pace, fn))
}

// Interims see [quota.AuditReader].
func (r *pacedReader) Interims(fn func(quota.InterimRow) error) error {
	return r.inner.Interims(paced(r.pace, fn))
}

// Debts see [quota.AuditReader].
func (r *pacedReader) Debts(fn func(payer string, debt int64) error) error {
	return r.inner.Debts(func(payer string, debt int64) error {
		if err := r.pace.row(); err != nil {
			return err
		}
		return fn(payer, debt)
	})
}

// Spent see [quota.AuditReader].
func (r *pacedReader) Spent(fn func(quota.SpentRow) error) error {
	return r.inner.Spent(paced(r.pace, fn))
}

// UsageEvents see [quota.AuditReader].
func (r *pacedReader) UsageEvents(fn func(quota.UsageEvent) error) error {
	return r.inner.UsageEvents(paced(r.pace, fn))
}
