// Package authority is the shell around the protocol core, and the use cases on top of it:
// reserve, commit, release, check, balance. It drives quota/escrow with goroutines, time and
// storage; it decides nothing about amounts itself.
package authority

import (
	"context"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/token"
)

// Authority decides and settles reservations on one node. Create it with New, Start it, and
// Run it until it ends.
type Authority struct {
	cfg     Config
	deps    Deps
	metrics Metrics
	watcher Watcher
	base    time.Time // origin of the monotonic readings
	seed    maphash.Seed

	catalogue  atomic.Pointer[quota.Catalogue]
	codec      atomic.Pointer[token.Codec]
	accounts   *accounts
	keys       *keys
	liveMu     sync.RWMutex
	live       map[string]*atomic.Int64 // reservations by principal (R53)
	room       *escrow.Room             // of every engine's shards
	draining   atomic.Bool
	drainUntil atomic.Int64 // mono; set before draining
	macReload  atomic.Int64 // mono; when an unknown token key was last looked up
	mourning   atomic.Int64 // until then, dead incarnations may have something out
	returns    comings
	trouble    atomic.Pointer[quota.Error] // why the last flush failed; nil = it did not

	engine  atomic.Pointer[engine]    // the one that issues
	former  atomic.Pointer[[]*engine] // those before it that still settle (R30)
	mu      sync.Mutex                // changes of engine and former, and orphans
	orphans []*escrow.Pending         // commits without a guest lane to go to

	group     *errgroup.Group // of Run
	groupCtx  context.Context
	draws     []chan *draw  // by lane of an engine
	replace   chan struct{} // the engine was lost
	pollNow   chan struct{}
	returnNow chan struct{}
	projectMu sync.Mutex
	backlog   backlog
	polls     pollState
	preload   preload
}

// New checks the configuration and builds an authority. It starts nothing and talks to nobody.
func New(c Config, d Deps) (*Authority, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Authority{live: make(map[string]*atomic.Int64), room: escrow.NewRoom(c.MaxReservations), cfg: c, deps: d, metrics: d.Metrics, base: d.Clock.Now(), seed: maphash.MakeSeed(),
		draws: make([]chan *draw, c.Lanes), replace: make(chan struct{}, 1),
		pollNow: make(chan struct{}, 1), returnNow: make(chan struct{}, 1), preload: newPreload()}
	for i := range a.draws {
		a.draws[i] = make(chan *draw, drawQueue)
	}
	if a.metrics == nil {
		a.metrics = noMetrics{}
	}
	if a.watcher = d.Watcher; a.watcher == nil {
		a.watcher = noWatcher{}
	}
	a.accounts = newAccounts(d.Store, d.Clock, c.MaxAccounts)
	a.accounts.learnPlan = a.learnPlan
	a.keys = newKeys(d.Store, d.Clock, c.MaxKeys)
	a.former.Store(&[]*engine{})
	a.backlog.start(a.now())
	return a, nil
}

// Start takes over from predecessors, announces this incarnation and loads policy. When it
// returns nil the authority may issue as soon as Run runs.
func (a *Authority) Start(ctx context.Context) error {
	e, err := a.newEngine()
	if err != nil {
		return err
	}
	if err := a.register(ctx, e); err != nil {
		return err
	}
	if a.cfg.Embedded {
		if err := a.deps.Store.BuryPredecessors(ctx, e.id, a.cfg.MaxHold+a.cfg.Grace); err != nil {
			return fmt.Errorf("bury predecessors: %w", err)
		}
	}
	a.engine.Store(e)
	a.mourn()
	if err := a.Refresh(ctx); err != nil { // the first reads everything, by the database's time
		return fmt.Errorf("read policy and token keys: %w", err)
	}
	return nil
}

// mourn notes that dead incarnations may have something out for as long as that can last.
func (a *Authority) mourn() {
	a.mourning.Store(a.now() + int64(a.cfg.MaxHold+a.cfg.Grace+2*a.cfg.Skew))
}

// Run does the background work until ctx ends, and returns when all of it has ended.
func (a *Authority) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	a.mu.Lock()
	a.group, a.groupCtx = group, ctx
	a.launch(a.engine.Load())
	a.mu.Unlock()
	for _, queue := range a.draws {
		group.Go(func() error { return a.drawLoop(ctx, queue) })
	}
	group.Go(func() error { return a.leaseLoop(ctx) })
	group.Go(func() error { return a.pollLoop(ctx) })
	group.Go(func() error { return a.preloadLoop(ctx) })
	group.Go(func() error { return a.tickLoop(ctx) })
	group.Go(func() error { return a.returnLoop(ctx) })
	group.Go(func() error { return a.projectLoop(ctx) })
	group.Go(func() error { return a.reapLoop(ctx) })
	err := group.Wait()
	a.failDraws()
	return err
}

