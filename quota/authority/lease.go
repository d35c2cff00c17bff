package authority

import (
	"context"
	"errors"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// leaseLoop renews the lease, and begins a new incarnation when it is lost for good.
func (a *Authority) leaseLoop(ctx context.Context) error {
	every := a.cfg.Lease / 6
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.replace:
			a.reincarnate(ctx)
		case <-t.C:
			a.renew(ctx, every)
		}
		a.prune()
	}
}

// renew extends the lease of the current engine. A renewal whose outcome is unknown is sent
// again with the same nonce (R8).
func (a *Authority) renew(ctx context.Context, every time.Duration) {
	e := a.engine.Load()
	if a.draining.Load() || !a.renewalNonce(e) {
		return
	}
	r := quota.Renewal{Incarnation: e.id, Sequence: e.lease.Load().Sequence(), Nonce: e.nonce,
		Lease: a.cfg.Lease, Hold: a.cfg.MaxHold + a.cfg.Grace}
	for range 3 {
		attempt, cancel := context.WithTimeout(ctx, max(every/2, 50*time.Millisecond))
		sent := a.instant()
		g, err := a.deps.Store.Renew(attempt, r)
		received := a.instant()
		cancel()
		a.metrics.Renewed(err != nil)
		switch {
		case err == nil:
			e.nonce = 0
			e.updateLease(func(l *escrow.Lease) { l.Granted(g, sent, received) })
			return
		case errors.Is(err, quota.ReasonFenced):
			a.deps.Logger.Warn("lease lost: beginning a new incarnation", "incarnation", e.id)
			a.lost(e)
			return
		}
		a.deps.Logger.Warn("lease not renewed", "error", err)
		if !sleep(ctx, min(every/4, 200*time.Millisecond)) {
			return
		}
	}
}

// renewalNonce makes the nonce of the next renewal, or keeps that of one whose outcome is not
// known: it may have landed, and must be recognised as ours.
func (a *Authority) renewalNonce(e *engine) bool {
	if e.nonce == 0 {
		nonce, err := a.randomInt()
		if err != nil {
			a.deps.Logger.Error("lease not renewed", "error", err)
			return false
		}
		e.nonce = nonce
	}
	return true
}

// lost ends an engine's issuing for good and asks for its successor. DEAD is final (R30).
func (a *Authority) lost(e *engine) {
	e.updateLease(func(l *escrow.Lease) { l.End() })
	if !e.gone.Swap(true) && !a.draining.Load() {
		a.metrics.Lost()
	}
	if a.engine.Load() == e && !a.draining.Load() {
		nudge(a.replace)
	}
}

// reincarnate puts a new engine in the place of the lost one, which goes on settling.
func (a *Authority) reincarnate(ctx context.Context) {
	old := a.engine.Load()
	if old.lease.Load().MayIssue(a.instant()) || a.draining.Load() {
		return // somebody asked twice
	}
	e, err := a.newEngine()
	if err == nil {
		attempt, cancel := context.WithTimeout(ctx, storeTimeout)
		err = a.register(attempt, e)
		cancel()
	}
	if err != nil {
		a.deps.Logger.Warn("no new incarnation yet", "error", err)
		if sleep(ctx, a.cfg.Poll) {
			a.lost(old)
		}
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	old.lostAt = a.instant().Mono
	former := append([]*engine{old}, *a.former.Load()...)
	a.former.Store(&former)
	a.engine.Store(e)
	a.launch(e)
	for _, p := range a.orphans {
		e.guest.push(p)
	}
	a.orphans = nil
	a.hurry() // it issues once it has polled
	a.deps.Logger.Info("new incarnation", "incarnation", e.id)
}

// prune forgets former engines that have nothing left to settle.
func (a *Authority) prune() {
	if len(*a.former.Load()) == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var kept []*engine
	now, patience := a.instant().Mono, int64(2*a.cfg.Lease+a.cfg.MaxHold+a.cfg.Grace+4*a.cfg.Skew)
	for _, e := range *a.former.Load() {
		if e.buried(now, patience) {
			e.stop()
			e.abandon()
		} else {
			kept = append(kept, e)
		}
	}
	a.former.Store(&kept)
}

// tickLoop does what time asks for in every shard: expiries into the journal, rates, keys.
func (a *Authority) tickLoop(ctx context.Context) error {
	t := time.NewTicker(a.cfg.Poll / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		for _, e := range a.engines() {
			now := e.lease.Load().Now(a.instant())
			for _, sh := range e.shards {
				if sh.lane.closed() {
					continue
				}
				sh.mu.Lock()
				for _, p := range sh.core.Tick(now) {
					sh.lane.push(p)
				}
				sh.mu.Unlock()
			}
		}
	}
}

// returnLoop gives back surplus, ended and used-up allotments, and what others wish for.
func (a *Authority) returnLoop(ctx context.Context) error {
	t := time.NewTicker(a.cfg.Poll)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-a.returnNow:
		}
		current := a.engine.Load()
		for _, e := range a.engines() {
			a.giveBack(ctx, e, e != current) // R30: a former engine gives everything back
		}
	}
}
