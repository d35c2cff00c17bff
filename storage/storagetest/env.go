package storagetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/projection"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/quota/window"
)

// Times the tests use where nothing is to run out.
const (
	lease = time.Hour
	hold  = 2 * time.Hour
)

// patience bounds how long a test waits for real time to pass.
const patience = 30 * time.Second

// Env is what a test has: the store, and short words for what everyone does with it. Its
// testing.TB fails the test.
type Env struct {
	testing.TB
	Opened
	ctx   context.Context
	nodes int64
}

func newEnv(t testing.TB, o Opened) *Env { return &Env{TB: t, Opened: o, ctx: t.Context()} }

// must fails the test at once if err is not nil.
func (e *Env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatalf("unexpected error: %v", err)
	}
}

// refused fails the test unless err has the reason.
func (e *Env) refused(err error, want quota.Reason) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("error %v, want %s", err, want)
	}
}

// same fails the test unless got is what is wanted.
func (e *Env) same(what string, got, want any) {
	e.Helper()
	if !reflect.DeepEqual(got, want) {
		e.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// check fails the test unless the condition holds.
func (e *Env) check(ok bool, format string, args ...any) {
	e.Helper()
	if !ok {
		e.Fatalf(format, args...)
	}
}

// eventually waits until done reports true: by moving the store's time in small steps, or by
// looking again as real time passes.
func (e *Env) eventually(what string, done func() bool) {
	e.Helper()
	const step = 10 * time.Millisecond
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	tick := time.NewTicker(step)
	defer tick.Stop()
	for moved := time.Duration(0); !done(); {
		if e.Advance != nil {
			e.check(moved < patience, "%s: still not so after %s", what, patience)
			e.Advance(step)
			moved += step
			continue
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			e.Fatalf("%s: still not so after %s", what, patience)
		}
	}
}

// balance audits the store.
func (e *Env) balance() {
	e.Helper()
	e.audit(audit.Options{})
}

func (e *Env) audit(o audit.Options) *audit.Report {
	e.Helper()
	report, err := audit.Run(e.ctx, e.Store, o)
	e.must(err)
	for _, f := range report.Findings {
		e.Errorf("audit: %s", f)
	}
	return report
}

// mutation is an admin write that may not be repeated.
func (e *Env) mutation() quota.Mutation {
	return quota.Mutation{Principal: "admin", Now: e.Now()}
}

// account makes an account; parent "" = it pays itself.
func (e *Env) account(id, parent string) quota.Account {
	e.Helper()
	a, err := e.Store.CreateAccount(e.ctx, e.mutation(), quota.Account{ID: id, Parent: parent, TimeZone: "UTC", DisplayName: "Account " + id})
	e.must(err)
	return a
}

// newGrant is a grant that is open and does not expire.
func (e *Env) newGrant(id string, amount int64) quota.Pot {
	return quota.Pot{ID: quota.GrantPotID(id), Kind: quota.PotWallet, Granted: amount, Start: e.Now() - int64(time.Hour),
		End: quota.Never, GrantKind: quota.GrantPurchased, Priority: 100}
}

// grant gives amount micros to the account's payer.
func (e *Env) grant(account, id string, amount int64) quota.Pot {
	e.Helper()
	g, err := e.Store.CreateGrant(e.ctx, e.mutation(), account, e.newGrant(id, amount))
	e.must(err)
	return g
}

// epochs is what a draw for the account has to say.
func (e *Env) epochs(account string) []quota.AccountEpoch {
	e.Helper()
	p, err := e.Store.Profile(e.ctx, account)
	e.must(err)
	return p.Epochs()
}

// pots reads all pots, whatever their state.
func (e *Env) pots() map[quota.PotRef]quota.Pot {
	e.Helper()
	out := map[quota.PotRef]quota.Pot{}
	e.read(func(r quota.AuditReader) error {
		clear(out)
		return r.Pots(func(p quota.Pot) error {
			out[quota.PotRef{Payer: p.Payer, Pot: p.ID}] = p
			return nil
		})
	})
	return out
}

func (e *Env) read(fn func(quota.AuditReader) error) {
	e.Helper()
	e.must(e.Store.Audit(e.ctx, fn))
}

// pot reads one pot.
func (e *Env) pot(payer, id string) quota.Pot {
	e.Helper()
	p, ok := e.pots()[quota.PotRef{Payer: payer, Pot: id}]
	e.check(ok, "pot %s of %s does not exist", id, payer)
	return p
}

// figures compares the parts of a grant.
func (e *Env) figures(payer, grant string, available, escrowed, spent, expired, refunded, direct int64) {
	e.Helper()
	p := e.pot(payer, quota.GrantPotID(grant))
	got := [...]int64{p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct}
	want := [...]int64{available, escrowed, spent, expired, refunded, direct}
	if got != want {
		e.Fatalf("grant %s: available, escrowed, spent, expired, refunded, direct\n got %v\nwant %v", grant, got, want)
	}
}

// taken compares the parts of a window pot.
func (e *Env) taken(payer string, w quota.WindowPot, escrowed, spent, direct int64) {
	e.Helper()
	p := e.pot(payer, w.ID())
	got, want := [...]int64{p.Escrowed, p.Spent, p.Direct}, [...]int64{escrowed, spent, direct}
	if got != want {
		e.Fatalf("window %s: escrowed, spent, direct\n got %v\nwant %v", w.Limit, got, want)
	}
}

// entries reads all entries in key order.
func (e *Env) entries() []quota.Entry {
	e.Helper()
	var out []quota.Entry
	e.read(func(r quota.AuditReader) error {
		out = nil
		return r.Entries(func(n quota.Entry) error {
			out = append(out, n)
			return nil
		})
	})
	return out
}

func (e *Env) interims() (out []quota.InterimRow) {
	e.Helper()
	e.read(func(r quota.AuditReader) error {
		out = nil
		return r.Interims(func(row quota.InterimRow) error {
			out = append(out, row)
			return nil
		})
	})
	return out
}

func (e *Env) events() (out []quota.UsageEvent) {
	e.Helper()
	e.read(func(r quota.AuditReader) error {
		out = nil
		return r.UsageEvents(func(u quota.UsageEvent) error {
			out = append(out, u)
			return nil
		})
	})
	return out
}

func (e *Env) debt(payer string) int64 {
	e.Helper()
	_, debt, err := e.Store.Pots(e.ctx, payer, e.Now())
	e.must(err)
	return debt
}

// Node is an incarnation with one lane and a guest lane, and what it remembers of them.
type Node struct {
	*Env
	ID          string
	Lane, Guest quota.LaneID
	Grant       quota.LeaseGrant
	batch       int64 // last of the lane
	guestBatch  int64
	sequence    uint64
	number      quota.AllotmentNo // last reserved
}

// node registers an incarnation whose lease does not run out.
func (e *Env) node() *Node {
	e.Helper()
	return e.nodeFor(lease, hold)
}

func (e *Env) nodeFor(lease, hold time.Duration) *Node {
	e.Helper()
	e.nodes++
	n := &Node{Env: e, ID: fmt.Sprintf("%032x", e.nodes), Lane: quota.LaneID(e.nodes * 100), Guest: quota.LaneID(e.nodes*100 + 50)}
	g, err := e.Store.Register(e.ctx, n.registration(lease, hold))
	e.must(err)
	n.Grant = g
	return n
}

func (n *Node) registration(lease, hold time.Duration) quota.Registration {
	return quota.Registration{Incarnation: n.ID, Node: "node-" + n.ID[30:], Address: "10.0.0.1:8080",
		Lanes: []quota.LaneID{n.Lane}, Guest: n.Guest, Lease: lease, Hold: hold}
}

// want asks the wallet for an amount, with a floor.
func (n *Node) want(amount, floor int64) quota.Want {
	return quota.Want{Kind: quota.PotWallet, Amount: amount, Floor: floor, First: n.reserve(quota.MaxWalletGrants)}
}

func (n *Node) windowWant(w quota.WindowPot, amount, floor int64) quota.Want {
	return quota.Want{Kind: w.Kind, Window: w, Amount: amount, Floor: floor, First: n.reserve(1)}
}

func (n *Node) reserve(numbers quota.AllotmentNo) quota.AllotmentNo {
	first := n.number + 1
	n.number += numbers
	return first
}

// draw is a draw for the account with the epochs in force.
func (n *Node) draw(account string, wants ...quota.Want) quota.Draw {
	n.Helper()
	p, err := n.Store.Profile(n.ctx, account)
	n.must(err)
	return quota.Draw{Incarnation: n.ID, Lane: n.Lane, Payer: p.Payer().ID, Epochs: p.Epochs(), LiveNodes: 1, Now: n.Now(), Wants: wants}
}

// sendDraw makes a draw on its own.
func (e *Env) sendDraw(d quota.Draw) ([]quota.Drawn, error) {
	results, err := e.Store.Draw(e.ctx, []quota.Draw{d})
	if err != nil {
		return nil, err
	}
	return results[0].Drawn, results[0].Err
}

func (n *Node) drawn(d quota.Draw) []quota.Drawn {
	n.Helper()
	out, err := n.sendDraw(d)
	n.must(err)
	n.check(len(out) == len(d.Wants), "%d answers to %d wants", len(out), len(d.Wants))
	return out
}

// take draws exactly amount from the wallet, which must be to be had in one grant.
func (n *Node) take(account string, amount int64) quota.Allotment {
	n.Helper()
	out := n.drawn(n.draw(account, n.want(amount, amount)))[0]
	n.check(len(out.Allotments) == 1 && out.Allotments[0].Amount == amount, "drew %+v, want %d", out, amount)
	return out.Allotments[0]
}

// takeWindow draws exactly amount from a window.
func (n *Node) takeWindow(account string, w quota.WindowPot, amount int64) quota.Allotment {
	n.Helper()
	out := n.drawn(n.draw(account, n.windowWant(w, amount, amount)))[0]
	n.check(len(out.Allotments) == 1 && out.Allotments[0].Amount == amount, "drew %+v, want %d", out, amount)
	return out.Allotments[0]
}

// day is a budget's window of today.
func (e *Env) day(account, budget string, limit int64) quota.WindowPot {
	start, end := window.Day.Bounds(e.Now(), time.UTC)
	return quota.WindowPot{Kind: quota.PotBudget, Account: account, Limit: budget, Window: window.Day, Start: start, End: end, Cap: limit}
}

// wallet charges a record's wallet: parts on allotments, the rest uncovered.
func wallet(charge int64, parts ...token.Part) quota.Slot {
	return slot(quota.PotWallet, charge, parts...)
}

func slot(kind quota.PotKind, charge int64, parts ...token.Part) quota.Slot {
	s := quota.Slot{Kind: kind, Charge: charge, Uncovered: charge, Parts: parts}
	for i, p := range parts {
		s.Uncovered -= p.Amount
		if i == 0 {
			s.Anchor = quota.AllotmentNo(p.Allotment)
		}
	}
	return s
}

func part(a quota.Allotment, amount int64) token.Part {
	return token.Part{Allotment: uint32(a.Number), Amount: amount}
}

// commit is the record of a new reservation of the node's lane.
func (n *Node) commit(account string, slots ...quota.Slot) quota.Record {
	n.Helper()
	p, err := n.Store.Profile(n.ctx, account)
	n.must(err)
	n.sequence++
	now := n.Now()
	r := quota.Record{EntryKey: quota.EntryKey{Lane: n.Lane, Sequence: n.sequence}, Nonce: 1<<63 + n.sequence, Kind: quota.Committed,
		Outcome: quota.OutcomeSuccess, Account: account, Payer: p.Payer().ID, Principal: "gateway", Feature: "chat", PriceVersion: 3,
		Labels: label.Set{{Key: "team", Value: "search"}, {Key: "user", Value: "zoë"}}, Held: 1000, Slots: slots,
		Digest: 1<<63 + n.sequence*7, ReservedAt: now - int64(time.Second), ExpiresAt: now + int64(time.Minute), SettledAt: now}
	for i := range slots {
		if slots[i].Kind == quota.PotWallet {
			r.Usage = []quota.Quantity{{Meter: "input_tokens", Quantity: 3}, {Meter: "output_tokens", Quantity: slots[i].Charge}}
			r.Lines = []int64{slots[i].Charge / 3, slots[i].Charge - slots[i].Charge/3}
		}
	}
	return r
}

// ended turns a record into the release or expiry of the same reservation.
func ended(r quota.Record, kind quota.SettleKind) quota.Record {
	r.Kind, r.Usage, r.Lines, r.Slots, r.Outcome, r.Digest = kind, nil, nil, nil, 0, 0
	return r
}

// charging turns a record into one of the same reservation with other usage.
func charging(r quota.Record, charge int64) quota.Record {
	r.Kind, r.Slots = quota.Committed, []quota.Slot{wallet(charge)}
	r.Usage, r.Lines = []quota.Quantity{{Meter: "output_tokens", Quantity: charge}}, []int64{charge}
	r.Outcome, r.Digest = quota.OutcomeSuccess, uint64(charge)
	return r
}

// append writes the records as the lane's next batch, which must be applied.
func (n *Node) append(records ...quota.Record) int64 {
	n.Helper()
	n.batch++
	res, err := n.Store.Append(n.ctx, n.Lane, n.batch, records)
	n.must(err)
	n.same("append", res, quota.AppendResult{Applied: true})
	return n.batch
}

// settle settles records of other lanes in the guest lane.
func (n *Node) settle(records ...quota.Record) []quota.Settlement {
	n.Helper()
	fates, used, err := n.Store.Settle(n.ctx, n.Guest, n.guestBatch+1, records)
	n.must(err)
	n.check(len(fates) == len(records), "%d fates of %d records", len(fates), len(records))
	if used {
		n.guestBatch++
	}
	return fates
}

// settled settles one record and compares what became of it.
func (n *Node) settled(r quota.Record, want quota.Verdict) quota.Entry {
	n.Helper()
	s := n.settle(r)[0]
	n.check(s.Verdict == want, "verdict %d (%+v), want %d", s.Verdict, s.Entry, want)
	return s.Entry
}

// die ends the node without a word, its tokens included.
func (n *Node) die() {
	n.Helper()
	n.must(n.Store.Drain(n.ctx, n.ID, n.Now()))
}

// closeLane fences and closes a lane, some allotments at a time.
func (e *Env) closeLane(lane quota.LaneID) {
	e.Helper()
	e.must(e.Store.Fence(e.ctx, lane))
	e.closeFenced(lane)
}

func (e *Env) closeFenced(lane quota.LaneID) {
	e.Helper()
	for range 1000 {
		done, err := e.Store.CloseLane(e.ctx, lane, e.Now(), 2)
		e.must(err)
		if done {
			return
		}
	}
	e.Fatalf("lane %d is still not closed", lane)
}

// leave ends the node and closes its lanes.
func (n *Node) leave() {
	n.Helper()
	n.die()
	n.closeLane(n.Lane)
	n.closeLane(n.Guest)
}

// project brings every lane that the node may project to its end.
func (n *Node) project() {
	n.Helper()
	for range 1000 {
		moved := false
		cursors, err := n.Store.Projectable(n.ctx, n.ID)
		n.must(err)
		for _, c := range cursors {
			moved = n.projectLane(c) || moved
		}
		if !moved {
			return
		}
	}
	n.Fatalf("projection does not come to an end")
}

func (n *Node) projectLane(c quota.Cursor) bool {
	n.Helper()
	p := n.next(c, 2)
	if p == nil {
		return false
	}
	applied, err := n.Store.Project(n.ctx, p)
	n.must(err)
	return applied
}

// next builds the projection of at most limit batches behind the cursor; nil if there are none.
func (e *Env) next(c quota.Cursor, limit int) *quota.Projection {
	e.Helper()
	batches, err := e.Store.Batches(e.ctx, c, limit)
	e.must(err)
	if len(batches) == 0 {
		return nil
	}
	pots, err := e.Store.PotsOf(e.ctx, projection.Refs(batches))
	e.must(err)
	return projection.Build(c, e.Now(), batches, pots)
}

// finish proves that everything comes home (I15): every node leaves, a last one projects.
func (e *Env) finish(nodes ...*Node) *audit.Report {
	e.Helper()
	for _, n := range nodes {
		n.leave()
	}
	last := e.node()
	last.project()
	last.leave()
	return e.audit(audit.Options{Quiescent: true})
}
