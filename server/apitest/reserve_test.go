package apitest

import (
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func reserveAndCommit(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.say("hold what it may cost, charge what it did")
	token := c.reserve(holdFor(work("acme", "large", 1000), 20*time.Second))
	req := used(token, 1000, 500)
	req.Outcome = purserv1.Outcome_OUTCOME_SUCCESS
	call(c, asGate, c.authority.Commit, req)
	c.say("the same again is a replay, in whatever order the meters are")
	req.Usage[0], req.Usage[1] = req.Usage[1], req.Usage[0]
	call(c, asGate, c.authority.Commit, req)
	c.say("other usage is refused, and so is a release")
	c.commit(token, 1000, 501)
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: token})
	c.say("usage of nothing is free; no estimate holds nothing; a free model costs nothing")
	token = c.reserve(&purserv1.CheckAndReserveRequest{Account: "acme", Candidates: []string{"large"}})
	call(c, asGate, c.authority.Commit, &purserv1.CommitRequest{Token: token})
	c.commit(c.reserve(work("acme", "counted", 1000)), 1000, 1000)
	c.commit(c.reserve(work("acme", "small", 7)), 1, 7)
	c.balance(asGate, "acme")
}

func releaseThenCommit(c *conversation) {
	c.shop()
	c.account("acme", "", 4*credit)
	c.say("released, and released again")
	token := c.reserve(work("acme", "large", 1000))
	release := &purserv1.ReleaseRequest{Token: token, Outcome: purserv1.Outcome_OUTCOME_USER_CANCELLED}
	call(c, asGate, c.authority.Release, release)
	call(c, asGate, c.authority.Release, release)
	c.balance(asGate, "acme")
	c.say("a commit behind it is refused, unless the usage was delivered")
	c.commit(token, 1000, 0)
	delivered := used(token, 1000, 0)
	delivered.UsageDelivered = true
	call(c, asGate, c.authority.Commit, delivered)
	call(c, asGate, c.authority.Commit, delivered)
	c.balance(asGate, "acme")
}

func idempotencyKeys(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.account("other", "", 100*credit)
	req := work("acme", "large", 1000)
	req.IdempotencyKey = "job-1"
	c.say("the same key with the same content is the same reservation")
	token := c.reserve(req)
	c.reserve(req)
	c.say("with other content it is refused")
	more := work("acme", "large", 1001)
	more.IdempotencyKey = "job-1"
	call(c, asGate, c.authority.CheckAndReserve, more)
	c.say("for another account, or from another principal, it is another key")
	more.Account = "other"
	c.reserve(more)
	must(c.world, asAdmin, c.authority.CheckAndReserve, more)
	c.say("a replay after the commit is still the same reservation, and charges nothing more")
	c.commit(token, 1000, 1000)
	c.commit(c.reserve(req), 1000, 1000)
	c.say("a denial is not remembered")
	c.account("poor", "", credit)
	dear := work("poor", "large", 1000)
	dear.IdempotencyKey, dear.Candidates = "job-2", []string{"small", "large"}
	dear.Estimates[0].Quantity = 100_000
	call(c, asGate, c.authority.CheckAndReserve, dear)
	must(c.world, asAdmin, c.accounts.CreateGrant, grant("poor", "more", 100*credit))
	c.reserve(dear)
	c.balance(asGate, "acme")
}

func partialAndFallback(c *conversation) {
	c.shop()
	c.account("acme", "", 5*credit)
	c.say("near exhaustion a flexible meter shrinks, and the answer says that it is the last")
	token := c.reserve(atLeast(work("acme", "large", 2000), 100))
	c.commit(token, 1000, 1000)
	c.say("what is left does not pay for the minimum of the first candidate; the next is granted")
	token = c.reserve(&purserv1.CheckAndReserveRequest{Account: "acme", Candidates: []string{"large", "small"},
		Estimates: []*purserv1.Estimate{{Meter: "input_tokens", Quantity: 1000}, {Meter: "output_tokens", Quantity: 100}}})
	c.commit(token, 1000, 100)
	c.say("the plan's fallback stands behind the candidates asked for")
	token = c.reserve(work("acme", "large", 1000))
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: token})
	c.say("a partial first choice beats a whole second one")
	token = c.reserve(atLeast(work("acme", "small", 10_000), 1))
	c.commit(token, 10, 10)
	c.say("nothing fits: what could be had instead")
	call(c, asGate, c.authority.CheckAndReserve, atLeast(work("acme", "large", 5000), 4000))
	c.balance(asGate, "acme")
}

