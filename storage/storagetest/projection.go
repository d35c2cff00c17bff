package storagetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/purser-io/purser/quota"
)

func projectionTests() []Test {
	return []Test{
		{"Projectable", projectionLanes},
		{"BatchesInOrder", projectionBatches},
		{"BatchesStopAtAGap", projectionGap},
		{"PotsOf", projectionPotsOf},
		{"Once", projectionOnce},
		{"TwoProjectors", projectionTwo},
		{"Finished", projectionFinished},
		{"WalletClaimsInBurnOrder", projectionBurnOrder},
		{"WalletClaimsMakeDebt", projectionDebt},
		{"WindowClaimsPassTheCap", projectionWindow},
		{"WindowClaimWithoutAPot", projectionWindowNew},
		{"RollupsAddUp", projectionRollups},
	}
}

func (n *Node) cursor(lane quota.LaneID) (quota.Cursor, bool) {
	n.Helper()
	all, err := n.Store.Projectable(n.ctx, n.ID)
	n.must(err)
	i := slices.IndexFunc(all, func(c quota.Cursor) bool { return c.Lane == lane })
	if i < 0 {
		return quota.Cursor{}, false
	}
	return all[i], true
}

// projectionLanes: an own lane, and that of one who is gone, but no other.
func projectionLanes(e *Env) {
	e.account("acme", "")
	self, living, gone := e.node(), e.node(), e.node()
	for _, n := range []*Node{self, living, gone} {
		n.append(n.commit("acme", wallet(1)))
	}
	gone.die()
	_, ok := self.cursor(self.Lane)
	e.check(ok, "the own lane is not listed")
	_, ok = self.cursor(gone.Lane)
	e.check(ok, "the lane of a drained node is not listed")
	_, ok = self.cursor(living.Lane)
	e.check(!ok, "the lane of a living node is listed")
	gone.closeLane(gone.Lane)
	c, ok := self.cursor(gone.Lane)
	e.check(ok && c.Closed && c.No == 0, "a closed lane with batches behind its cursor: %+v, %t", c, ok)
}

func projectionBatches(e *Env) {
	e.account("acme", "")
	n := e.node()
	for range 5 {
		n.append(n.commit("acme", wallet(1)))
	}
	numbers := func(after int64, limit int) (out []int64) {
		batches, err := e.Store.Batches(e.ctx, quota.Cursor{Lane: n.Lane, No: after}, limit)
		e.must(err)
		for _, b := range batches {
			out = append(out, b.No)
		}
		return out
	}
	e.same("the first", numbers(0, 2), []int64{1, 2})
	e.same("the next", numbers(2, 10), []int64{3, 4, 5})
	e.check(len(numbers(5, 10)) == 0, "batches beyond the last")
}

// projectionGap is R20: what has not landed yet may not be passed over.
func projectionGap(e *Env) {
	e.account("acme", "")
	n := e.node()
	n.append(n.commit("acme", wallet(1)))
	late := n.commit("acme", wallet(2))
	n.batch++ // batch 2 is still on its way
	n.append(n.commit("acme", wallet(3)))
	batches, err := e.Store.Batches(e.ctx, quota.Cursor{Lane: n.Lane}, 10)
	e.must(err)
	e.check(len(batches) == 1 && batches[0].No == 1, "batches beyond one that is missing: %+v", batches)
	res, err := e.Store.Append(e.ctx, n.Lane, 2, []quota.Record{late})
	e.must(err)
	e.check(res.Applied, "append: %+v", res)
	batches, err = e.Store.Batches(e.ctx, quota.Cursor{Lane: n.Lane}, 10)
	e.must(err)
	e.check(len(batches) == 3, "%d batches, want 3", len(batches))
}

func projectionPotsOf(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n, other := e.node(), e.node()
	a := n.take("acme", 10)
	w := e.day("acme", "daily", 100)
	b := other.takeWindow("acme", w, 10)
	got, err := e.Store.PotsOf(e.ctx, []quota.AllotmentRef{{Lane: n.Lane, Number: a.Number}, {Lane: other.Lane, Number: b.Number}, {Lane: n.Lane, Number: 99}})
	e.must(err)
	e.same("pots", got, map[quota.AllotmentRef]quota.PotRef{
		{Lane: n.Lane, Number: a.Number}:     {Payer: "acme", Pot: "g/one"},
		{Lane: other.Lane, Number: b.Number}: {Payer: "acme", Pot: w.ID()}})
	got, err = e.Store.PotsOf(e.ctx, nil)
	e.must(err)
	e.check(len(got) == 0, "pots of nothing: %v", got)
}

