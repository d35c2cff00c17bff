package escrow

import (
	"context"
	"fmt"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// The small model: two nodes and a few reservations of one micro, on this package and the database
// of quotatest, in which all that can happen is a choice of which move comes next. So every state
// it can get into can be visited (explore_test.go). Clocks are perfect and stand still between the
// moments below; nothing is random. What needs skewed clocks, many payers, plans or long histories
// is the business of the model test (model_test.go).

// The moments are whole seconds, 0 to lastMoment. The mortal node may issue in 0 and 1; a hold made
// in m is recorded as expired from m+1 on; in 2 the node is buried, and its lanes may be closed.
const (
	smallTTL    = 400 * int64(time.Millisecond)
	smallGrace  = 400 * int64(time.Millisecond)
	smallLease  = 1100 * int64(time.Millisecond)
	smallWindow = second
	lastMoment  = 2
)

// mortal is the node whose lease is not renewed and that may crash; the other one's does not end.
const mortal = 0

// scope bounds a small model.
type scope struct {
	name         string
	wallet       int64   // micros in the grant
	drawn        int64   // of these, in the mortal node's allotment from the start, unless both issue; also what each draw brings
	reservations int     // in all, of 1 micro each
	usages       []int64 // what a commit may report
	groups       bool    // guest lanes queue what is asked while a batch is under way
	releases     bool    // clients may release anywhere, not only where it was issued
	crashes      int     // of the mortal node
	late         int     // writes that are on their way when their sender gives up waiting, at most
	rows         int     // of a batch, at most
	twoIssue     bool    // both nodes issue
	draws        int     // of each node, beside the one at the start
	returns      bool    // nodes return what is free
	interims     []int64 // what clients may report in between (R23)
	extends      bool    // each reservation once, to 2 micros in all
	windows      bool    // there is a budget with windows of a second, of as many tokens as the wallet has micros
	projects     bool    // projections mix with everything else; otherwise they come last
	flaw         flaw
}

// small is one state.
type small struct {
	*scope
	db            *quotatest.DB
	nodes         [2]smallNode
	letters       []letter
	moment        int
	crashes, late int                     // left
	projected     map[quota.LaneID]uint64 // by the flaw bySequence
	out           Result                  // scratch
}

// smallNode is a process.
type smallNode struct {
	id          string
	lane, stray quota.LaneID
	alive       bool
	lease       Lease
	shard       *Shard
	own, guest  *Journal
	draw        *Draw // under way
	drawn       int
	returning   []quota.Shrink // under way
}

// letter is a write that is still on its way when its sender has given up waiting for it.
type letter struct {
	verb       verb
	lane       quota.LaneID
	no         int64
	records    []quota.Record
	draw       *quota.Draw
	shrinks    []quota.Shrink
	projection *quota.Projection
	decided    []quota.Settlement // by the flaw decidedFirst
}

// newSmall is the state in which everything begins.
func newSmall(sc *scope) *small {
	w := &small{scope: sc, db: quotatest.New(epoch), crashes: sc.crashes, late: sc.late, projected: make(map[quota.LaneID]uint64)}
	w.db.Break = sc.flaw.database
	w.db.Oracle.MaxHold, w.db.Oracle.Grace = smallTTL, smallGrace
	w.db.CreateAccount("org", "")
	if sc.windows {
		w.db.PutBudget(quota.Budget{Account: "org", ID: "tokens", Unit: "tokens", Cap: sc.wallet})
	}
	w.db.CreateGrant(quota.Pot{Payer: "org", ID: "g/1", Granted: sc.wallet, Start: epoch, End: quota.Never})
	for i := range w.nodes {
		w.start(i)
	}
	if !sc.twoIssue {
		n := &w.nodes[mortal]
		n.drawn = -1
		n.shard.Reserve(w.db.Now, w.request(n, 1), &w.out)
		w.beginDraw(n)
		w.sendDraw(n, false)
	}
	return w
}

// start registers a node.
func (w *small) start(i int) {
	n := &w.nodes[i]
	*n = smallNode{id: fmt.Sprintf("%032x", i+1), lane: quota.LaneID(2*i + 1), stray: quota.LaneID(2*i + 2), alive: true}
	length := time.Duration(smallLease)
	if i != mortal {
		length = time.Hour
	}
	n.lease = *NewLease(length, 0)
	g, err := w.db.Register(context.Background(), quota.Registration{Incarnation: n.id, Lanes: []quota.LaneID{n.lane}, Guest: n.stray,
		Lease: length, Hold: time.Duration(smallTTL + smallGrace)})
	if err != nil {
		panic(err)
	}
	n.lease.Granted(g, w.instant(), w.instant())
	n.lease.Polled(w.instant())
	n.own, n.guest = NewJournal(n.lane, 100, w.rows), NewJournal(n.stray, 100, w.rows)
	cfg := Config{Grace: smallGrace, MaxTTL: smallTTL, IdleReturn: quota.Never / 4, Room: NewRoom(100), MaxLimiters: 1}
	n.shard = NewShard(cfg, n.lane, 0, [32]byte{byte(i)}, epoch)
	// The same wheels with fewer slots: they are copied with every state.
	n.shard.expiry = wheel[numbers]{grain: second / 2, slots: make([]numbers, 6), next: epoch / (second / 2)}
	n.shard.answers.due = wheel[shelf]{grain: second, slots: make([]shelf, 1), next: epoch / second}
}

func (w *small) instant() Instant { return Instant{Wall: w.db.Now, Mono: w.db.Now - epoch} }

// request asks for tokens that cost a micro each.
func (w *small) request(n *smallNode, tokens int64) *Request {
	profile := w.db.Profile("org")
	var claims []Claim
	for i := range profile.Budgets[0] {
		c := claimOf(w.db.Now, &profile.Budgets[0][i])
		c.Window.Start = w.db.Now - w.db.Now%smallWindow
		c.Window.End = c.Window.Start + smallWindow
		claims = append(claims, c)
	}
	k := candidate("large", 1, tokens, tokens, append(claims, wallet())...)
	n.shard.SetLiveNodes(1)
	return &Request{Account: "org", Payer: "org", Principal: "p", Epochs: profile.Epochs(), TTL: smallTTL, Asked: 1, Candidates: []Candidate{k}}
}

// record is what a client reports with a token.
func (w *small) record(t *quotatest.Issued, kind quota.SettleKind, usage int64) quota.Record {
	rec := quota.Record{EntryKey: t.Key, Nonce: t.Nonce, Kind: kind, Account: t.Account, Payer: t.Payer, Principal: t.Principal,
		Feature: t.Feature, PriceVersion: t.PriceVersion, ReservedAt: t.IssuedAt, ExpiresAt: t.Expires, SettledAt: w.db.Now}
	if kind == quota.Committed {
		rec.Usage = []quota.Quantity{{Meter: "tokens", Quantity: usage}, {Meter: "requests", Quantity: 1}}
		rec.Lines = []int64{usage, 0}
		rec.Digest = uint64(usage) + 1
	}
	return rec
}

// check returns what is broken.
func (w *small) check() []string {
	for i := range w.nodes {
		n := &w.nodes[i]
		if !n.alive || !w.db.LaneOpen(n.lane) {
			continue
		}
		use := w.db.Oracle.Use(n.lane)
		for _, p := range n.shard.order {
			for _, a := range p.allotments {
				if bad := checkBooks(a, n.shard.heldOn(a), use[a.number]); bad != "" {
					w.db.Oracle.Violate("%s", bad)
				}
			}
		}
	}
	return w.db.Oracle.Check()
}

// checkRest returns what is broken of a state from which nothing leads on that has to happen: I15.
func (w *small) checkRest() []string {
	if w.moment < lastMoment {
		w.db.Oracle.Violate("I17: everything stands still")
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if !n.alive || !w.db.LaneOpen(n.lane) {
			continue
		}
		if n.own.Len() > 0 || n.guest.Len() > 0 || n.shard.Holds() > 0 || n.draw != nil || n.returning != nil {
			w.db.Oracle.Violate("I17: node %s waits for ever", names[i])
		}
	}
	for _, n := range w.nodes {
		for _, lane := range []quota.LaneID{n.lane, n.stray} {
			if batches, _ := w.db.Batches(context.Background(), w.db.Cursor(lane), 1); len(batches) > 0 {
				w.db.Oracle.Violate("I15: batch %d is never projected", batches[0].No)
			}
		}
	}
	return w.db.Oracle.CheckQuiet()
}

var names = [2]string{"A", "B"}
