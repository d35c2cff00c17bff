package storagetest

import (
	"math"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

func journalTests() []Test {
	return []Test{
		{"EntriesAreKept", journalEntries},
		{"RecordsComeBackWhole", journalRecords},
		{"ManyRecords", journalMany},
		{"ResendIsHarmless", journalResend},
		{"Winners", journalWinners},
		{"WinnersLeaveTheNumber", journalWinnersNumber},
		{"Fenced", journalFenced},
		{"LandedBeforeTheFence", journalLanded},
		{"FenceOfOneLane", journalOtherLane},
		{"Whereabouts", journalWhereabouts},
		{"WhereaboutsOfTheEnded", journalWhereaboutsEnded},
	}
}

func (e *Env) whereabouts(lane quota.LaneID, sequence uint64) quota.Whereabouts {
	e.Helper()
	w, known, err := e.Store.Whereabouts(e.ctx, lane, sequence)
	e.must(err)
	e.check(known, "lane %d is not known", lane)
	return w
}

// journalWhereabouts: who issued a reservation, in whatever state that is (R35).
func journalWhereabouts(e *Env) {
	one, two := e.node(), e.node()
	want := quota.Whereabouts{Open: true, Node: "node-01", Address: "10.0.0.1:8080", State: quota.IncarnationLive}
	e.same("a live node's", e.whereabouts(one.Lane, 7), want)
	two.die()
	want.Node, want.State = "node-02", quota.IncarnationDrained
	e.same("a drained node's", e.whereabouts(two.Lane, 7), want)
	e.must(e.Store.Fence(e.ctx, two.Lane))
	want.Open = false
	e.same("in a fenced lane", e.whereabouts(two.Lane, 7), want)
	e.closeFenced(two.Lane)
	e.same("in a closed lane", e.whereabouts(two.Lane, 7), want)
	got, known, err := e.Store.Whereabouts(e.ctx, 123456, 7)
	e.must(err)
	e.check(!known, "a lane that never was is %+v", got)
}

// journalWhereaboutsEnded: how a reservation ended, wherever that was written.
func journalWhereaboutsEnded(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	owner, other := e.node(), e.node()
	a := owner.take("acme", 300)
	committed := owner.commit("acme", wallet(30, part(a, 30)))
	expired := ended(owner.commit("acme"), quota.Expired)
	elsewhere := owner.commit("acme", wallet(20, part(a, 20)))
	owner.append(committed, expired)
	other.settled(elsewhere, quota.VerdictApplied)
	find := func(r quota.Record) *quota.Entry {
		e.Helper()
		return e.whereabouts(r.Lane, r.Sequence).Entry
	}
	want := committed.Entry(owner.Lane, 1)
	e.same("committed", find(committed), &want)
	want = expired.Entry(owner.Lane, 1)
	e.same("expired", find(expired), &want)
	want = elsewhere.Entry(other.Guest, 1)
	e.same("committed elsewhere", find(elsewhere), &want)
	late := other.settled(charging(expired, 9), quota.VerdictApplied)
	e.same("LATE behind its expiry", find(expired), &late)
	e.check(find(owner.commit("acme")) == nil, "a live reservation has an entry")
	other.project()
}

func journalEntries(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	records := []quota.Record{
		n.commit("acme", wallet(30, part(a, 25))),
		ended(n.commit("acme"), quota.Released),
		ended(n.commit("acme"), quota.Expired),
		n.commit("acme", wallet(0)),
	}
	var want []quota.Entry
	for i := range records {
		want = append(want, records[i].Entry(n.Lane, 1))
	}
	n.append(records...)
	e.same("entries", e.entries(), want)
}

// journalRecords writes a record with every field at an unusual value.
func journalRecords(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a, b := n.take("acme", 300), n.take("acme", 100)
	w := e.day("acme", "daily", 1000)
	c := n.takeWindow("acme", w, 400)
	full := quota.Record{
		EntryKey: quota.EntryKey{Lane: n.Lane, Sequence: 1 << 40}, Nonce: math.MaxUint64, Kind: quota.Committed,
		Outcome: quota.OutcomeUserCancelled, Delivered: true, Account: "acme", Payer: "acme", Principal: "gäte \x00\"way",
		Feature: "chat.gpt-large", PriceVersion: 1 << 33, Labels: label.Set{{Key: "team", Value: ""}, {Key: "user", Value: "ü\n"}},
		Usage: []quota.Quantity{{Meter: "input_tokens", Quantity: 1 << 53}, {Meter: "output_tokens"}}, Lines: []int64{450, 0},
		Held: 1 << 53, Digest: math.MaxUint64 - 1, ReservedAt: 1, ExpiresAt: quota.Never, SettledAt: e.Now(),
		Slots: []quota.Slot{
			wallet(450, part(a, 300), part(b, 100)),
			{Kind: quota.PotBudget, Unit: "", Anchor: c.Number, Parts: []token.Part{part(c, 400)}, Charge: 450, Uncovered: 50},
			{Kind: quota.PotQuota, Unit: "output_tokens", Pot: "q/acme/x/0/", Charge: 0},
		},
	}
	empty := quota.Record{EntryKey: quota.EntryKey{Lane: n.Lane, Sequence: 2}, Kind: quota.Released, Account: "acme", Payer: "acme"}
	n.append(full, empty)
	batches, err := e.Store.Batches(e.ctx, quota.Cursor{Lane: n.Lane}, 10)
	e.must(err)
	e.same("batches", batches, []quota.Batch{{Lane: n.Lane, No: 1, Records: []quota.Record{full, empty}}})
}

func journalMany(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100000)
	n := e.node()
	a := n.take("acme", 50000)
	var records []quota.Record
	first := n.commit("acme", wallet(7, part(a, 7)))
	for i := range uint64(600) {
		r := first
		r.Sequence, r.Nonce = i+1, i*i
		records = append(records, r)
	}
	n.append(records...)
	e.check(len(e.entries()) == 600, "%d entries, want 600", len(e.entries()))
}