// projectionOnce: the cursor moves with what was written, so sending again writes nothing.
func projectionOnce(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	w := e.day("acme", "daily", 10)
	b := n.takeWindow("acme", w, 10)
	n.append(n.commit("acme", wallet(50, part(a, 30)), slot(quota.PotBudget, 50, part(b, 10))))
	p := e.next(quota.Cursor{Lane: n.Lane}, 10)
	applied, err := e.Store.Project(e.ctx, p)
	e.must(err)
	e.check(applied, "the first projection was not applied")
	for range 2 {
		applied, err = e.Store.Project(e.ctx, p)
		e.must(err)
		e.check(!applied, "a projection was applied twice")
	}
	e.figures("acme", "one", 680, 300, 0, 0, 0, 20)
	e.taken("acme", w, 10, 0, 40)
	rollups, _, err := e.Store.Rollups(e.ctx, quota.UsageQuery{}, quota.Page{Size: 10})
	e.must(err)
	e.check(len(rollups) == 2 && rollups[0].Events == 1 && rollups[1].Events == 1, "rollups %+v", rollups)
	c, ok := n.cursor(n.Lane)
	e.check(ok && c.No == 1, "cursor %+v, %t", c, ok)
}

// projectionTwo: of two projectors with different cuts of the same batches, one wins.
func projectionTwo(e *Env) {
	e.account("acme", "")
	n := e.node()
	n.append(n.commit("acme", wallet(5)))
	n.append(n.commit("acme", wallet(6)))
	one, both := e.next(quota.Cursor{Lane: n.Lane}, 1), e.next(quota.Cursor{Lane: n.Lane}, 2)
	applied, err := e.Store.Project(e.ctx, one)
	e.must(err)
	e.check(applied, "not applied")
	applied, err = e.Store.Project(e.ctx, both)
	e.must(err)
	e.check(!applied, "a projection from a cursor that had moved was applied")
	n.project()
	e.same("debt", e.debt("acme"), int64(11))
}

func projectionFinished(e *Env) {
	e.account("acme", "")
	n, gone := e.node(), e.node()
	gone.append(gone.commit("acme", wallet(5)))
	gone.leave()
	n.project()
	c, ok := n.cursor(gone.Lane)
	e.check(ok && c.Closed && c.No == 1, "cursor %+v, %t", c, ok)
	for range 2 {
		e.must(e.Store.Finished(e.ctx, c))
	}
	_, ok = n.cursor(gone.Lane)
	e.check(!ok, "a finished lane is listed")
	_, ok = n.cursor(gone.Guest)
	e.check(ok, "a lane that is not finished is not listed")
}

func projectionBurnOrder(e *Env) {
	e.account("acme", "")
	for _, id := range []string{"last", "first", "middle"} {
		g := e.newGrant(id, 100)
		g.Priority = map[string]int{"first": 1, "middle": 2, "last": 3}[id]
		_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", g)
		e.must(err)
	}
	expired := e.newGrant("expired", 100)
	expired.Priority, expired.End = 0, e.Now()+int64(200*time.Millisecond)
	_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", expired)
	e.must(err)
	n := e.node()
	n.append(n.commit("acme", wallet(150)))
	p := e.next(quota.Cursor{Lane: n.Lane}, 10)
	p.Now = expired.End // R44: the projector says when it is
	applied, err := e.Store.Project(e.ctx, p)
	e.must(err)
	e.check(applied, "not applied")
	e.figures("acme", "expired", 100, 0, 0, 0, 0, 0)
	e.figures("acme", "first", 0, 0, 0, 0, 0, 100)
	e.figures("acme", "middle", 50, 0, 0, 0, 0, 50)
	e.figures("acme", "last", 100, 0, 0, 0, 0, 0)
	e.same("debt", e.debt("acme"), int64(0))
}

