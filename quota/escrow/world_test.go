package escrow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/projection"
	"github.com/purser-io/purser/quota/quotatest"
)

// Times of the model: small, so that a case of some minutes sees leases and promises end.
const (
	second   = int64(time.Second)
	leaseLen = 6 * second
	maxHold  = 8 * second
	grace    = second
	skew     = 200 * int64(time.Millisecond)
	windowNs = 20 * second
	epoch    = int64(1_800_000_000) * second
)

// mutant is a driver or database with one rule left out.
type mutant struct {
	database         quotatest.Break
	freeEarly        bool // Settled is called before the record is durable (R1)
	unknownIsFailure bool // an unknown append is answered "not committed" and dropped (R5)
	drawGivenUp      bool // a draw of unknown outcome is ended, not sent again (R11)
	deaf             bool // changes are acknowledged and not taken in (R32)
	replyDeadline    bool // the lease counts from the answer, not from the sending (R6)
	denialTakes      bool // a denied request counts against its rates (R55)
	permitsTwice     bool // permits return when a settlement is queued, and others' with them
	permitsKept      bool // permits do not return when another node settled
	wholeAgain       bool // an extension counts against rates as if nothing had been taken
	unusedFirst      bool // what was not used is taken out of the bucket as if nothing had leaked
	ownPromise       bool // a drained node promises nothing to its live tokens (R49)
	increments       bool // an extension's totals are taken for increments (R35)
	newestFirst      bool // usage is charged to the newest window of a limit first (R34)
	lapsed           bool // extensions are granted without a lease (R6)
	interimDeltas    bool // interim usage is added up (R23)
}

// world is some processes over one database, driven in one goroutine.
type world struct {
	db     *quotatest.DB
	pick   func(n int, label string) int // a choice in [0, n): from rapid or from a seed
	mutant mutant
	procs  []*proc
	faults int  // percent of operations that meet one
	deaths int  // of 6 occasions to die
	pauses int  // of 4 occasions to be paused
	lapses bool // renewals come too late
	quiet  bool
	serial int
	grants int
	waits  []suspension
	credit map[string][]sample // wallet credit over time, by payer (I9)
	plan   int                 // version in force: its limits
	limits limitOracle
}

// suspension is a Suspend(sync) that has not returned yet.
type suspension struct {
	account  string
	revision int64
}

type sample struct{ at, pots, free int64 }

// proc is a process: its current engine, and former ones that only settle.
type proc struct {
	w        *world
	alive    bool
	engines  []*engine // the last is the current one
	profiles map[string]*quota.Profile
	revision int64
	forget   []quota.Note
	orphans  []*Pending
	wall     int64 // its wall clock's offset
	slept    int64 // what its monotonic clock missed
	paused   int64 // until
	polledAt int64
	needsNew bool
}

// engine is one incarnation of a process.
type engine struct {
	p           *proc
	id          string
	lane, stray quota.LaneID
	lease       *Lease
	shards      []*Shard
	own, guest  *Journal
	interims    *Interims
	draws       []*flight
	returning   []quota.Shrink
	renewal     *quota.Renewal // of unknown outcome
	renewedAt   int64
	returnedAt  int64
	lost        bool
}

// flight is a draw under way.
type flight struct {
	shard   *Shard
	draw    *Draw
	unknown bool // an earlier sending may have landed
	failed  bool // it drew nothing, because of the store
}

