package storagetest

import (
	"fmt"
	"slices"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
)

func accountTests() []Test {
	return []Test{
		{"CreateAndRead", accountCreate},
		{"ChainToThePayer", accountChain},
		{"ChainIsBounded", accountDepth},
		{"Update", accountUpdate},
		{"Subscribe", accountSubscribe},
		{"Suspend", accountSuspend},
		{"List", accountList},
		{"ProfileHasBudgets", accountProfile},
		{"ProfilesInOrder", accountProfiles},
	}
}

func (e *Env) profile(account string) *quota.Profile {
	e.Helper()
	p, err := e.Store.Profile(e.ctx, account)
	e.must(err)
	return p
}

func accountCreate(e *Env) {
	got, err := e.Store.CreateAccount(e.ctx, e.mutation(), quota.Account{ID: "acme", DisplayName: "Ä", TimeZone: "Europe/Berlin"})
	e.must(err)
	e.check(got.Payer == "acme" && got.Status == quota.AccountActive && got.Revision == 1 && got.CreateTime > 0, "created %+v", got)
	p := e.profile("acme")
	e.same("profile", p.Chain, []quota.Account{got})
	e.same("revision", p.Revision, int64(1))
	_, err = e.Store.CreateAccount(e.ctx, e.mutation(), quota.Account{ID: "acme", TimeZone: "UTC"})
	e.refused(err, quota.ReasonResourceExists)
	_, err = e.Store.CreateAccount(e.ctx, e.mutation(), quota.Account{ID: "orphan", Parent: "none", TimeZone: "UTC"})
	e.refused(err, quota.ReasonAccountNotFound)
	_, err = e.Store.Profile(e.ctx, "orphan")
	e.refused(err, quota.ReasonAccountNotFound)
}

func accountChain(e *Env) {
	e.account("root", "")
	e.account("team", "root")
	e.account("agent", "team")
	p := e.profile("agent")
	var ids []string
	for _, a := range p.Chain {
		ids = append(ids, a.ID)
		e.same("payer", a.Payer, "root")
	}
	e.same("chain", ids, []string{"agent", "team", "root"})
	e.grant("agent", "one", 100)
	e.figures("root", "one", 100, 0, 0, 0, 0, 0)
}

func accountDepth(e *Env) {
	parent := ""
	for i := range quota.MaxAccountDepth {
		id := fmt.Sprintf("level-%d", i)
		e.account(id, parent)
		parent = id
	}
	e.same("depth", len(e.profile(parent).Chain), quota.MaxAccountDepth)
	_, err := e.Store.CreateAccount(e.ctx, e.mutation(), quota.Account{ID: "too-deep", Parent: parent, TimeZone: "UTC"})
	e.refused(err, quota.ReasonRequestInvalid)
}

func accountUpdate(e *Env) {
	a := e.account("acme", "")
	seen := a.Revision
	a.DisplayName, a.TimeZone = "new", "Asia/Kathmandu"
	got, err := e.Store.UpdateAccount(e.ctx, e.mutation(), a, seen)
	e.must(err)
	e.check(got.DisplayName == "new" && got.TimeZone == "Asia/Kathmandu" && got.Revision > seen, "updated %+v", got)
	e.same("read", *e.profile("acme").Account(), got)
	_, err = e.Store.UpdateAccount(e.ctx, e.mutation(), a, seen)
	e.refused(err, quota.ReasonETagMismatch)
	_, err = e.Store.UpdateAccount(e.ctx, e.mutation(), quota.Account{ID: "none", TimeZone: "UTC"}, 0)
	e.refused(err, quota.ReasonAccountNotFound)
	e.same("after a refused update", *e.profile("acme").Account(), got)
}

