package storagetest

import (
	"errors"
	"fmt"

	"github.com/purser-io/purser/quota"
)

// drawBatch sends draws together.
func (e *Env) drawBatch(draws ...quota.Draw) []quota.DrawResult {
	e.Helper()
	results, err := e.Store.Draw(e.ctx, draws)
	e.must(err)
	e.check(len(results) == len(draws), "%d results of %d draws", len(results), len(draws))
	return results
}

// got is what a draw brought in all; it must not have been refused.
func (e *Env) got(r quota.DrawResult) (sum int64) {
	e.Helper()
	e.must(r.Err)
	for _, d := range r.Drawn {
		for _, a := range d.Allotments {
			sum += a.Amount
		}
	}
	return sum
}

// drawManyPayers: wallets and windows of payers in no order, from lanes of two nodes.
func drawManyPayers(e *Env) {
	a, b := e.node(), e.node()
	var draws []quota.Draw
	for i := range 9 {
		account := fmt.Sprintf("account-%d", (i*5)%9)
		e.account(account, "")
		e.grant(account, "one", 1000)
		n := a
		if i%2 == 1 {
			n = b
		}
		draws = append(draws, n.draw(account, n.windowWant(e.day(account, "daily", 100), 50, 50), n.want(int64(100+i), 0)))
	}
	for i, r := range e.drawBatch(draws...) {
		d, want := draws[i], int64(100+i)
		e.must(r.Err)
		e.check(e.got(r) == 50+want, "draw %d brought %+v", i, r)
		e.check(r.Drawn[0].Taken == 50 && r.Drawn[0].Available == 50, "draw %d shows %+v of its window", i, r.Drawn[0])
		e.check(r.Drawn[1].Available == 1000-want && r.Drawn[1].Escrowed == want, "draw %d shows %+v of its wallet", i, r.Drawn[1])
		e.check(r.Drawn[1].Allotments[0].Lane == d.Lane, "draw %d is on lane %d, want %d", i, r.Drawn[1].Allotments[0].Lane, d.Lane)
		e.figures(d.Payer, "one", 1000-want, want, 0, 0, 0, 0)
		e.taken(d.Payer, d.Wants[0].Window, 50, 0, 0)
	}
}

// drawRefusedApart: a draw that is refused takes nothing, and the others go on.
func drawRefusedApart(e *Env) {
	for _, account := range []string{"fine", "changed", "fenced", "too"} {
		e.account(account, "")
		e.grant(account, "one", 1000)
	}
	n, fenced := e.node(), e.node()
	changed := n.draw("changed", n.want(10, 10))
	_, _, err := e.Store.SetStatus(e.ctx, e.mutation(), "changed", quota.AccountSuspended, "fraud")
	e.must(err)
	e.must(e.Store.Fence(e.ctx, fenced.Lane))
	results := e.drawBatch(n.draw("fine", n.want(10, 10)), changed,
		fenced.draw("fenced", fenced.want(10, 10)), n.draw("too", n.want(20, 20)))
	e.check(e.got(results[0]) == 10 && e.got(results[3]) == 20, "the others got %+v", results)
	e.refused(results[1].Err, quota.ReasonPolicyChanged)
	e.refused(results[2].Err, quota.ReasonFenced)
	e.check(results[1].Drawn == nil && results[2].Drawn == nil, "who is refused got %+v", results)
	e.figures("changed", "one", 1000, 0, 0, 0, 0, 0)
	e.figures("fenced", "one", 1000, 0, 0, 0, 0, 0)
}

// drawOnePotTwice: draws of one payer in a batch share what there is, and make its window
// once.
func drawOnePotTwice(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100)
	a, b := e.node(), e.node()
	day := e.day("acme", "daily", 100)
	results := e.drawBatch(a.draw("acme", a.want(60, 60), a.windowWant(day, 60, 60)), b.draw("acme", b.want(60, 60), b.windowWant(day, 60, 60)))
	for w := range 2 {
		first, second := results[0].Drawn[w], results[1].Drawn[w]
		e.check(first.Allotments[0].Amount == 60 && second.Allotments[0].Amount == 40, "want %d: %+v, then %+v", w, first, second)
		e.check(first.Available == 40 && second.Available == 0, "want %d: left %+v, then %+v", w, first, second)
	}
	e.figures("acme", "one", 0, 100, 0, 0, 0, 0)
	e.taken("acme", day, 100, 0, 0)
}

// drawOtherCompany is R11 for a batch: what landed is answered as it stands, whoever else is
// in the batch that asks.
func drawOtherCompany(e *Env) {
	for _, account := range []string{"one", "two", "three"} {
		e.account(account, "")
		e.grant(account, "one", 1000)
	}
	n := e.node()
	first, second, third := n.draw("one", n.want(10, 10)), n.draw("two", n.want(20, 20)), n.draw("three", n.want(30, 30))
	before := e.drawBatch(first, second)
	first.Again, second.Again = true, true
	after := e.drawBatch(third, second)
	e.same("drawn again", after[1].Drawn[0].Allotments, before[1].Drawn[0].Allotments)
	e.check(e.got(after[0]) == 30, "new in the batch: %+v", after[0])
	e.same("drawn again alone", e.drawBatch(first)[0].Drawn[0].Allotments, before[0].Drawn[0].Allotments)
	e.figures("one", "one", 990, 10, 0, 0, 0, 0)
	e.figures("two", "one", 980, 20, 0, 0, 0, 0)
	e.figures("three", "one", 970, 30, 0, 0, 0, 0)
}

// drawOneTransaction: a batch that fails has drawn nothing at all.
func drawOneTransaction(e *Env) {
	e.account("acme", "")
	e.account("other", "")
	e.grant("acme", "one", 1000)
	e.grant("other", "one", 1000)
	n := e.node()
	wrong := n.draw("other", n.want(10, 10))
	wrong.Wants[0].Amount = 0
	_, err := e.Store.Draw(e.ctx, []quota.Draw{n.draw("acme", n.want(10, 10)), wrong})
	e.check(errors.Is(err, quota.ReasonInvariantViolated), "a want of nothing: %v", err)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}