func newWorld(pick func(int, string) int, m mutant) *world {
	w := &world{db: quotatest.New(epoch), pick: pick, mutant: m, credit: make(map[string][]sample), limits: newLimitOracle()}
	w.db.Break = m.database
	w.db.Oracle.MaxHold, w.db.Oracle.Grace, w.db.Oracle.Skew = maxHold, grace, skew
	w.faults = []int{0, 10, 30}[pick(3, "faults")]
	w.deaths, w.pauses = pick(4, "deaths"), pick(4, "pauses")
	w.lapses = pick(3, "lapses") == 0
	w.plan = pick(3, "plan")
	w.db.Inject = w.inject
	w.db.CreateAccount("org", "")
	w.db.CreateAccount("team", "org")
	w.db.CreateAccount("solo", "")
	w.db.PutBudget(quota.Budget{Account: "org", ID: "cap", Unit: quota.UnitCredits, Cap: 500})
	w.db.PutBudget(quota.Budget{Account: "team", ID: "tokens", Unit: "tokens", Cap: 150})
	w.db.PutBudget(quota.Budget{Account: "team", ID: "plan", Unit: "requests", Cap: 30})
	w.newGrant("org", 400, quota.Never)
	w.newGrant("solo", 100, quota.Never)
	for range 1 + pick(2, "processes") {
		w.start()
	}
	return w
}

func (w *world) inject(quotatest.Op) (quotatest.Fault, int) {
	if w.quiet || w.faults == 0 || w.pick(100, "fault") >= w.faults {
		return quotatest.None, 0
	}
	f := quotatest.Fault(1 + w.pick(4, "kind of fault"))
	if f != quotatest.Zombie {
		return f, 0
	}
	return f, 1 + w.pick(40, "steps a zombie is late")
}

func (w *world) newGrant(payer string, amount, end int64) {
	w.grants++
	w.db.CreateGrant(quota.Pot{Payer: payer, ID: quota.GrantPotID(fmt.Sprint("g", w.grants)), Granted: amount,
		Start: epoch, End: end, Priority: w.pick(3, "priority"), GrantKind: quota.GrantPurchased})
}

// start begins a process.
func (w *world) start() *proc {
	p := &proc{w: w, alive: true, profiles: make(map[string]*quota.Profile)}
	p.wall = int64(w.pick(3, "skew")-1) * skew / 2
	w.procs = append(w.procs, p)
	p.reincarnate()
	return p
}

func (p *proc) instant() Instant {
	return Instant{Wall: p.w.db.Now + p.wall, Mono: p.w.db.Now - epoch - p.slept}
}

func (p *proc) current() *engine { return p.engines[len(p.engines)-1] }

func (p *proc) awake() bool { return p.alive && p.paused <= p.w.db.Now }

func (e *engine) now() int64 { return e.lease.Now(e.p.instant()) }

func (e *engine) current() bool { return e.p.current() == e }

// reincarnate registers a new engine (R8, R30).
func (p *proc) reincarnate() {
	w := p.w
	w.serial++
	e := &engine{p: p, id: fmt.Sprintf("%032x", w.serial), lane: quota.LaneID(2 * w.serial), stray: quota.LaneID(2*w.serial + 1),
		lease: NewLease(time.Duration(leaseLen), time.Duration(skew))}
	e.own, e.guest, e.interims = NewJournal(e.lane, 100, 3), NewJournal(e.stray, 100, 3), NewInterims(100, 3)
	sent := p.instant()
	g, err := w.db.Register(context.Background(), quota.Registration{Incarnation: e.id, Lanes: []quota.LaneID{e.lane}, Guest: e.stray,
		Lease: time.Duration(leaseLen), Hold: time.Duration(maxHold + grace)})
	for err != nil { // sent again until it is known
		sent = p.instant()
		g, err = w.db.Register(context.Background(), quota.Registration{Incarnation: e.id, Lanes: []quota.LaneID{e.lane}, Guest: e.stray,
			Lease: time.Duration(leaseLen), Hold: time.Duration(maxHold + grace)})
	}
	e.lease.Granted(g, sent, p.instant())
	for i := range 1 + w.serial%2 {
		cfg := Config{Grace: grace, MaxTTL: maxHold, DryFor: second / 4, Poll: second / 2, IdleReturn: 3 * second, Room: NewRoom(100), MaxLimiters: 7}
		e.shards = append(e.shards, NewShard(cfg, e.lane, i, [32]byte{byte(w.serial), byte(i)}, e.now()))
	}
	if len(p.engines) == 0 {
		e.lease.Polled(sent) // nothing is cached yet
	}
	e.renewedAt = w.db.Now
	p.engines = append(p.engines, e)
	p.needsNew = false
	for _, x := range p.orphans {
		e.guest.Push(x)
	}
	p.orphans = nil
}

