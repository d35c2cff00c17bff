package authority

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/maphash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// engine is one incarnation: its lease, lanes and shards. When its lease is lost for good the
// authority begins another, and this one goes on settling until its lanes are closed (R30).
type engine struct {
	id     string
	lease  atomic.Pointer[escrow.Lease] // replaced whole; read on every reserve
	lanes  []*lane
	guest  *lane
	shards []*shard
	byLane map[quota.LaneID]int
	stop   context.CancelFunc // of the flushers
	gone   atomic.Bool        // the lease was lost for good
	lostAt int64              // mono; when a successor took over
	nonce  int64              // of a renewal whose outcome is unknown; 0 = none (lease loop only)

	returning chan struct{} // has room for the one return batch there is at a time
}

// shard is a lock around an escrow shard.
type shard struct {
	mu    sync.Mutex
	core  *escrow.Shard
	lane  *lane
	draws map[string]*draw // under way, by payer
}

// lane is a lock around a journal and the interim usage beside it, with their flushers' bells.
type lane struct {
	index    int // among the engine's own lanes
	mu       sync.Mutex
	journal  *escrow.Journal
	interims *escrow.Interims
	guest    bool
	bell     chan struct{}
	reported chan struct{} // interim usage was
	engine   *engine
}

func newLane(e *engine, id quota.LaneID, guest bool, c Config) *lane {
	return &lane{journal: escrow.NewJournal(id, c.SettleQueue, c.BatchRows), interims: escrow.NewInterims(c.SettleQueue, c.BatchRows),
		guest: guest, bell: make(chan struct{}, 1), reported: make(chan struct{}, 1), engine: e}
}

// push queues a settlement and rings the flusher; false if the lane is fenced, and then the
// settlement is the caller's to place.
func (l *lane) push(p *escrow.Pending) bool {
	l.mu.Lock()
	open := !l.journal.Closed()
	if open {
		l.journal.Push(p)
	}
	l.mu.Unlock()
	if open {
		l.ring()
	}
	return open
}

// kind names the lane's part for people.
func (l *lane) kind() string {
	if l.guest {
		return "guest"
	}
	return "own"
}

func (l *lane) ring() {
	select {
	case l.bell <- struct{}{}:
	default:
	}
}

func (l *lane) full() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.Full()
}

// pending is how much is not durable yet.
func (l *lane) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.Len() + l.interims.Len()
}

// durable is the number of the last batch that is durable.
func (l *lane) durable() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.Durable()
}

func (l *lane) closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.journal.Closed()
}

// newEngine draws an incarnation's identity and makes its lanes. It talks to nobody.
func (a *Authority) newEngine() (*engine, error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(a.deps.Random, id); err != nil {
		return nil, fmt.Errorf("draw incarnation id: %w", err)
	}
	e := &engine{id: hex.EncodeToString(id), byLane: make(map[quota.LaneID]int), returning: make(chan struct{}, 1)}
	e.lease.Store(escrow.NewLease(a.cfg.Lease, a.cfg.Skew))
	for i := range a.cfg.Lanes + 1 {
		n, err := a.randomInt()
		if err != nil {
			return nil, err
		}
		l := newLane(e, quota.LaneID(n), i == a.cfg.Lanes, a.cfg)
		if l.guest {
			e.guest = l
			break
		}
		e.byLane[l.journal.Lane()], l.index = i, i
		e.lanes = append(e.lanes, l)
	}
	return e, nil
}

// addShards makes the engine's shards, which count time as the database does: this node's clock
// may be far ahead, and what is filed by it would fall due as much later.
func (a *Authority) addShards(e *engine) error {
	now := e.lease.Load().Now(a.instant())
	e.shards = make([]*shard, 0, a.cfg.Shards)
	for i := range a.cfg.Shards {
		var seed [32]byte
		if _, err := io.ReadFull(a.deps.Random, seed[:]); err != nil {
			return fmt.Errorf("draw nonce seed: %w", err)
		}
		l := e.lanes[i%len(e.lanes)]
		core := escrow.NewShard(a.escrowConfig(), l.journal.Lane(), i/len(e.lanes), seed, now)
		e.shards = append(e.shards, &shard{core: core, lane: l, draws: make(map[string]*draw)})
	}
	return nil
}