// journalResend is R17: after an unknown outcome the same batch is sent again.
func journalResend(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	records := []quota.Record{n.commit("acme", wallet(30, part(a, 30))), n.commit("acme", wallet(20, part(a, 20)))}
	n.append(records...)
	want := e.entries()
	for range 2 {
		res, err := e.Store.Append(e.ctx, n.Lane, 1, records)
		e.must(err)
		e.same("sent again", res, quota.AppendResult{Applied: true})
	}
	e.same("entries", e.entries(), want)
	n.append(n.commit("acme", wallet(1, part(a, 1))))
	res, err := e.Store.Append(e.ctx, n.Lane, 1, records)
	e.must(err)
	e.same("sent again after the next", res, quota.AppendResult{Applied: true})
}

// journalWinners is R17's slow path: some reservations of the batch were settled elsewhere.
func journalWinners(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	owner, other := e.node(), e.node()
	a := owner.take("acme", 300)
	mine := owner.commit("acme", wallet(30, part(a, 30)))
	lost := owner.commit("acme", wallet(20, part(a, 20)))
	winner := other.settled(charging(lost, 11), quota.VerdictApplied)
	for range 2 {
		res, err := e.Store.Append(e.ctx, owner.Lane, 1, []quota.Record{mine, ended(lost, quota.Expired)})
		e.must(err)
		e.same("append", res, quota.AppendResult{Winners: []quota.Entry{winner}})
	}
	e.same("entries", e.entries(), []quota.Entry{winner})
}

// journalWinnersNumber is R20: a batch that definitely failed leaves its number to the next.
func journalWinnersNumber(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	lost, mine := owner.commit("acme", wallet(5)), owner.commit("acme", wallet(6))
	other.settled(lost, quota.VerdictApplied)
	res, err := e.Store.Append(e.ctx, owner.Lane, 1, []quota.Record{lost, mine})
	e.must(err)
	e.check(len(res.Winners) == 1 && !res.Applied && !res.Fenced, "append: %+v", res)
	owner.append(mine) // under number 1
	e.check(len(e.entries()) == 2, "entries %+v", e.entries())
}

func journalFenced(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	records := []quota.Record{n.commit("acme", wallet(30, part(a, 30)))}
	e.must(e.Store.Fence(e.ctx, n.Lane))
	fenced := func(when string) {
		e.Helper()
		res, err := e.Store.Append(e.ctx, n.Lane, 1, records)
		e.must(err)
		e.same(when, res, quota.AppendResult{Fenced: true})
		e.check(len(e.entries()) == 0, "%s: a fenced batch left entries", when)
	}
	fenced("closing")
	n.closeFenced(n.Lane)
	fenced("closed")
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
	records[0].Lane = 424242
	res, err := e.Store.Append(e.ctx, 424242, 1, records)
	e.must(err)
	e.same("a lane that does not exist", res, quota.AppendResult{Fenced: true})
}

func journalLanded(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	r := n.commit("acme", wallet(30, part(a, 30)))
	n.append(r)
	n.closeLane(n.Lane)
	res, err := e.Store.Append(e.ctx, n.Lane, 1, []quota.Record{r})
	e.must(err)
	e.same("sent again after the lane was closed", res, quota.AppendResult{Applied: true})
	e.figures("acme", "one", 970, 0, 30, 0, 0, 0)
}

func journalOtherLane(e *Env) {
	e.account("acme", "")
	n, other := e.node(), e.node()
	e.must(e.Store.Fence(e.ctx, other.Lane))
	n.append(n.commit("acme", wallet(1)))
}
