package authority

import (
	"context"
	"errors"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

const (
	reapLanes      = 64  // lanes looked at in one round
	reapAllotments = 256 // closed in one transaction
	reapGrants     = 256 // expired in one transaction
)

// reapLoop buries the dead: it closes their lanes when every token they could have issued
// has ended, and returns what was left (R10, R22).
func (a *Authority) reapLoop(ctx context.Context) error {
	t := time.NewTicker(2 * a.cfg.Poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if err := a.reap(ctx); err != nil && ctx.Err() == nil {
			a.deps.Logger.Warn("reaper will try again", "error", err)
		}
	}
}

func (a *Authority) reap(ctx context.Context) error {
	e := a.engine.Load()
	skew := a.cfg.Skew
	if a.cfg.Embedded { // one clock, and predecessors are buried by the file lock (R29)
		skew = 0
	} else if e.lease.Load().MayBury(a.instant()) { // R30
		n, err := a.deps.Store.MarkDead(ctx, e.id, skew)
		if err != nil {
			return err
		}
		if n > 0 {
			a.deps.Logger.Warn("incarnations marked dead", "count", n)
			a.mourn()
		}
	}
	lanes, err := a.deps.Store.Closable(ctx, skew, reapLanes)
	if err != nil {
		return err
	}
	// Each node begins with another lane, and goes on behind one that others are closing: else all
	// of them lose against one another.
	first, contended := int(uint64(e.guest.journal.Lane())%uint64(max(len(lanes), 1))), error(nil)
	for i := range lanes {
		err := a.closeLane(ctx, lanes[(first+i)%len(lanes)])
		if errors.Is(err, quota.ReasonContention) {
			contended = err
		} else if err != nil {
			return err
		}
	}
	if _, err = a.deps.Store.ExpireGrants(ctx, a.now(), reapGrants); err != nil {
		return err
	}
	return contended
}

// closeLane fences a lane, then returns its allotments' residues batch by batch.
func (a *Authority) closeLane(ctx context.Context, l quota.LaneID) error {
	if err := a.deps.Store.Fence(ctx, l); err != nil {
		return err
	}
	for {
		done, err := a.deps.Store.CloseLane(ctx, l, a.now(), reapAllotments)
		if err != nil || done {
			return err
		}
	}
}

// Drain ends this node's part in an orderly way (R49): no new reservations, settlements go on
// until live holds have ended or DrainFor or ctx is over, then free amounts go home and the
// incarnation is DRAINED, to be closed without waiting for its lease. Run must still be
// running; end it afterwards.
func (a *Authority) Drain(ctx context.Context) error {
	a.drainUntil.Store(a.instant().Mono + int64(a.cfg.DrainFor))
	a.draining.Store(true)
	_ = a.holds() // passes through every shard's lock: no reserve is half way any more
	a.awaitHolds(ctx)
	e := a.engine.Load()
	e.updateLease(func(l *escrow.Lease) { l.End() })
	if err := a.Quiesce(ctx); err != nil {
		return err
	}
	a.giveAllBack(ctx, e)
	promise := a.lastPromise(e)
	err := a.untilKnown(ctx, func(ctx context.Context) error { return a.deps.Store.Drain(ctx, e.id, promise) })
	if errors.Is(err, quota.ReasonFenced) {
		return nil // found dead before it could say so: its lanes are closed all the same
	}
	return err
}

// Draining reports whether this node goes away, and for how long from now it waits for live
// reservations to be settled here.
func (a *Authority) Draining() (settleFor time.Duration, draining bool) {
	if !a.draining.Load() {
		return 0, false
	}
	return time.Duration(max(a.drainUntil.Load()-a.instant().Mono, 0)), true
}

// giveAllBack gives allotments back one by one, for at most half of the time that is left: the
// other half is to say that the lanes may be closed, which brings back the rest.
func (a *Authority) giveAllBack(ctx context.Context, e *engine) {
	if end, bounded := ctx.Deadline(); bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, end.Sub(a.deps.Clock.Now())/2)
		defer cancel()
	}
	for a.giveBack(ctx, e, true) > 0 {
	}
}

// awaitHolds waits for live reservations to be settled, within DrainFor.
func (a *Authority) awaitHolds(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DrainFor)
	defer cancel()
	for a.holds() > 0 && sleep(ctx, 5*time.Millisecond) {
	}
}

func (a *Authority) holds() int {
	n := 0
	for _, e := range a.engines() {
		for _, sh := range e.shards {
			sh.mu.Lock()
			n += sh.core.Holds()
			sh.mu.Unlock()
		}
	}
	return n
}

// lastPromise is until when tokens of an engine may be committed for sure.
func (a *Authority) lastPromise(e *engine) int64 {
	last := int64(0)
	for _, sh := range e.shards {
		sh.mu.Lock()
		last = max(last, sh.core.LastExpiry())
		sh.mu.Unlock()
	}
	if last == 0 {
		return e.lease.Load().Now(a.instant())
	}
	return last + int64(a.cfg.Grace)
}