func accountSubscribe(e *Env) {
	e.feature("chat", "output_tokens")
	e.rateCard("standard", quota.Price{Feature: "chat", Meter: "output_tokens", Rate: pricing.Rate{Per: 1}})
	for range 2 {
		e.plan(authz.Plan{ID: "basic", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "chat"}}})
	}
	e.account("acme", "")
	e.account("team", "acme")
	subscribe := func(ref authz.PlanRef) (quota.Account, error) {
		return e.Store.Subscribe(e.ctx, e.mutation(), "acme", ref)
	}
	got, err := subscribe(authz.PlanRef{ID: "basic"})
	e.must(err)
	e.same("the latest", got.Plan, authz.PlanRef{ID: "basic", Version: 2})
	got, err = subscribe(authz.PlanRef{ID: "basic", Version: 1})
	e.must(err)
	e.same("pinned", got.Plan, authz.PlanRef{ID: "basic", Version: 1})
	plan, ok := e.profile("team").Plan()
	e.check(ok && plan == got.Plan, "a member has plan %+v, %t", plan, ok)
	for _, ref := range []authz.PlanRef{{ID: "none"}, {ID: "basic", Version: 3}} {
		_, err = subscribe(ref)
		e.refused(err, quota.ReasonPlanNotFound)
	}
	_, err = subscribe(authz.PlanRef{})
	e.must(err)
	_, ok = e.profile("team").Plan()
	e.check(!ok, "a subscription that was ended goes on")
}

func accountSuspend(e *Env) {
	a := e.account("acme", "")
	got, revision, err := e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountSuspended, "unpaid")
	e.must(err)
	e.check(got.Status == quota.AccountSuspended && got.SuspendReason == "unpaid" && got.Epoch > a.Epoch && revision == a.Revision+1,
		"suspended %+v at revision %d", got, revision)
	e.same("read", *e.profile("acme").Account(), got)
	got, _, err = e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountActive, "")
	e.must(err)
	e.check(got.Status == quota.AccountActive && got.SuspendReason == "", "resumed %+v", got)
	_, _, err = e.Store.SetStatus(e.ctx, e.mutation(), "none", quota.AccountSuspended, "")
	e.refused(err, quota.ReasonAccountNotFound)
}

func accountList(e *Env) {
	for _, id := range []string{"b", "a", "Z", "c", "d-e", "d"} {
		e.account(id, "")
	}
	var got []string
	page := quota.Page{Size: 2}
	for range 10 {
		list, err := e.Store.ListAccounts(e.ctx, page)
		e.must(err)
		e.check(len(list) <= 2, "a page of %d accounts, want at most 2", len(list))
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			got = append(got, a.ID)
		}
		page.After = got[len(got)-1]
	}
	slices.Sort(got) // In which order is the database's business, once each is not.
	e.same("accounts", got, []string{"Z", "a", "b", "c", "d", "d-e"})
}

func accountProfile(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	put := func(b quota.Budget) quota.Budget {
		got, err := e.Store.PutBudget(e.ctx, e.mutation(), b, 0)
		e.must(err)
		return got
	}
	b := put(quota.Budget{Account: "team", ID: "b", Cap: 5, Window: window.Day, LabelKey: "user", Soft: true, WarnPercent: 80})
	a := put(quota.Budget{Account: "team", ID: "a", Unit: "output_tokens", Cap: 1 << 53, Window: window.Month, LabelKey: "team", LabelValue: "x"})
	root := put(quota.Budget{Account: "acme", ID: "all", Cap: 9, Window: window.Lifetime})
	p := e.profile("team")
	e.same("budgets", p.Budgets, [][]quota.Budget{{a, b}, {root}})
	e.same("revision", p.Revision, root.Revision)
}

func accountProfiles(e *Env) {
	e.account("acme", "")
	e.account("team", "acme")
	_, err := e.Store.PutBudget(e.ctx, e.mutation(), quota.Budget{Account: "team", ID: "b", Cap: 5, Window: window.Day}, 0)
	e.must(err)
	asked := []string{"team", "none", "acme", "team"}
	found, err := e.Store.Profiles(e.ctx, asked)
	e.must(err)
	e.same("answers", len(found), len(asked))
	for i, id := range asked {
		if id == "none" {
			e.refused(found[i].Err, quota.ReasonAccountNotFound)
			continue
		}
		e.must(found[i].Err)
		e.same("profile of "+id, *found[i].Profile, *e.profile(id))
	}
	found, err = e.Store.Profiles(e.ctx, nil)
	e.must(err)
	e.same("answers to nothing", len(found), 0)
}
