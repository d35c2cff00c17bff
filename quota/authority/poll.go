package authority

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// pollState is what the poll has seen. Its lock also keeps polls from overtaking each other.
type pollState struct {
	mu       sync.Mutex
	revision int64
	forget   []quota.Note
	started  bool
	at       time.Time // of the last one
}

func (p *pollState) applied() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revision
}

func (p *pollState) last() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.at
}

// pollLoop takes in changes and notes (R32, R27).
func (a *Authority) pollLoop(ctx context.Context) error {
	t := time.NewTicker(a.cfg.Poll)
	defer t.Stop()
	for {
		if err := a.Refresh(ctx); err != nil && ctx.Err() == nil {
			a.deps.Logger.Warn("poll failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-a.pollNow:
			if !sleep(ctx, a.cfg.Poll/10-a.deps.Clock.Now().Sub(a.polls.last())) {
				return nil
			}
		}
	}
}

// hurry has the next poll made soon: something waits for it.
func (a *Authority) hurry() { nudge(a.pollNow) }

// nudge wakes who listens, if they are not woken already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Refresh takes in what changed now, and acknowledges it: the node that served an admin call
// obeys it at once. One or two round trips.
func (a *Authority) Refresh(ctx context.Context) error {
	a.polls.mu.Lock()
	defer a.polls.mu.Unlock()
	for {
		news, err := a.poll(ctx)
		if err != nil || !news {
			return err
		}
	}
}

// poll asks once and applies the answer; news says that there is something to acknowledge.
func (a *Authority) poll(ctx context.Context) (news bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	e := a.engine.Load()
	req := quota.PollRequest{Incarnation: e.id, Since: a.polls.revision, Acked: a.polls.revision, Forget: a.polls.forget}
	for _, x := range a.engines() {
		req.Lanes = append(req.Lanes, x.laneIDs()...)
	}
	req.Wishes = e.wishes(a.instant())
	a.polls.at = a.deps.Clock.Now()
	sent := a.instant()
	res, err := a.deps.Store.Poll(ctx, req)
	if err != nil {
		return false, err
	}
	if err := a.apply(ctx, &res); err != nil {
		return false, err
	}
	a.polls.forget = res.Notes
	news = res.Revision > a.polls.revision
	a.polls.revision, a.polls.started = res.Revision, true
	e.updateLease(func(l *escrow.Lease) { l.Polled(sent) })
	return news, nil
}

// apply takes a poll's answer in. When it returns, no decision under way stands on what it
// replaced: whoever holds a shard's lock has seen the stale marks (I13).
func (a *Authority) apply(ctx context.Context, res *quota.PollResult) error {
	first := !a.polls.started
	var catalogue, mac bool
	changedAccounts, changedKeys := make(map[string]bool), make(map[string]bool)
	for _, c := range res.Changes {
		switch c.Kind {
		case quota.ChangeCatalogue:
			catalogue = true
		case quota.ChangeAccount:
			changedAccounts[c.ID] = true
		case quota.ChangeKey:
			changedKeys[c.ID] = true
		case quota.ChangeMACKeys:
			mac = true
		}
	}
	all := res.Truncated || first
	if catalogue || all {
		if err := a.loadCatalogue(ctx); err != nil {
			return err
		}
	}
	if mac || all {
		if err := a.loadMACKeys(ctx); err != nil {
			return err
		}
	}
	payers, again := a.accounts.apply(res.Revision, changedAccounts, all)
	a.keys.apply(res.Revision, changedKeys, all)
	for _, e := range a.engines() {
		for _, sh := range e.shards {
			sh.mu.Lock()
			sh.core.SetLiveNodes(res.LiveNodes)
			for p := range payers {
				sh.core.Moisten(p)
			}
			sh.mu.Unlock()
		}
	}
	a.preload.add(again, all, a.cfg.MaxAccounts)
	a.takeNotes(res.Notes)
	a.hearWishes(res.Wishes)
	return nil
}

// wishes are the pots of which this node found too little left (protocol §3.2).
func (e *engine) wishes(t escrow.Instant) (wishes []quota.PotRef) {
	now := e.lease.Load().Now(t)
	for _, sh := range e.shards {
		sh.mu.Lock()
		wishes = sh.core.Wishes(now, wishes, quota.MaxWishes)
		sh.mu.Unlock()
	}
	return wishes
}

// hearWishes has what this node can spare of the pots given back at once.
func (a *Authority) hearWishes(wishes []quota.PotRef) {
	for _, e := range a.engines() {
		now := e.lease.Load().Now(a.instant())
		for _, pot := range wishes {
			sh := e.shardOf(a.seed, pot.Payer)
			sh.mu.Lock()
			free := sh.core.Wished(now, pot)
			sh.mu.Unlock()
			if free {
				nudge(a.returnNow)
			}
		}
	}
}

// takeNotes frees what other nodes settled of this node's reservations (R27).
func (a *Authority) takeNotes(notes []quota.Note) {
	for i := range notes {
		for j := range notes[i].Entries {
			e := &notes[i].Entries[j]
			if sh := a.ownerOf(e.Lane, e.Sequence); sh != nil {
				sh.mu.Lock()
				sh.core.Noted(e)
				sh.mu.Unlock()
			}
		}
	}
}

// AwaitRevision returns when every node that may issue has acknowledged a revision, or its
// lease has run out (R32): at most one lease.
func (a *Authority) AwaitRevision(ctx context.Context, revision int64) error {
	for {
		if err := a.Refresh(ctx); err != nil && !errors.Is(err, quota.ReasonStoreUnavailable) {
			return err
		}
		waiting, err := a.deps.Store.Unacked(ctx, revision)
		if err == nil && waiting == 0 {
			return nil
		}
		if !sleep(ctx, a.cfg.Poll/5) {
			return ctx.Err()
		}
	}
}