// lose ends an engine's issuing for good.
func (e *engine) lose() {
	e.lease.End()
	e.lost = true
	e.p.needsNew = e.p.needsNew || e.current()
}

func unknown(err error) bool { return errors.Is(err, quota.ReasonOutcomeUnknown) }

func fencedOff(err error) bool { return errors.Is(err, quota.ReasonFenced) }

// renew sends a renewal that takes some time each way.
func (e *engine) renew() {
	w := e.p.w
	if e.lost {
		return
	}
	r := e.renewal
	if r == nil {
		w.serial++
		r = &quota.Renewal{Incarnation: e.id, Sequence: e.lease.Sequence(), Nonce: int64(w.serial),
			Lease: time.Duration(leaseLen), Hold: time.Duration(maxHold + grace)}
	}
	sent := e.p.instant()
	trip := []int64{0, second / 100, 3 * second, leaseLen}[[]int{0, 0, 0, 1, 1, 1, 1, 2, 2, 3}[w.pick(10, "round trip")]]
	if w.quiet {
		trip = 0
	}
	w.db.Now += trip / 2
	g, err := w.db.Renew(context.Background(), *r)
	w.db.Now += trip / 2
	switch {
	case err == nil:
		if w.mutant.replyDeadline {
			sent = e.p.instant()
		}
		e.lease.Granted(g, sent, e.p.instant())
		e.renewal, e.renewedAt = nil, w.db.Now
	case fencedOff(err):
		e.lose()
	case unknown(err):
		e.renewal = r
	}
}

// poll takes in changes and notes, and acknowledges (R32, R27).
func (p *proc) poll() {
	for range 2 {
		req := quota.PollRequest{Incarnation: p.current().id, Since: p.revision, Acked: p.revision, Forget: p.forget}
		for _, e := range p.engines {
			req.Lanes = append(req.Lanes, e.lane)
		}
		for _, s := range p.current().shards {
			req.Wishes = s.Wishes(p.current().now(), req.Wishes, quota.MaxWishes)
		}
		sent := p.instant()
		res, err := p.w.db.Poll(context.Background(), req)
		if err != nil {
			return
		}
		p.polledAt = p.w.db.Now
		if len(res.Changes) > 0 && !p.w.mutant.deaf {
			clear(p.profiles)
		}
		for _, e := range p.engines {
			for _, s := range e.shards {
				s.SetLiveNodes(res.LiveNodes)
				for _, pot := range res.Wishes {
					s.Wished(e.now(), pot)
				}
				if len(res.Changes) > 0 {
					s.Moisten("org")
					s.Moisten("solo")
				}
			}
		}
		p.takeNotes(res.Notes)
		p.forget = res.Notes
		p.current().lease.Polled(sent)
		if res.Revision == p.revision {
			return
		}
		p.revision = res.Revision
	}
}

func (p *proc) takeNotes(notes []quota.Note) {
	for i := range notes {
		for j := range notes[i].Entries {
			x := &notes[i].Entries[j]
			for _, e := range p.engines {
				if e.lane == x.Lane && !e.own.Closed() {
					p.w.settledElsewhere(e.shards[ShardOf(x.Sequence)], x)
					e.shards[ShardOf(x.Sequence)].Noted(x)
				}
			}
		}
	}
}

// tick puts expiries into the journal.
func (e *engine) tick() {
	if e.own.Closed() {
		return
	}
	for _, s := range e.shards {
		now := e.now()
		e.p.w.limits.told(s, now)
		if e.p.w.mutant.unusedFirst {
			for _, h := range s.holds {
				h.unusedFirst()
			}
		}
		for _, x := range s.Tick(now) {
			e.p.w.settledHere(s, now, x)
			e.own.Push(x)
		}
	}
}

