package storagetest

import (
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
)

var _ testing.TB = (*Env)(nil)

func drawTests() []Test {
	return []Test{
		{"MovesAvailableToEscrowed", drawMoves},
		{"HalfRule", drawHalfRule},
		{"LeastOrNothing", drawLeast},
		{"BurnOrder", drawBurnOrder},
		{"AtMostEightGrants", drawManyGrants},
		{"OpenGrantsOnly", drawOpenGrants},
		{"ResendAnswersTheSame", drawResend},
		{"ResendAfterShrinkAnswersWhatStands", drawResendShrunk},
		{"ResendIsAnsweredWhateverChanged", drawResendPolicy},
		{"ResendOfNothingLeavesATrace", drawTrace},
		{"Window", drawWindow},
		{"WindowCapLowered", drawWindowLowered},
		{"WindowsOfOneBudgetAreApart", drawWindowKeys},
		{"AllWantsOrNone", drawAllOrNone},
		{"Epoch", drawEpoch},
		{"Suspended", drawSuspended},
		{"Fenced", drawFenced},
		{"LeaseRanOut", drawLeaseRanOut},
		{"Debt", drawDebt},
		{"NothingToBeHad", drawNothing},
		{"ManyPayers", drawManyPayers},
		{"RefusedApart", drawRefusedApart},
		{"OnePotTwice", drawOnePotTwice},
		{"ResendInOtherCompany", drawOtherCompany},
		{"BatchIsOneTransaction", drawOneTransaction},
	}
}

func drawMoves(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	g := e.grant("acme", "one", 1000)
	n := e.node()
	got := n.drawn(n.draw("team", n.want(300, 0)))[0]
	e.same("drawn", got, quota.Drawn{Available: 700, Escrowed: 300,
		Allotments: []quota.Allotment{{Lane: n.Lane, Number: 1, Pot: g.ID, Amount: 300, NotAfter: quota.Never}}})
	e.figures("acme", "one", 700, 300, 0, 0, 0, 0)
	other := e.node()
	got = other.drawn(other.draw("acme", other.want(200, 0)))[0]
	e.check(got.Available == 500 && got.Escrowed == 500, "another node drew %+v", got)
	e.figures("acme", "one", 500, 500, 0, 0, 0, 0)
}

// drawHalfRule is R28: never more than half of an even share, except up to the floor.
func drawHalfRule(e *Env) {
	for _, c := range []struct {
		account             string
		want, floor, expect int64
		nodes               int
	}{
		{"one-node", 1000, 0, 500, 1},
		{"two-nodes", 1000, 0, 250, 2},
		{"floor-wins", 1000, 400, 400, 2},
		{"floor-of-all", 5000, 5000, 1000, 4},
		{"less-wanted", 10, 0, 10, 1},
		{"floor-above-want", 10, 400, 10, 1},
	} {
		e.account(c.account, "")
		e.grant(c.account, "g-"+c.account, 1000)
		n := e.node()
		d := n.draw(c.account, n.want(c.want, c.floor))
		d.LiveNodes = c.nodes
		got := n.drawn(d)[0]
		sum := int64(0)
		for _, a := range got.Allotments {
			sum += a.Amount
		}
		e.check(sum == c.expect, "%s: drew %d, want %d", c.account, sum, c.expect)
	}
}

// drawBurnOrder takes all of a wallet and compares the order of the allotments: priority,
// expiry (none last), kind, effective time, id.
func drawBurnOrder(e *Env) {
	e.account("acme", "")
	now := e.Now()
	hour := int64(time.Hour)
	base := quota.Pot{Kind: quota.PotWallet, Granted: 10, Start: now - hour, End: quota.Never, GrantKind: quota.GrantPurchased, Priority: 5}
	with := func(id string, edit func(*quota.Pot)) quota.Pot {
		p := base
		p.ID = quota.GrantPotID(id)
		edit(&p)
		return p
	}
	order := []quota.Pot{
		with("z-priority", func(p *quota.Pot) { p.Priority = 1 }),
		with("y-soonest", func(p *quota.Pot) { p.End = now + hour }),
		with("x-sooner", func(p *quota.Pot) { p.End = now + 2*hour }),
		with("w-promotional", func(p *quota.Pot) { p.GrantKind = quota.GrantPromotional }),
		with("v-older", func(p *quota.Pot) { p.Start = now - 2*hour }),
		with("a", func(p *quota.Pot) {}),
		with("b", func(p *quota.Pot) {}),
		with("c-last", func(p *quota.Pot) { p.Priority = 6; p.End = now + hour }),
	}
	for _, i := range []int{5, 2, 7, 0, 6, 3, 1, 4} {
		_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", order[i])
		e.must(err)
	}
	n := e.node()
	got := n.drawn(n.draw("acme", n.want(75, 75)))[0]
	e.check(len(got.Allotments) == len(order), "%d allotments, want %d: %+v", len(got.Allotments), len(order), got)
	for i, a := range got.Allotments {
		amount := int64(10)
		if i == 7 {
			amount = 5
		}
		e.same("allotment", a, quota.Allotment{Lane: n.Lane, Number: quota.AllotmentNo(i + 1), Pot: order[i].ID, Amount: amount, NotAfter: order[i].End})
	}
}