// launch starts an engine's flushers. Call it with mu held.
func (a *Authority) launch(e *engine) {
	ctx, cancel := context.WithCancel(a.groupCtx)
	e.stop = cancel
	for _, l := range e.allLanes() {
		a.group.Go(func() error {
			a.flushLoop(ctx, l)
			return nil
		})
		if l.guest {
			continue
		}
		a.group.Go(func() error {
			a.interimLoop(ctx, l)
			return nil
		})
	}
}

// failDraws wakes who waits for draws that nobody will make any more.
func (a *Authority) failDraws() {
	for _, queue := range a.draws {
		for len(queue) > 0 {
			w := <-queue // nobody else takes from it now
			w.shard.mu.Lock()
			a.endDraw(w, nil, &quota.Error{Reason: quota.ReasonShuttingDown, NotApplied: true, Message: "this node has stopped; use another"})
			w.shard.mu.Unlock()
		}
	}
}

// instant reads the clocks.
func (a *Authority) instant() escrow.Instant {
	t := a.deps.Clock.Now()
	return escrow.Instant{Wall: t.UnixNano(), Mono: int64(t.Sub(a.base))}
}

// now estimates the database's time (R44).
func (a *Authority) now() int64 {
	t := a.instant()
	if e := a.engine.Load(); e != nil {
		return e.lease.Load().Now(t)
	}
	return t.Wall
}

// engines lists the current engine and those before it that still settle.
func (a *Authority) engines() []*engine {
	former := *a.former.Load()
	return append([]*engine{a.engine.Load()}, former...)
}

// Catalogue is the snapshot of features, plans and prices in force here.
func (a *Authority) Catalogue() *quota.Catalogue { return a.catalogue.Load() }

func (a *Authority) loadCatalogue(ctx context.Context) error {
	c, err := a.deps.Store.Catalogue(ctx)
	if err != nil {
		return err
	}
	a.catalogue.Store(c)
	return nil
}

// catalogueWhere is a snapshot that fits, loaded if the one in force does not: one load for all who
// wait, and never one that overtakes the poll's. It may not fit even then.
func (a *Authority) catalogueWhere(ctx context.Context, fits func(*quota.Catalogue) bool) (*quota.Catalogue, error) {
	if c := a.catalogue.Load(); fits(c) {
		return c, nil
	}
	a.polls.mu.Lock()
	defer a.polls.mu.Unlock()
	if c := a.catalogue.Load(); fits(c) {
		return c, nil
	}
	if err := a.loadCatalogue(ctx); err != nil {
		return nil, err
	}
	return a.catalogue.Load(), nil
}

// catalogueWith is a snapshot that knows a price version (R37).
func (a *Authority) catalogueWith(ctx context.Context, version int64) (*quota.Catalogue, error) {
	known := func(c *quota.Catalogue) bool { return version == 0 || c.HasPriceVersion(version) }
	c, err := a.catalogueWhere(ctx, known)
	if err != nil {
		return nil, err
	}
	if !known(c) {
		return nil, &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true,
			Message: "the prices this reservation was made at are not known on this node yet; send the same again"}
	}
	return c, nil
}

// learnPlan has an account's plan known here: who was just put on a new one is not told that it
// has no right to what is in it.
func (a *Authority) learnPlan(ctx context.Context, acc *account) error {
	_, err := a.catalogueWhere(ctx, func(c *quota.Catalogue) bool {
		_, known := c.Plan(acc.plan)
		return known || !acc.planned
	})
	return err
}

// loadMACKeys replaces the codec by one with the store's keys; the newest that may sign does.
func (a *Authority) loadMACKeys(ctx context.Context) error {
	var fresh [32]byte
	if _, err := io.ReadFull(a.deps.Random, fresh[:]); err != nil {
		return fmt.Errorf("draw token key: %w", err)
	}
	now := a.now()
	stored, err := a.deps.Store.MACKeys(ctx, fresh, now)
	if err != nil {
		return err
	}
	ks := make([]token.Key, len(stored))
	var signing uint32
	for i, k := range stored {
		ks[i] = token.Key{ID: k.ID, Secret: k.Secret}
		if k.SignFrom <= now && k.ID > signing {
			signing = k.ID
		}
	}
	codec, err := token.NewCodec(ks, signing)
	if err != nil {
		return err
	}
	a.codec.Store(codec)
	return nil
}

// KeyLookup finds API keys from memory first; revocations reach it by the poll.
func (a *Authority) KeyLookup() authz.KeyStore { return a.keys }

// Ready says why this node takes no new reservations: SHUTTING_DOWN while it drains,
// STORE_UNAVAILABLE while it may not issue; nil if it does. It takes no lock.
func (a *Authority) Ready() error {
	_, _, err := a.issuing()
	return err
}
