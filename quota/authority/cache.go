package authority

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// account is a cached profile with what is derived of it once.
type account struct {
	*quota.Profile
	plan    authz.PlanRef
	planned bool
	owner   string // account whose subscription it is: quotas count there
	zones   []*time.Location
	epochs  []quota.AccountEpoch
	early   bool        // read before anybody asked: what it refuses is read again (R51)
	stale   atomic.Bool // something changed since; looked at under the shard lock (I13)
}

func newAccount(p *quota.Profile, z *zones) (*account, error) {
	a := &account{Profile: p, zones: make([]*time.Location, len(p.Chain)), epochs: p.Epochs()}
	a.plan, a.planned = p.Plan()
	for i := range p.Chain {
		if a.owner == "" && p.Chain[i].Plan.ID != "" {
			a.owner = p.Chain[i].ID
		}
		zone, err := z.load(p.Chain[i].TimeZone)
		if err != nil {
			return nil, quota.Wrap(quota.ReasonInternal, "the account's time zone is not known on this node", err)
		}
		// One string serves all that say the same: there are many accounts.
		a.zones[i], p.Chain[i].TimeZone, p.Chain[i].Payer = zone, zone.String(), p.Payer().ID
	}
	return a, nil
}

// zones keeps the time zones that accounts are in: there are some hundreds, and each takes
// kilobytes and a file to read.
type zones struct{ known sync.Map }

func (z *zones) load(name string) (*time.Location, error) {
	if zone, ok := z.known.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, err
	}
	kept, _ := z.known.LoadOrStore(zone.String(), zone)
	return kept.(*time.Location), nil
}

// zoneOf is the time zone of an account of the chain.
func (a *account) zoneOf(id string) *time.Location {
	for i := range a.Chain {
		if a.Chain[i].ID == id {
			return a.zones[i]
		}
	}
	return time.UTC
}

// unknownFor is how long an unknown id is remembered (R47).
const unknownFor = time.Second

// accounts is the bounded cache of profiles, filled ahead of need and on demand, and
// emptied by the poll (R47).
type accounts struct {
	store quota.AccountStore
	clock Clock
	bound int
	zones zones
	// learnPlan has an account's plan known: accounts are read when they are asked for, plans with
	// the poll.
	learnPlan func(context.Context, *account) error

	mu      sync.RWMutex
	known   map[string]*account
	below   map[string]map[*account]bool // known accounts by those above them: a change goes down the tree
	unknown map[string]time.Time
	applied int64 // revision whose changes were taken in

	lookups lookups
}

func newAccounts(s quota.AccountStore, c Clock, bound int) *accounts {
	return &accounts{store: s, clock: c, bound: bound, known: make(map[string]*account),
		below: make(map[string]map[*account]bool), unknown: make(map[string]time.Time),
		lookups: lookups{under: make(map[string]*lookup)}}
}

// peek answers from memory. An account known not to exist is nil.
func (c *accounts) peek(id string) (a *account, known bool) {
	c.mu.RLock()
	a, ok := c.known[id]
	var since time.Time
	if !ok && len(c.unknown) > 0 {
		since = c.unknown[id]
	}
	c.mu.RUnlock()
	return a, ok || !since.IsZero() && c.clock.Now().Sub(since) < unknownFor
}

func (c *accounts) keep(a *account) bool {
	id := a.Account().ID
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.Revision < c.applied {
		return false
	}
	if old := c.known[id]; old != nil {
		c.forget(old)
	}
	for len(c.known) >= c.bound {
		for _, old := range c.known { // any: an evicted profile costs one read
			c.forget(old)
			break
		}
	}
	c.known[id] = a
	for i := range a.Chain[1:] {
		above := a.Chain[1+i].ID
		if c.below[above] == nil {
			c.below[above] = make(map[*account]bool)
		}
		c.below[above][a] = true
	}
	delete(c.unknown, id)
	return true
}

// forget takes an account out of memory. Call it with mu held.
func (c *accounts) forget(a *account) {
	delete(c.known, a.Account().ID)
	for i := range a.Chain[1:] {
		above := a.Chain[1+i].ID
		if delete(c.below[above], a); len(c.below[above]) == 0 {
			delete(c.below, above)
		}
	}
}

func (c *accounts) miss(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unknown) >= c.bound {
		clear(c.unknown)
	}
	c.unknown[id] = c.clock.Now()
}

// apply drops the accounts that changed, and members of their trees: who is in use notices by
// the stale mark. It returns the payers whose pots may have changed, and the accounts to be read again.
func (c *accounts) apply(revision int64, changed map[string]bool, all bool) (payers map[string]bool, again []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = max(c.applied, revision)
	payers = make(map[string]bool)
	drop := func(a *account) {
		payers[a.Payer().ID] = true
		again = append(again, a.Account().ID)
		a.stale.Store(true)
		c.forget(a)
	}
	for id := range changed {
		payers[id] = true
		delete(c.unknown, id)
		if a := c.known[id]; a != nil {
			drop(a)
		} else {
			again = append(again, id)
		}
		for a := range c.below[id] {
			drop(a)
		}
	}
	if all {
		clear(c.unknown)
		for _, a := range c.known {
			drop(a)
		}
	}
	return payers, again
}

// drop forgets one account at once: a draw said that its epoch moved on.
func (c *accounts) drop(a *account) {
	a.stale.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[a.Account().ID] == a {
		c.forget(a)
	}
}

func (c *accounts) size() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.known)
}

// keys is the bounded cache of API keys in front of the store; the poll empties it (R47).
type keys struct {
	store authz.KeyStore
	clock Clock
	bound int

	mu      sync.RWMutex
	known   map[string]authz.Key
	unknown map[string]time.Time
	applied int64
}

func newKeys(s authz.KeyStore, c Clock, bound int) *keys {
	return &keys{store: s, clock: c, bound: bound, known: make(map[string]authz.Key), unknown: make(map[string]time.Time)}
}

// FindKey implements authz.KeyStore from memory, else with one read.
func (c *keys) FindKey(ctx context.Context, id string) (authz.Key, error) {
	c.mu.RLock()
	k, ok := c.known[id]
	since, missed := c.unknown[id]
	applied := c.applied
	c.mu.RUnlock()
	if ok {
		return k, nil
	}
	if missed && c.clock.Now().Sub(since) < unknownFor {
		return authz.Key{}, quota.Errorf(quota.ReasonKeyNotFound, "no such key")
	}
	k, err := c.store.FindKey(ctx, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, quota.ReasonKeyNotFound):
		if len(c.unknown) >= c.bound {
			clear(c.unknown)
		}
		c.unknown[id] = c.clock.Now()
	case err == nil && c.applied == applied: // no change came in while it was read
		if len(c.known) >= c.bound {
			clear(c.known)
		}
		c.known[id] = k
	}
	return k, err
}

func (c *keys) apply(revision int64, changed map[string]bool, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = max(c.applied, revision)
	if all {
		clear(c.known)
		clear(c.unknown)
		return
	}
	for id := range changed {
		delete(c.known, id)
		delete(c.unknown, id)
	}
}