func drawManyGrants(e *Env) {
	e.account("acme", "")
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		e.grant("acme", id, 10)
	}
	n := e.node()
	got := n.drawn(n.draw("acme", n.want(100, 100)))[0]
	e.check(len(got.Allotments) == quota.MaxWalletGrants, "a draw touched %d grants, want %d", len(got.Allotments), quota.MaxWalletGrants)
	e.check(got.Available == 20 && got.Escrowed == 80, "available %d, escrowed %d", got.Available, got.Escrowed)
}

func drawOpenGrants(e *Env) {
	e.account("acme", "")
	now := e.Now()
	future := e.newGrant("future", 100)
	future.Start = now + int64(time.Hour)
	_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", future)
	e.must(err)
	ends := e.newGrant("ends", 100)
	ends.End = now + int64(time.Hour)
	_, err = e.Store.CreateGrant(e.ctx, e.mutation(), "acme", ends)
	e.must(err)
	e.grant("acme", "voided", 100)
	_, err = e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "voided")
	e.must(err)
	n := e.node()
	drawAt := func(at int64) quota.Drawn {
		d := n.draw("acme", n.want(10, 10))
		d.Now = at
		return n.drawn(d)[0]
	}
	e.same("pot before", drawAt(now).Allotments[0].Pot, ends.ID)
	e.same("pot at the last moment", drawAt(ends.End - 1).Allotments[0].Pot, ends.ID)
	e.same("pot at the change", drawAt(ends.End).Allotments[0].Pot, future.ID)
	e.figures("acme", "voided", 0, 0, 0, 0, 100, 0)
}

func drawResend(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	e.grant("acme", "two", 1000)
	n := e.node()
	w := e.day("acme", "daily", 900)
	d := n.draw("acme", n.want(1500, 1500), n.windowWant(w, 100, 100))
	first := n.drawn(d)
	e.check(len(first[0].Allotments) == 2 && len(first[1].Allotments) == 1, "drew %+v", first)
	again := n.drawn(d)
	for i := range first {
		e.same("allotments of the draw sent again", again[i].Allotments, first[i].Allotments)
	}
	e.figures("acme", "one", 0, 1000, 0, 0, 0, 0)
	e.figures("acme", "two", 500, 500, 0, 0, 0, 0)
	e.taken("acme", w, 100, 0, 0)
}

func drawResendShrunk(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	d := n.draw("acme", n.want(300, 300))
	n.drawn(d)
	e.must(e.Store.Return(e.ctx, n.Lane, []quota.Shrink{{Number: 1, Sequence: 1, Amount: 100}}))
	again := n.drawn(d)[0]
	e.check(len(again.Allotments) == 1 && again.Allotments[0].Amount == 200, "sent again: %+v, want 200 as it stands", again)
	e.figures("acme", "one", 800, 200, 0, 0, 0, 0)
}

// drawWindow is R33: what is left is the cap without what was taken, and the first draw makes
// the pot.
func drawWindow(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	for _, want := range []struct{ amount, taken int64 }{{50, 50}, {25, 75}, {12, 87}} {
		got := n.drawn(n.draw("acme", n.windowWant(w, 100, 0)))[0]
		e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == want.amount && got.Taken == want.taken,
			"drew %+v, want %+v", got, want)
		e.same("not after", got.Allotments[0].NotAfter, w.End)
		e.same("pot", got.Allotments[0].Pot, w.ID())
	}
	soft := e.day("acme", "soft", quota.Never)
	got := n.drawn(n.draw("acme", n.windowWant(soft, 1<<40, 0)))[0]
	e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 1<<40, "a window without cap gave %+v", got)
	p := e.pot("acme", w.ID())
	e.check(p.Kind == quota.PotBudget && p.Account == "acme" && p.Limit == "daily" && p.Start == w.Start && p.End == w.End, "window pot %+v", p)
}

