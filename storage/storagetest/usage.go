package storagetest

import (
	"slices"

	"github.com/purser-io/purser/quota"
)

func usageTests() []Test {
	return []Test{
		{"EventsComeBackWhole", usageEvents},
		{"EventsBySelection", usageSelection},
		{"EventsByPage", usagePages},
		{"RollupsByPage", usageRollupPages},
		{"NotOneOfOurPages", usageBadPage},
	}
}

func usageEvents(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100)
	e.grant("acme", "two", 100)
	n := e.node()
	got := n.drawn(n.draw("acme", n.want(150, 150)))[0].Allotments
	r := n.commit("acme", wallet(140, part(got[0], 100), part(got[1], 30)))
	n.append(r)
	n.project()
	events, next, err := e.Store.UsageEvents(e.ctx, quota.UsageQuery{}, quota.Page{Size: 10})
	e.must(err)
	e.same("next page", next, "")
	e.same("events", events, []quota.UsageEvent{{Key: r.EntryKey, Nonce: r.Nonce, Account: "acme", Payer: "acme", Principal: r.Principal, Feature: r.Feature,
		Labels: map[string]string{"team": "search", "user": "zoë"}, PriceVersion: r.PriceVersion, Usage: r.Usage, Lines: r.Lines,
		Charged: 140, Covered: 130, Uncovered: 10, Grants: []quota.GrantUse{{Grant: "one", Micros: 100}, {Grant: "two", Micros: 30}},
		Outcome: quota.OutcomeSuccess, ReservedAt: r.ReservedAt, SettledAt: r.SettledAt}})
}

// usageOf settles records at given times, in the order given.
func usageOf(n *Node, account, feature string, times ...int64) {
	n.Helper()
	for _, at := range times {
		r := n.commit(account, wallet(1))
		r.SettledAt, r.Feature = at, feature
		n.append(r)
	}
}

func usageSelection(e *Env) {
	e.account("acme", "")
	e.account("beta", "")
	n := e.node()
	usageOf(n, "acme", "chat", 100, 200, 300)
	usageOf(n, "acme", "images", 150)
	usageOf(n, "beta", "chat", 250)
	n.project()
	times := func(q quota.UsageQuery) (out []int64) {
		events, _, err := e.Store.UsageEvents(e.ctx, q, quota.Page{Size: 100})
		e.must(err)
		for _, u := range events {
			out = append(out, u.SettledAt)
		}
		return out
	}
	e.same("all", times(quota.UsageQuery{}), []int64{100, 150, 200, 250, 300})
	e.same("of an account", times(quota.UsageQuery{Account: "acme"}), []int64{100, 150, 200, 300})
	e.same("of a feature", times(quota.UsageQuery{Feature: "chat"}), []int64{100, 200, 250, 300})
	e.same("of a time", times(quota.UsageQuery{Account: "acme", From: 150, To: 300}), []int64{150, 200})
	e.same("of nobody", times(quota.UsageQuery{Account: "none"}), []int64(nil))
}

// usagePages: every event once, though several were settled at the same instant.
func usagePages(e *Env) {
	e.account("acme", "")
	one, two := e.node(), e.node()
	usageOf(one, "acme", "chat", 5, 5, 5, 9, 7)
	usageOf(two, "acme", "chat", 5, 5, 8)
	one.project()
	two.project()
	for _, account := range []string{"acme", ""} {
		var keys []quota.EntryKey
		var times []int64
		after := ""
		for range 20 {
			events, next, err := e.Store.UsageEvents(e.ctx, quota.UsageQuery{Account: account}, quota.Page{After: after, Size: 2})
			e.must(err)
			e.check(len(events) <= 2, "a page of %d events", len(events))
			for _, u := range events {
				e.check(!slices.Contains(keys, u.Key), "event %+v comes twice", u.Key)
				keys, times = append(keys, u.Key), append(times, u.SettledAt)
			}
			if after = next; next == "" {
				break
			}
		}
		e.same("times", times, []int64{5, 5, 5, 5, 5, 7, 8, 9})
	}
}

func usageRollupPages(e *Env) {
	const hour = 3600e9
	e.account("acme", "")
	n := e.node()
	usageOf(n, "acme", "chat", hour, 2*hour, 3*hour)
	usageOf(n, "acme", "images", hour)
	n.project()
	var got []quota.Rollup
	after := ""
	for range 20 {
		rollups, next, err := e.Store.Rollups(e.ctx, quota.UsageQuery{Account: "acme"}, quota.Page{After: after, Size: 3})
		e.must(err)
		e.check(len(rollups) <= 3, "a page of %d rollups", len(rollups))
		got = append(got, rollups...)
		if after = next; next == "" {
			break
		}
	}
	e.check(len(got) == 8, "%d rollups, want 4 hours and features of 2 meters: %+v", len(got), got)
	e.check(slices.IsSortedFunc(got, func(a, b quota.Rollup) int { return int(a.Hour - b.Hour) }), "not in order of hours: %+v", got)
	got, _, err := e.Store.Rollups(e.ctx, quota.UsageQuery{Feature: "images"}, quota.Page{Size: 10})
	e.must(err)
	e.check(len(got) == 2, "rollups of a feature: %+v", got)
}

func usageBadPage(e *Env) {
	_, _, err := e.Store.UsageEvents(e.ctx, quota.UsageQuery{}, quota.Page{After: "nonsense!", Size: 2})
	e.refused(err, quota.ReasonRequestInvalid)
	_, _, err = e.Store.Rollups(e.ctx, quota.UsageQuery{}, quota.Page{After: "nonsense!", Size: 2})
	e.refused(err, quota.ReasonRequestInvalid)
}