func (a *Authority) escrowConfig() escrow.Config {
	return escrow.Config{Grace: int64(a.cfg.Grace), MaxTTL: int64(a.cfg.MaxHold),
		DryFor: int64(a.cfg.Poll) / 2, Poll: int64(a.cfg.Poll), IdleReturn: int64(a.cfg.IdleReturn),
		Room: a.room, MaxLimiters: max(a.cfg.MaxLimiters/a.cfg.Shards, 16)}
}

// randomInt draws a positive int64: lane ids and nonces.
func (a *Authority) randomInt() (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(a.deps.Random, b[:]); err != nil {
		return 0, fmt.Errorf("draw random number: %w", err)
	}
	return int64(binary.LittleEndian.Uint64(b[:])>>1) | 1, nil
}

// register announces the incarnation and makes its shards. It may issue after the first poll that
// is sent from now on: what was cached before may be older than a whole lease (I13).
func (a *Authority) register(ctx context.Context, e *engine) error {
	r := quota.Registration{Incarnation: e.id, Node: a.cfg.Node, Address: a.cfg.Address,
		Guest: e.guest.journal.Lane(), Lease: a.cfg.Lease, Hold: a.cfg.MaxHold + a.cfg.Grace}
	for _, l := range e.lanes {
		r.Lanes = append(r.Lanes, l.journal.Lane())
	}
	sent := a.instant()
	g, err := a.deps.Store.Register(ctx, r)
	if err != nil {
		return fmt.Errorf("register incarnation: %w", err)
	}
	received := a.instant()
	e.updateLease(func(l *escrow.Lease) { l.Granted(g, sent, received) })
	return a.addShards(e)
}

// updateLease replaces the lease by a changed copy: readers never lock.
func (e *engine) updateLease(change func(*escrow.Lease)) {
	for {
		old := e.lease.Load()
		next := *old
		change(&next)
		if e.lease.CompareAndSwap(old, &next) {
			return
		}
	}
}

// shardOf is the shard of a payer: all pots that a reservation can touch live there (R36).
func (e *engine) shardOf(seed maphash.Seed, payer string) *shard {
	return e.shards[maphash.String(seed, payer)%uint64(len(e.shards))]
}

// owner finds the shard that issued a sequence of a lane; nil if the lane is not this
// engine's.
func (e *engine) owner(l quota.LaneID, sequence uint64) *shard {
	i, ok := e.byLane[l]
	if !ok {
		return nil
	}
	n := escrow.ShardOf(sequence)*len(e.lanes) + i
	if n >= len(e.shards) {
		return nil
	}
	return e.shards[n]
}

// laneIDs lists the engine's own lanes.
func (e *engine) laneIDs() []quota.LaneID {
	ids := make([]quota.LaneID, len(e.lanes))
	for i, l := range e.lanes {
		ids[i] = l.journal.Lane()
	}
	return ids
}

// allLanes are the own lanes and the guest lane.
func (e *engine) allLanes() []*lane { return append(append([]*lane(nil), e.lanes...), e.guest) }

// buried reports that nothing is left to settle here: every lane is fenced, or was long
// enough ago for any node to have fenced it, with nothing queued.
func (e *engine) buried(now, patience int64) bool {
	for _, l := range e.allLanes() {
		if !l.closed() && (now-e.lostAt < patience || l.pending() > 0) {
			return false
		}
	}
	return true
}

// abandon forgets the holds of an engine that is gone; its lanes' closing placed them.
func (e *engine) abandon() {
	for _, sh := range e.shards {
		sh.mu.Lock()
		sh.core.Abandon()
		sh.mu.Unlock()
	}
}