func drawWindowLowered(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	n.takeWindow("acme", w, 50)
	w.Cap = 40
	got := n.drawn(n.draw("acme", n.windowWant(w, 10, 10)))[0]
	e.check(len(got.Allotments) == 0 && got.Taken == 50, "drew %+v beyond a lowered cap", got)
	w.Cap = 55
	got = n.drawn(n.draw("acme", n.windowWant(w, 10, 10)))[0]
	e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 5, "drew %+v of the 5 left", got)
}

// drawWindowKeys: kind, account, limit, window and selector make the pot.
func drawWindowKeys(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 10)
	others := []quota.WindowPot{w, w, w, w, w}
	others[1].Kind = quota.PotQuota
	others[2].Limit = "other"
	others[3].Start, others[3].End = w.End, w.End+int64(24*time.Hour)
	others[4].Selector = "team/search"
	for _, o := range others {
		d := n.draw("acme", n.windowWant(o, 10, 10))
		d.Now = o.Start
		got := n.drawn(d)[0]
		e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 10, "drew %+v of %+v", got, o)
	}
	for _, o := range others {
		e.taken("acme", o, 10, 0, 0)
	}
}

func drawAllOrNone(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	e.grant("acme", "one", 1000)
	n := e.node()
	d := n.draw("team", n.want(10, 10), n.windowWant(e.day("team", "daily", 100), 10, 10))
	d.Epochs[1].Epoch-- // the payer's
	_, err := e.sendDraw(d)
	e.refused(err, quota.ReasonPolicyChanged)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
	e.check(len(e.pots()) == 1, "a refused draw left pots: %+v", e.pots())
	d.Epochs[1].Epoch++
	for i, got := range n.drawn(d) {
		e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 10, "want %d drew %+v", i, got)
	}
}

// drawEpoch is R12: whoever decided before a change draws nothing after it.
func drawEpoch(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	e.grant("acme", "one", 1000)
	n := e.node()
	changes := map[string]func(){
		"budget": func() {
			_, err := e.Store.PutBudget(e.ctx, e.mutation(), quota.Budget{Account: "team", ID: "daily", Cap: 5, Window: 2}, 0)
			e.must(err)
		},
		"parent's budget": func() {
			_, err := e.Store.PutBudget(e.ctx, e.mutation(), quota.Budget{Account: "acme", ID: "daily", Cap: 5, Window: 2}, 0)
			e.must(err)
		},
		"grant voided": func() {
			e.grant("acme", "gone", 5)
			_, err := e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
			e.must(err)
		},
		"budget deleted": func() {
			_, err := e.Store.PutBudget(e.ctx, e.mutation(), quota.Budget{Account: "team", ID: "short", Cap: 5, Window: 2}, 0)
			e.must(err)
			e.must(e.Store.DeleteBudget(e.ctx, e.mutation(), "team", "short", 0))
		},
	}
	for name, change := range changes {
		d := n.draw("team", n.want(10, 10))
		change()
		_, err := e.sendDraw(d)
		if err == nil {
			e.Fatalf("%s: a draw decided before it was served", name)
		}
		e.refused(err, quota.ReasonPolicyChanged)
		n.take("team", 10)
	}
}

func drawSuspended(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	e.grant("acme", "one", 1000)
	n := e.node()
	_, _, err := e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountSuspended, "fraud")
	e.must(err)
	_, err = e.sendDraw(n.draw("team", n.want(10, 10))) // with the epochs in force
	e.refused(err, quota.ReasonPolicyChanged)
	_, _, err = e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountActive, "")
	e.must(err)
	n.take("team", 10)
}

