package storagetest

import (
	"time"

	"github.com/purser-io/purser/quota"
)

func returnTests() []Test {
	return []Test{
		{"GivesBack", returnGivesBack},
		{"OnceBySequence", returnOnce},
		{"SequencesInOrder", returnInOrder},
		{"CloseSpendsTheRest", returnClose},
		{"Window", returnWindow},
		{"ToExpired", returnExpired},
		{"ToRefunded", returnRefunded},
		{"PaysDebt", returnPaysDebt},
		{"Fenced", returnFenced},
		{"MoreThanThereIs", returnTooMuch},
	}
}

func returnGivesBack(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a, b := n.take("acme", 300), n.take("acme", 200)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}, {Number: b.Number, Sequence: 1, Amount: 50}}))
	e.figures("acme", "one", 650, 350, 0, 0, 0, 0)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 2, Amount: 200, Close: true}}))
	e.figures("acme", "one", 850, 150, 0, 0, 0, 0)
}

// returnOnce is R19: the same return again, after an unknown outcome, changes nothing.
func returnOnce(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	first := []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}}
	for range 3 {
		e.must(e.Store.Return(e.ctx, n.Lane, first))
		e.figures("acme", "one", 800, 200, 0, 0, 0, 0)
	}
	last := []quota.Shrink{{Number: a.Number, Sequence: 2, Amount: 200, Close: true}}
	for range 2 {
		e.must(e.Store.Return(e.ctx, n.Lane, last))
		e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
	}
	e.must(e.Store.Return(e.ctx, n.Lane, first))
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}

// returnInOrder: applied only as the successor of the last one applied.
func returnInOrder(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	// Whether a gap is refused or passed over is the store's choice; it may not be applied.
	_ = e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 2, Amount: 100}})
	e.figures("acme", "one", 700, 300, 0, 0, 0, 0)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{
		{Number: a.Number, Sequence: 1, Amount: 10}, {Number: a.Number, Sequence: 2, Amount: 20}}))
	e.figures("acme", "one", 730, 270, 0, 0, 0, 0)
}

// returnClose is R46: what is left on a closed allotment was spent.
func returnClose(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(120, part(a, 120))))
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 180, Close: true}}))
	e.figures("acme", "one", 880, 0, 120, 0, 0, 0)
	n.closeLane(n.Lane)
	e.figures("acme", "one", 880, 0, 120, 0, 0, 0)
}

func returnWindow(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	a := n.takeWindow("acme", w, 60)
	n.append(n.commit("acme", slot(quota.PotBudget, 25, part(a, 25))))
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 30}}))
	e.taken("acme", w, 30, 0, 0)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 2, Amount: 5, Close: true}}))
	e.taken("acme", w, 0, 25, 0)
	n.takeWindow("acme", w, 75)
}

// returnExpired is R14: the store's own time decides that the grant has ended.
func returnExpired(e *Env) {
	e.account("acme", "")
	g := e.newGrant("short", 1000)
	g.End = e.Now() + int64(400*time.Millisecond)
	_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", g)
	e.must(err)
	n := e.node()
	a := n.take("acme", 300)
	e.eventually("the grant expires", func() bool { return e.Now() > g.End+int64(50*time.Millisecond) })
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}}))
	e.figures("acme", "short", 700, 200, 0, 100, 0, 0)
}

func returnRefunded(e *Env) {
	e.account("acme", "")
	e.grant("acme", "gone", 1000)
	n := e.node()
	a := n.take("acme", 300)
	_, err := e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
	e.must(err)
	e.figures("acme", "gone", 0, 300, 0, 0, 700, 0)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}}))
	e.figures("acme", "gone", 0, 200, 0, 0, 800, 0)
}

// returnPaysDebt is R50.
func returnPaysDebt(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 300)
	n := e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(40)))
	n.project()
	e.same("debt", e.debt("acme"), int64(40))
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 25}}))
	e.figures("acme", "one", 0, 275, 0, 0, 0, 25)
	e.same("debt", e.debt("acme"), int64(15))
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 2, Amount: 100}}))
	e.figures("acme", "one", 85, 175, 0, 0, 0, 40)
	e.same("debt", e.debt("acme"), int64(0))
}

func returnFenced(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	e.must(e.Store.Fence(e.ctx, n.Lane))
	e.refused(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}}), quota.ReasonFenced)
	e.figures("acme", "one", 700, 300, 0, 0, 0, 0)
}

// returnTooMuch: a node that would give back what it does not have is wrong, whatever it says.
func returnTooMuch(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a, b := n.take("acme", 300), n.take("acme", 100)
	err := e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: a.Number, Sequence: 1, Amount: 100}, {Number: b.Number, Sequence: 1, Amount: 101}})
	e.refused(err, quota.ReasonInvariantViolated)
	e.figures("acme", "one", 600, 400, 0, 0, 0, 0)
}
