package apitest

import (
	"time"

	"google.golang.org/protobuf/proto"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func overCommit(c *conversation) {
	c.shop()
	c.account("acme", "", 4*credit)
	c.say("all there is is held; real usage is charged all the same")
	token := c.reserve(work("acme", "large", 1000))
	c.commit(token, 1000, 3000)
	c.commit(token, 1000, 3000)
	c.say("what no grant paid is debt, and nothing is reserved on debt")
	c.balance(asGate, "acme")
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "large", 1000))
	c.say("a grant pays a part of it, the next one the rest")
	call(c, asAdmin, c.accounts.CreateGrant, grant("acme", "part", credit))
	c.balance(asGate, "acme")
	call(c, asAdmin, c.accounts.CreateGrant, grant("acme", "rest", 10*credit))
	c.balance(asGate, "acme")
	c.say("and so work may start again")
	c.commit(c.reserve(work("acme", "large", 500)), 1000, 500)
	c.quiesce()
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
}

func lateCommit(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	token := c.reserve(holdFor(work("acme", "large", 1000), time.Second))
	other := c.reserve(holdFor(work("acme", "large", 1000), time.Second))
	c.await("both holds have expired", func() bool { return c.engine.Status().Reservations == 0 })
	c.say("behind the expiry it is charged once, as late")
	c.balance(asGate, "acme")
	c.commit(token, 1000, 1000)
	c.commit(token, 1000, 1000)
	c.commit(token, 1000, 1001)
	c.say("a release finds it expired")
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: other})
	c.quiesce()
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
}

// sofar reports in between that tokens were used.
func sofar(token []byte, in, out int64) *purserv1.CommitRequest {
	req := used(token, in, out)
	req.Final = proto.Bool(false)
	return req
}

func interimCommits(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	settled := c.reserve(work("acme", "large", 1000))
	c.say("a report in between is noted, and charges nothing; the most counts, in whatever order they come")
	call(c, asGate, c.authority.Commit, sofar(settled, 1000, 300))
	call(c, asGate, c.authority.Commit, sofar(settled, 1000, 800))
	call(c, asGate, c.authority.Commit, sofar(settled, 1000, 500))
	c.balance(asGate, "acme")
	c.say("a commit counts as it says; afterwards nothing is reported any more")
	c.commit(settled, 1000, 700)
	call(c, asGate, c.authority.Commit, sofar(settled, 1000, 900))
	c.say("usage delivered behind a release is no business of a report in between")
	strange := sofar(settled, 1, 1)
	strange.UsageDelivered = true
	call(c, asGate, c.authority.Commit, strange)
	c.say("what nobody settles is charged as it was reported when it expires")
	left := c.reserve(holdFor(work("acme", "large", 1000), time.Second))
	report := sofar(left, 1000, 400)
	report.Outcome, report.Labels = purserv1.Outcome_OUTCOME_USER_CANCELLED, map[string]string{"task": "summary"}
	call(c, asGate, c.authority.Commit, report)
	c.await("the hold has expired", func() bool { return c.engine.Status().Reservations == 0 })
	c.quiesce()
	call(c, asGate, c.authority.Commit, sofar(left, 1000, 500))
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
	c.say("a late commit of more charges the rest, once")
	c.commit(left, 1000, 1000)
	c.commit(left, 1000, 1000)
	c.say("one of less charges nothing beside it")
	less := c.reserve(holdFor(work("acme", "large", 1000), time.Second))
	call(c, asGate, c.authority.Commit, sofar(less, 1000, 400))
	c.await("that has expired too", func() bool { return c.engine.Status().Reservations == 0 })
	c.quiesce()
	c.commit(less, 1000, 100)
	c.quiesce()
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
}

func budgetsByLabel(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.account("acme:search", "acme", 0)
	each := budget("acme", "each-user", 5*credit)
	each.Selector, each.WarnPercent = &purserv1.Selector{LabelKey: "user"}, 50
	must(c.world, asAdmin, c.accounts.PutBudget, each)
	one := budget("acme:search", "eve", 1000)
	one.Unit, one.Selector = "output_tokens", &purserv1.Selector{LabelKey: "user", LabelValue: "eve"}
	must(c.world, asAdmin, c.accounts.PutBudget, one)
	ask := func(account, user string) *purserv1.CheckAndReserveRequest {
		return labelled(work(account, "large", 1000), "user", user)
	}
	c.say("each user has five credits, over all accounts below; from half of it on there are warnings")
	c.commit(c.reserve(ask("acme:search", "ann")), 1000, 1000)
	c.say("ann has one left: the large model denies, and the plan falls back to the small one")
	c.commit(c.reserve(ask("acme", "ann")), 1000, 1000)
	c.say("bob has his own; who names no user is counted for none")
	c.commit(c.reserve(ask("acme:search", "bob")), 1000, 1000)
	c.commit(c.reserve(work("acme:search", "large", 1000)), 1000, 1000)
	c.say("eve has a thousand output tokens in one account, whatever they cost")
	eve := func(out int64) *purserv1.CheckAndReserveRequest {
		return labelled(work("acme:search", "small", out), "user", "eve")
	}
	c.commit(c.reserve(eve(1000)), 1000, 999)
	call(c, asGate, c.authority.CheckAndReserve, atLeast(eve(1000), 2))
	c.say("usage above the cap is charged, and counted")
	c.commit(c.reserve(eve(1)), 0, 10)
	call(c, asGate, c.authority.CheckAndReserve, eve(1))
	c.balance(asViewer, "acme:search")
	c.say("without that budget she goes on")
	must(c.world, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "acme:search", Id: "eve"})
	c.commit(c.reserve(eve(1)), 0, 1)
}