func drawFenced(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	nobody := &Node{Env: e, ID: "00000000000000000000000000000bad", Lane: 77}
	_, err := e.sendDraw(nobody.draw("acme", nobody.want(10, 10)))
	e.refused(err, quota.ReasonFenced)

	drained := e.node()
	drained.die()
	_, err = e.sendDraw(drained.draw("acme", drained.want(10, 10)))
	e.refused(err, quota.ReasonFenced)

	closing := e.node()
	e.must(e.Store.Fence(e.ctx, closing.Lane))
	_, err = e.sendDraw(closing.draw("acme", closing.want(10, 10)))
	e.refused(err, quota.ReasonFenced)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}

// drawLeaseRanOut: by the database's time, whatever the node thinks (R44).
func drawLeaseRanOut(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.nodeFor(300*time.Millisecond, hold)
	d := n.draw("acme", n.want(10, 10))
	d.Now = n.Grant.Now // the node's clock stands still
	e.eventually("the lease runs out", func() bool { return e.Now() > n.Grant.IssueUntil+int64(50*time.Millisecond) })
	_, err := e.sendDraw(d)
	e.refused(err, quota.ReasonFenced)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}

// drawDebt is R50: while there is debt the wallet gives nothing, windows do.
func drawDebt(e *Env) {
	e.account("acme", "")
	n := e.node()
	n.append(n.commit("acme", wallet(40)))
	n.project()
	e.same("debt", e.debt("acme"), int64(40))
	e.grant("acme", "too-small", 30)
	w := e.day("acme", "daily", 100)
	got := n.drawn(n.draw("acme", n.want(10, 10), n.windowWant(w, 10, 10)))
	e.check(len(got[0].Allotments) == 0 && got[0].Debt == 10, "with 10 owed the wallet answered %+v", got[0])
	e.check(len(got[1].Allotments) == 1, "the window answered %+v", got[1])
	e.grant("acme", "enough", 30)
	n.take("acme", 20)
	e.figures("acme", "enough", 0, 20, 0, 0, 0, 10)
}

func drawNothing(e *Env) {
	e.account("acme", "")
	n := e.node()
	got := n.drawn(n.draw("acme", n.want(10, 10)))[0]
	e.same("drawn from no grants", got, quota.Drawn{})
	e.grant("acme", "one", 1)
	got = n.drawn(n.draw("acme", n.want(10, 0)))[0]
	e.check(len(got.Allotments) == 0 && got.Available == 1, "half of 1 is nothing, drew %+v", got)
}

// drawResendPolicy: what an earlier sending drew is told, though a draw would be refused now.
// Else its allotments would be known to nobody until the lane closes.
func drawResendPolicy(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	d := n.draw("acme", n.want(300, 0))
	first := n.drawn(d)[0]
	_, _, err := e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountSuspended, "unpaid")
	e.must(err)
	d.Again = true
	e.same("sent again behind a suspension", n.drawn(d)[0].Allotments, first.Allotments)
	e.figures("acme", "one", 700, 300, 0, 0, 0, 0)
}

// drawTrace: a draw sent again that drew nothing is settled: a sending of it that lands later,
// when there is something to be had, draws nothing either.
func drawTrace(e *Env) {
	e.account("acme", "")
	n := e.node()
	d := n.draw("acme", n.want(300, 300), n.windowWant(e.day("acme", "daily", 0), 10, 10))
	again := d
	again.Again = true
	for i, got := range n.drawn(again) {
		e.check(len(got.Allotments) == 0, "want %d drew %+v from nothing", i, got)
	}
	e.grant("acme", "one", 1000)
	for i, got := range n.drawn(d) {
		e.check(len(got.Allotments) == 0, "want %d of the late sending drew %+v", i, got)
	}
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}

// drawLeast: a pot that has less than would do for anybody gives nothing (R28).
func drawLeast(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	wallet, day := n.want(5000, 5000), n.windowWant(e.day("acme", "daily", 100), 500, 500)
	wallet.Least, day.Least = 1001, 101
	for i, got := range n.drawn(n.draw("acme", wallet, day)) {
		e.check(len(got.Allotments) == 0, "want %d drew %+v", i, got)
	}
	wallet, day = n.want(5000, 5000), n.windowWant(e.day("acme", "daily", 100), 500, 500)
	wallet.Least, day.Least = 1000, 100
	for i, got := range n.drawn(n.draw("acme", wallet, day)) {
		e.check(len(got.Allotments) == 1, "want %d drew %+v", i, got)
	}
	e.figures("acme", "one", 0, 1000, 0, 0, 0, 0)
}
