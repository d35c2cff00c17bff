package authority

import (
	"context"
	"time"

	"github.com/purser-io/purser/quota/projection"
)

// projectBatches is how many batches one projection takes on: short transactions, so that a
// flush never waits for the projector (design §6).
const projectBatches = 16

func (a *Authority) wakeProjector() {
	select {
	case a.projector <- struct{}{}:
	default:
	}
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
	store := a.deps.Store
	cursors, err := store.Projectable(ctx, a.engine.Load().id)
	if err != nil {
		return false, err
	}
	for _, c := range cursors {
		for {
			batches, err := store.Batches(ctx, c, projectBatches)
			if err != nil {
				return more, err
			}
			if len(batches) == 0 {
				if c.Closed {
					err = store.Finished(ctx, c)
				}
				if err != nil {
					return more, err
				}
				break
			}
			pots, err := store.PotsOf(ctx, projection.Refs(batches))
			if err != nil {
				return more, err
			}
			now := a.now()
			p := projection.Build(c, now, batches, pots)
			err = a.untilKnown(ctx, func(ctx context.Context) error {
				_, err := store.Project(ctx, p)
				return err
			})
			if err != nil {
				return more, err
			}
			more = true
			lag := time.Duration(0)
			if n := len(p.Events); n > 0 {
				lag = time.Duration(now - p.Events[n-1].SettledAt)
			}
			a.metrics.Projected(len(batches), len(p.Events), lag)
			c.No = p.To
		}
	}
	return more, nil
}

// Quiesce waits until everything queued is durable and projected. It is for demos, tests and
// the end of a drain; with traffic going on it may wait for ever.
func (a *Authority) Quiesce(ctx context.Context) error {
	for {
		queued := 0
		for _, e := range a.engines() {
			for _, l := range e.allLanes() {
				queued += l.pending()
			}
		}
		if queued == 0 {
			more, err := a.project(ctx)
			if err != nil {
				return err
			}
			if !more {
				return nil
			}
			continue
		}
		if !sleep(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}