func voidGrant(c *conversation) {
	c.shop()
	c.account("acme", "", 4*credit)
	token := c.reserve(work("acme", "large", 1000))
	must(c.world, asAdmin, c.accounts.CreateGrant, grant("acme", "gift", credit))
	c.say("one that nobody has drawn is gone at once")
	call(c, asAdmin, c.accounts.VoidGrant, &purserv1.VoidGrantRequest{Account: "acme", Grant: "gift"})
	c.balance(asGate, "acme")
	c.say("what is held of one can still be committed")
	call(c, asAdmin, c.accounts.VoidGrant, &purserv1.VoidGrantRequest{Account: "acme", Grant: "first"})
	c.commit(token, 1000, 1000)
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "small", 1000))
	c.say("a new grant pays from then on")
	call(c, asAdmin, c.accounts.CreateGrant, grant("acme", "second", 20*credit))
	c.commit(c.reserve(work("acme", "large", 2000)), 1000, 2000)
	c.quiesce()
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
}

func checkAndBalance(c *conversation) {
	c.shop()
	c.account("acme", "", 5*credit)
	check := func(feature string, out int64) {
		r := work("acme", feature, out)
		call(c, asGate, c.authority.Check, &purserv1.CheckRequest{Account: r.Account, Candidates: r.Candidates, Estimates: r.Estimates})
	}
	c.say("a quote holds nothing: asking twice is the same as once")
	check("large", 1000)
	check("large", 1000)
	c.balance(asViewer, "acme")
	c.say("with four credits held, one is left")
	token := c.reserve(work("acme", "large", 1000))
	c.balance(asGate, "acme")
	check("large", 1000)
	check("forbidden", 1000)
	check("unpriced", 1000)
	r := atLeast(work("acme", "small", 10_000), 1)
	call(c, asViewer, c.authority.Check, &purserv1.CheckRequest{Account: r.Account, Candidates: r.Candidates, Estimates: r.Estimates})
	call(c, asGate, c.authority.Check, &purserv1.CheckRequest{Account: "nowhere", Candidates: []string{"large"}})
	c.say("settled with half of it")
	c.commit(token, 1000, 333)
	c.balance(asGate, "acme")
	call(c, asGate, c.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "nowhere"})
}

func usageAndRollups(c *conversation) {
	c.shop()
	c.account("acme", "", 0)
	c.account("acme:search", "acme", 0)
	promo := grant("acme", "promo", 3*credit)
	promo.Kind = purserv1.GrantKind_GRANT_KIND_PROMOTIONAL
	must(c.world, asAdmin, c.accounts.CreateGrant, promo)
	commit := func(account, feature string, in, out int64, outcome purserv1.Outcome, labels map[string]string) {
		r := work(account, feature, out)
		r.Labels = map[string]string{"team": "search"}
		req := used(must(c.world, asGate, c.authority.CheckAndReserve, r).GetReservation().GetToken(), in, out)
		req.Outcome, req.Labels = outcome, labels
		call(c, asGate, c.authority.Commit, req)
	}
	c.say("commits with outcomes and labels learnt late; those reserved with win")
	commit("acme", "small", 1000, 1000, purserv1.Outcome_OUTCOME_SUCCESS, map[string]string{"tool": "search", "team": "x"})
	commit("acme:search", "small", 500, 0, purserv1.Outcome_OUTCOME_ERROR, nil)
	commit("acme:search", "small", 100, 50, purserv1.Outcome_OUTCOME_REFUSED, nil)
	commit("acme:search", "counted", 10, 20, purserv1.Outcome_OUTCOME_UNSPECIFIED, nil)
	c.quiesce()
	c.say("events of the account itself, in pages")
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	page := call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme:search", PageSize: 2})
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme:search", PageSize: 2, PageToken: page.GetNextPageToken()})
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "nowhere"})
	c.say("rollups by account, hour, feature and meter")
	call(c, asViewer, c.usage.GetRollups, &purserv1.GetRollupsRequest{})
	some := call(c, asViewer, c.usage.GetRollups, &purserv1.GetRollupsRequest{Account: "acme:search", Feature: "small", PageSize: 2})
	call(c, asViewer, c.usage.GetRollups, &purserv1.GetRollupsRequest{Account: "acme:search", Feature: "small", PageSize: 2, PageToken: some.GetNextPageToken()})
	call(c, asViewer, c.usage.GetRollups, &purserv1.GetRollupsRequest{Account: "nowhere"})
}