func denials(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.account("poor", "", credit)
	c.account("poor:child", "poor", 0)
	must(c.world, asAdmin, c.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: "nothing"})
	ask := func(r *purserv1.CheckAndReserveRequest) {
		call(c, asGate, c.authority.CheckAndReserve, r)
	}
	c.say("ACCOUNT_UNKNOWN")
	ask(work("nowhere", "large", 1000))
	c.say("ACCOUNT_SUSPENDED comes before what is wrong with the feature; the level says which account")
	must(c.world, asAdmin, c.accounts.SuspendAccount, &purserv1.SuspendAccountRequest{Account: "poor", Reason: "unpaid invoice"})
	ask(work("poor:child", "nothing", 1000))
	must(c.world, asAdmin, c.accounts.ResumeAccount, &purserv1.ResumeAccountRequest{Account: "poor"})
	c.say("FEATURE_UNKNOWN")
	ask(work("acme", "chat.gpt-lrage", 1000))
	c.say("FEATURE_NOT_ENTITLED: the plan does not list it, or there is no plan")
	ask(work("acme", "forbidden", 1000))
	ask(work("nothing", "large", 1000))
	c.say("NO_PRICE names the meter")
	ask(work("acme", "unpriced", 1000))
	c.say("QUOTA: two requests for ever, one held and one spent")
	c.commit(c.reserve(work("acme", "counted", 0)), 0, 0)
	held := c.reserve(work("acme", "counted", 0))
	ask(work("acme", "counted", 0))
	c.commit(held, 0, 0)
	ask(work("acme", "counted", 0))
	c.say("BUDGET: the outermost level first; in a window it ends with it")
	monthly := budget("poor", "monthly", 200_000)
	monthly.Window = purserv1.Window_WINDOW_MONTH
	must(c.world, asAdmin, c.accounts.PutBudget, monthly)
	must(c.world, asAdmin, c.accounts.PutBudget, budget("poor:child", "own", 50_000))
	ask(atLeast(work("poor:child", "small", 1000), 900))
	c.say("a budget that denies comes before credits that are missing")
	soft := budget("poor", "soft", 1000)
	soft.Enforcement, soft.Window = purserv1.Enforcement_ENFORCEMENT_SOFT, purserv1.Window_WINDOW_LIFETIME
	must(c.world, asAdmin, c.accounts.PutBudget, soft)
	ask(work("poor", "small", 100_000))
	must(c.world, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "poor", Id: "monthly"})
	must(c.world, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "poor", Id: "soft"})
	must(c.world, asAdmin, c.accounts.DeleteBudget, &purserv1.DeleteBudgetRequest{Account: "poor:child", Id: "own"})
	c.say("CREDITS: FIRM if there are none, TRANSIENT if they are held and may come back")
	ask(work("poor", "small", 100_000))
	held = c.reserve(work("poor", "small", 3000))
	ask(work("poor", "small", 3000))
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: held})
	c.balance(asGate, "poor")
}

func suspendAndResume(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.account("acme:search", "acme", 0)
	req := work("acme:search", "large", 1000)
	req.IdempotencyKey = "before"
	token := c.reserve(req)
	c.say("with sync, no node issues any more when the answer is there")
	call(c, asAdmin, c.accounts.SuspendAccount, &purserv1.SuspendAccountRequest{Account: "acme", Reason: "unpaid invoice", Sync: true})
	call(c, asGate, c.authority.CheckAndReserve, work("acme:search", "large", 1000))
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "large", 1000))
	call(c, asGate, c.authority.Check, &purserv1.CheckRequest{Account: "acme:search", Candidates: []string{"large"}})
	c.say("what was granted before is replayed, and settled")
	c.reserve(req)
	c.commit(token, 1000, 500)
	call(c, asViewer, c.accounts.GetAccount, &purserv1.GetAccountRequest{Id: "acme:search"})
	c.say("resumed")
	call(c, asAdmin, c.accounts.ResumeAccount, &purserv1.ResumeAccountRequest{Account: "acme"})
	c.commit(c.reserve(work("acme:search", "large", 1000)), 1000, 1000)
	call(c, asAdmin, c.accounts.SuspendAccount, &purserv1.SuspendAccountRequest{Account: "nowhere"})
	c.balance(asGate, "acme:search")
}

func planUpgrade(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.say("the first version allows two requests")
	c.commit(c.reserve(work("acme", "counted", 0)), 0, 0)
	c.commit(c.reserve(work("acme", "counted", 0)), 0, 0)
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "counted", 0))
	c.say("the next allows three; who is on the first stays there")
	call(c, asAdmin, c.catalog.PublishPlanVersion, plan(3))
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "counted", 0))
	c.say("who moves keeps what was counted: one is left")
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro"})
	token := c.reserve(work("acme", "counted", 0))
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "counted", 0))
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: token})
	c.say("a released one is there again")
	c.commit(c.reserve(work("acme", "counted", 0)), 0, 0)
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "counted", 0))
	c.say("back on the first version more is counted than it allows")
	call(c, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro", Version: 1})
	call(c, asGate, c.authority.CheckAndReserve, work("acme", "counted", 0))
}

func priceChange(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	old := c.reserve(work("acme", "large", 1000))
	c.say("twice the price from now on; what is reserved keeps its own")
	call(c, asAdmin, c.catalog.PublishRateCard, card(2))
	now := c.reserve(work("acme", "large", 1000))
	c.commit(old, 1000, 1000)
	c.commit(now, 1000, 1000)
	c.quiesce()
	call(c, asViewer, c.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: "acme"})
	c.balance(asGate, "acme")
}
