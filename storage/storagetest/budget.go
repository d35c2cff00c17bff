package storagetest

import (
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
)

func budgetTests() []Test {
	return []Test{
		{"PutAndDelete", budgetPut},
		{"ETags", budgetETags},
		{"KeepsWhatItCounts", budgetKeeps},
	}
}

func budgetPut(e *Env) {
	a := e.account("acme", "")
	b := quota.Budget{Account: "acme", ID: "daily", Cap: 100, Window: window.Day, WarnPercent: 80}
	got, err := e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	b.Revision, b.CreateTime = got.Revision, got.CreateTime
	e.same("created", got, b)
	e.check(e.profile("acme").Account().Epoch > a.Epoch, "a budget does not move the epoch (R12)")
	b.Cap, b.Soft, b.WarnPercent = 50, true, 0
	got, err = e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	b.Revision = got.Revision
	e.same("changed", e.profile("acme").Budgets, [][]quota.Budget{{b}})
	e.must(e.Store.DeleteBudget(e.ctx, e.mutation(), "acme", "daily", 0))
	e.check(len(e.profile("acme").Budgets[0]) == 0, "a deleted budget is there")
	e.refused(e.Store.DeleteBudget(e.ctx, e.mutation(), "acme", "daily", 0), quota.ReasonBudgetNotFound)
	b.Account = "none"
	_, err = e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.refused(err, quota.ReasonAccountNotFound)
}

func budgetETags(e *Env) {
	e.account("acme", "")
	b := quota.Budget{Account: "acme", ID: "daily", Cap: 100, Window: window.Day}
	first, err := e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	b.Cap = 70
	second, err := e.Store.PutBudget(e.ctx, e.mutation(), b, first.Revision)
	e.must(err)
	b.Cap = 60
	_, err = e.Store.PutBudget(e.ctx, e.mutation(), b, first.Revision)
	e.refused(err, quota.ReasonETagMismatch)
	e.refused(e.Store.DeleteBudget(e.ctx, e.mutation(), "acme", "daily", first.Revision), quota.ReasonETagMismatch)
	e.same("cap", e.profile("acme").Budgets[0][0].Cap, int64(70))
	e.must(e.Store.DeleteBudget(e.ctx, e.mutation(), "acme", "daily", second.Revision))
}

// budgetKeeps is R33: a budget that is changed, or deleted and made again, goes on counting.
func budgetKeeps(e *Env) {
	e.account("acme", "")
	b := quota.Budget{Account: "acme", ID: "daily", Cap: 100, Window: window.Day}
	_, err := e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	n := e.node()
	w := e.day("acme", "daily", 100)
	n.takeWindow("acme", w, 40)
	b.Cap = 60
	_, err = e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	e.must(e.Store.DeleteBudget(e.ctx, e.mutation(), "acme", "daily", 0))
	_, err = e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
	e.must(err)
	w.Cap = 60
	got := n.drawn(n.draw("acme", n.windowWant(w, 100, 100)))[0]
	e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 20, "of 20 left drew %+v", got)
}