// sendDraw sends a draw; it stays in flight while its outcome is unknown (R11).
func (e *engine) sendDraw(f *flight) (again bool) {
	results, err := e.p.w.db.Draw(context.Background(), []quota.Draw{f.draw.Draw})
	if err == nil {
		err = results[0].Err
	}
	switch {
	case err == nil:
		f.shard.EndDraw(e.now(), f.draw, results[0].Drawn)
	case unknown(err) && !e.p.w.mutant.drawGivenUp:
		f.unknown = true
		return true
	case errors.Is(err, quota.ReasonStoreUnavailable) && f.unknown:
		return true // this sending did nothing; an earlier one may have
	case fencedOff(err):
		f.shard.FailDraw(f.draw)
		e.lose()
	default:
		f.failed = errors.Is(err, quota.ReasonStoreUnavailable)
		f.shard.FailDraw(f.draw)
		clear(e.p.profiles)
	}
	return false
}

// sendDraws sends all draws in flight.
func (e *engine) sendDraws() {
	all := e.draws
	e.draws = nil
	for _, f := range all {
		if e.sendDraw(f) {
			e.draws = append(e.draws, f)
		}
	}
}

// giveBack collects and sends one return batch, or the one in flight again (R19).
func (e *engine) giveBack(all bool) {
	if e.own.Closed() {
		return
	}
	if len(e.returning) == 0 {
		for _, s := range e.shards {
			e.returning = append(e.returning, s.BeginReturn(e.now(), all, 20)...)
		}
		e.returnedAt = e.p.w.db.Now
	}
	if len(e.returning) == 0 {
		return
	}
	err := e.p.w.db.Return(context.Background(), e.lane, e.returning)
	switch {
	case err == nil:
		for _, s := range e.shards {
			s.EndReturn(e.returning)
		}
		e.returning = nil
	case fencedOff(err):
		e.returning = nil // what was going home does so with the lane
	}
}

// project brings all lanes the process may project some batches further.
func (p *proc) project() {
	db, ctx := p.w.db, context.Background()
	cursors, _ := db.Projectable(ctx, p.current().id)
	for _, c := range cursors {
		batches, _ := db.Batches(ctx, c, 4)
		if len(batches) == 0 {
			if c.Closed {
				_ = db.Finished(ctx, c)
			}
			continue
		}
		pots, _ := db.PotsOf(ctx, projection.Refs(batches))
		_, _ = db.Project(ctx, projection.Build(c, p.current().now(), batches, pots)) // unknown: the cursor tells
	}
}

// reap buries the dead and closes their lanes.
func (p *proc) reap() {
	db, ctx, e := p.w.db, context.Background(), p.current()
	if e.lease.MayBury(p.instant()) {
		_, _ = db.MarkDead(ctx, e.id, time.Duration(skew))
	}
	lanes, _ := db.Closable(ctx, time.Duration(skew), 10)
	for _, l := range lanes {
		if db.Fence(ctx, l) != nil || db.LaneOpen(l) {
			return
		}
		for range 10 {
			if done, err := db.CloseLane(ctx, l, e.now(), 2); done || err != nil {
				break
			}
		}
	}
	_, _ = db.ExpireGrants(ctx, e.now(), 10)
}

// background does what a process does by itself when its time has come; lazy leaves some out.
func (p *proc) background(lazy bool) {
	do := func() bool { return !lazy || p.w.pick(4, "busy") > 0 }
	if p.needsNew && do() {
		p.reincarnate()
	}
	every := leaseLen / 6
	if p.w.lapses && lazy {
		every = leaseLen * 3 / 2
	}
	for _, e := range slices.Clone(p.engines) {
		if e.current() && p.w.db.Now-e.renewedAt >= every && do() {
			e.renew()
		}
		if do() {
			e.tick()
		}
		if do() {
			e.sendDraws()
		}
		for range 3 {
			if do() {
				e.flush()
				e.flushGuest()
				e.flushInterims()
			}
		}
		if p.w.db.Now-e.returnedAt >= second/2 && do() {
			e.giveBack(e.lost)
		}
	}
	if p.w.db.Now-p.polledAt >= second/2 && do() {
		p.poll()
	}
	if do() {
		p.project()
		p.reap()
	}
}