// projectionDebt is R25: what no grant has becomes debt, and whoever decided without it
// decides anew.
func projectionDebt(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	e.grant("acme", "one", 30)
	n := e.node()
	before := e.epochs("team")
	n.append(n.commit("team", wallet(20)))
	n.project()
	e.same("epochs after a claim that was covered", e.epochs("team"), before)
	since := n.poll().Revision
	n.append(n.commit("team", wallet(25)))
	n.project()
	e.figures("acme", "one", 0, 0, 0, 0, 0, 30)
	e.same("debt", e.debt("acme"), int64(15))
	after := e.epochs("team")
	e.check(after[1].Account == "acme" && after[1].Epoch > before[1].Epoch, "epochs %+v after debt, %+v before", after, before)
	p := n.pollSince(since, 0)
	e.check(slices.ContainsFunc(p.Changes, func(c quota.Change) bool { return c.Kind == quota.ChangeAccount && c.ID == "acme" }),
		"no node is told of the debt: %+v", p.Changes)
}

// projectionWindow: the overshoot of I12 is counted, and leaves nothing to draw.
func projectionWindow(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	a := n.takeWindow("acme", w, 60)
	n.append(n.commit("acme", slot(quota.PotBudget, 130, part(a, 60))))
	n.project()
	e.taken("acme", w, 60, 0, 70)
	got := n.drawn(n.draw("acme", n.windowWant(w, 10, 10)))[0]
	e.check(len(got.Allotments) == 0 && got.Taken == 130, "drew %+v beyond the cap", got)
}

// projectionWindowNew: a charge of a budget from which nothing could be drawn.
func projectionWindowNew(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	s := slot(quota.PotBudget, 30)
	s.Pot = w.ID()
	n.append(n.commit("acme", s))
	n.project()
	e.taken("acme", w, 0, 0, 30)
	got := n.drawn(n.draw("acme", n.windowWant(w, 100, 100)))[0]
	e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 70, "of 70 left drew %+v", got)
	p := e.pot("acme", w.ID())
	e.check(p.Start == w.Start && p.End == w.End && p.Limit == "daily" && p.Account == "acme", "window pot %+v", p)
}

func projectionRollups(e *Env) {
	e.account("acme", "")
	e.account("beta", "")
	n, other := e.node(), e.node()
	now := e.Now()
	hour := now - now%int64(time.Hour)
	at := func(n *Node, account string, settled int64, charge int64) quota.Record {
		r := n.commit(account, wallet(charge))
		r.SettledAt = settled
		return r
	}
	n.append(at(n, "acme", hour, 10), at(n, "acme", hour+int64(time.Hour)-1, 20))
	n.project()
	n.append(at(n, "acme", hour-1, 7), at(n, "beta", hour, 5), ended(n.commit("acme"), quota.Released))
	other.append(at(other, "acme", hour+5, 30))
	n.project()
	other.project()
	got, _, err := e.Store.Rollups(e.ctx, quota.UsageQuery{Account: "acme", Feature: "chat", From: hour, To: hour + 1}, quota.Page{Size: 10})
	e.must(err)
	e.same("rollups", got, []quota.Rollup{
		{Account: "acme", Hour: hour, Feature: "chat", Meter: "input_tokens", Quantity: 9, Micros: 3 + 6 + 10, Events: 3},
		{Account: "acme", Hour: hour, Feature: "chat", Meter: "output_tokens", Quantity: 60, Micros: 41, Events: 3}})
	got, _, err = e.Store.Rollups(e.ctx, quota.UsageQuery{}, quota.Page{Size: 10})
	e.must(err)
	e.check(len(got) == 6, "%d rollups, want 6: %+v", len(got), got)
}

// cursorOf reads the cursor of the node's own lane; it may be called from any goroutine.
func cursorOf(n *Node) (quota.Cursor, error) {
	all, err := insist(func() ([]quota.Cursor, error) { return n.Store.Projectable(n.ctx, n.ID) })
	if err != nil {
		return quota.Cursor{}, fmt.Errorf("projectable: %w", err)
	}
	for _, c := range all {
		if c.Lane == n.Lane {
			return c, nil
		}
	}
	return quota.Cursor{}, fmt.Errorf("projectable: lane %d is not listed", n.Lane)
}
