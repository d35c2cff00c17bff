package storagetest

import (
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
)

func grantTests() []Test {
	return []Test{
		{"CreateAndRead", grantCreate},
		{"Refused", grantRefused},
		{"PaysDebtFirst", grantPaysDebt},
		{"Void", grantVoid},
		{"List", grantList},
		{"Pots", grantPots},
	}
}

func grantCreate(e *Env) {
	a := e.account("acme", "")
	g := e.newGrant("one", 1<<53)
	g.GrantKind, g.Priority, g.CostBasis, g.Note, g.End = quota.GrantPromotional, 1000, "0.7 EUR", "hello\n", e.Now()+int64(time.Hour)
	got, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", g)
	e.must(err)
	g.Payer, g.Account, g.Available, g.CreateTime = "acme", got.Account, g.Granted, got.CreateTime
	e.same("created", got, g)
	e.same("read", e.pot("acme", g.ID), g)
	_, err = e.Store.CreateGrant(e.ctx, e.mutation(), "acme", e.newGrant("one", 5))
	e.refused(err, quota.ReasonResourceExists)
	e.same("epoch: a grant lets draws go on", e.profile("acme").Account().Epoch, a.Epoch)
	_, err = e.Store.CreateGrant(e.ctx, e.mutation(), "none", e.newGrant("two", 5))
	e.refused(err, quota.ReasonAccountNotFound)
}

func grantRefused(e *Env) {
	e.account("acme", "")
	for _, amount := range []int64{0, -5, 1<<53 + 1} {
		_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", e.newGrant("g", amount))
		e.refused(err, quota.ReasonAmountInvalid)
	}
	e.check(len(e.pots()) == 0, "refused grants left pots")
}

// grantPaysDebt is R50: in the grant's own transaction, and what it paid is a direct debit.
func grantPaysDebt(e *Env) {
	e.account("acme", "")
	n := e.node()
	n.append(n.commit("acme", wallet(100)))
	n.project()
	e.same("debt", e.debt("acme"), int64(100))
	g := e.grant("acme", "small", 30)
	e.check(g.Available == 0 && g.Direct == 30, "a grant of 30 with 100 owed: %+v", g)
	e.same("debt", e.debt("acme"), int64(70))
	e.grant("acme", "large", 100)
	e.figures("acme", "large", 30, 0, 0, 0, 0, 70)
	e.same("debt", e.debt("acme"), int64(0))
	e.grant("acme", "next", 10)
	e.figures("acme", "next", 10, 0, 0, 0, 0, 0)
}

func grantVoid(e *Env) {
	e.account("acme", "")
	e.grant("acme", "gone", 100)
	epoch := e.profile("acme").Account().Epoch
	got, err := e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
	e.must(err)
	e.check(got.Voided && got.Available == 0 && got.Refunded == 100, "voided %+v", got)
	e.check(e.profile("acme").Account().Epoch > epoch, "nodes that may draw are not told (R12)")
	again, err := e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
	e.must(err)
	e.same("voided again", again, got)
	_, err = e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "none")
	e.refused(err, quota.ReasonGrantNotFound)
	_, err = e.Store.VoidGrant(e.ctx, e.mutation(), "none", "gone")
	e.refused(err, quota.ReasonAccountNotFound)
}

func grantList(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	e.account("other", "")
	want := map[string]bool{}
	for _, id := range []string{"c", "a", "b", "d", "e"} {
		want[e.grant("acme", id, 10).ID] = true
	}
	e.grant("other", "x", 10)
	n := e.node()
	n.takeWindow("acme", e.day("acme", "daily", 10), 1)
	got := map[string]bool{}
	page := quota.Page{Size: 2}
	for range 10 {
		list, err := e.Store.ListGrants(e.ctx, "team", page)
		e.must(err)
		for _, g := range list {
			e.check(!got[g.ID], "grant %s is listed twice", g.ID)
			got[g.ID] = true
			page.After = g.ID
		}
		if len(list) == 0 {
			break
		}
	}
	e.same("grants", got, want)
	_, err := e.Store.ListGrants(e.ctx, "none", page)
	e.refused(err, quota.ReasonAccountNotFound)
}

// grantPots: what is open at the time asked about.
func grantPots(e *Env) {
	e.account("acme", "")
	now := e.Now()
	e.grant("acme", "one", 10)
	short := e.newGrant("short", 10)
	short.End = now + int64(time.Hour)
	_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", short)
	e.must(err)
	e.grant("acme", "gone", 10)
	_, err = e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
	e.must(err)
	n := e.node()
	w := e.day("acme", "daily", 10)
	w.Window = window.Day
	n.takeWindow("acme", w, 4)
	at := func(at int64) (out []string) {
		pots, debt, err := e.Store.Pots(e.ctx, "acme", at)
		e.must(err)
		e.same("debt", debt, int64(0))
		for _, p := range pots {
			out = append(out, p.ID)
		}
		return out
	}
	e.same("pots now", len(at(now)), 3)
	e.same("pots when the grant has expired", len(at(max(short.End, w.End))), 1)
	pots, _, err := e.Store.Pots(e.ctx, "none", now)
	e.must(err)
	e.check(len(pots) == 0, "pots of nobody: %+v", pots)
}
