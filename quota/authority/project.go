package authority

import (
	"context"
	"errors"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/projection"
)

// Bounds of one projection: short transactions, so that a flush never waits long for the
// projector (design §6).
const (
	projectBatches = 32
	projectRecords = 512 // but at least one batch
)

// few cuts batches to what one projection takes on.
func few(batches []quota.Batch) []quota.Batch {
	records := 0
	for i := range batches {
		if records += len(batches[i].Records); records > projectRecords && i > 0 {
			return batches[:i]
		}
	}
	return batches
}

// projectLoop projects this node's lanes as they grow, and those of the dead.
func (a *Authority) projectLoop(ctx context.Context) error {
	t := time.NewTicker(a.cfg.Poll)
	defer t.Stop()
	for {
		if _, err := a.project(ctx); err != nil && ctx.Err() == nil {
			a.deps.Logger.Warn("projector will try again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C: // not at every flush: fewer, larger transactions
		}
	}
}

// project brings every lane it may up to its end; more says that something was projected.
func (a *Authority) project(ctx context.Context) (more bool, err error) {
	a.projectMu.Lock()
	defer a.projectMu.Unlock()
	at := a.now()
	cursors, err := a.deps.Store.Projectable(ctx, a.engine.Load().id)
	if err != nil {
		return false, err
	}
	a.backlog.listed(at, cursors)
	for _, c := range cursors {
		some, err := a.projectLane(ctx, c)
		more = more || some
		if err != nil {
			return more, err
		}
	}
	return more, nil
}

// projectLane brings one lane up to its end.
func (a *Authority) projectLane(ctx context.Context, c quota.Cursor) (more bool, err error) {
	store := a.deps.Store
	for {
		at := a.now()
		batches, err := store.Batches(ctx, c, projectBatches)
		if err != nil {
			return more, err
		}
		a.backlog.read(c.Lane, at, batches)
		if len(batches) == 0 && c.Closed {
			return more, store.Finished(ctx, c)
		}
		if len(batches) == 0 {
			return more, nil
		}
		batches = few(batches)
		pots, err := store.PotsOf(ctx, projection.Refs(batches))
		if err != nil {
			return more, err
		}
		p := projection.Build(c, a.now(), batches, pots)
		err = a.untilKnown(ctx, func(ctx context.Context) error {
			_, err := store.Project(ctx, p) // not applied: another node moved the cursor, and we go on behind it
			return err
		})
		if err != nil {
			return more, err
		}
		more = true
		a.metrics.Projected(len(batches), len(p.Events))
		a.backlog.projected(c.Lane, p.To)
		c.No = p.To
	}
}

// Quiesce waits until everything queued is durable and projected, through failures of the
// store; bound it by ctx. It is for demos, tests and the end of a drain: with traffic going on
// it may never find a quiet moment.
func (a *Authority) Quiesce(ctx context.Context) error {
	for {
		more := a.queued() > 0
		var err error
		if !more {
			more, err = a.project(ctx)
		}
		if err == nil && !more {
			return nil
		}
		if !sleep(ctx, time.Millisecond) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// queued is how many settlements are not durable yet.
func (a *Authority) queued() int {
	n := 0
	for _, e := range a.engines() {
		for _, l := range e.allLanes() {
			n += l.pending()
		}
	}
	return n
}
