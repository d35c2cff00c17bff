package apitest

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func rate(id, meter string, limit int64, per time.Duration) *purserv1.RateLimit {
	return &purserv1.RateLimit{Id: id, Meter: meter, Limit: limit, Per: durationpb.New(per)}
}

// ratesAndConcurrency: the rates are so slow that nothing comes back while the test runs.
func ratesAndConcurrency(c *conversation) {
	c.shop()
	users := rate("per-user", "requests", 2, time.Hour)
	users.LabelKey = "user"
	limits := plan(2)
	limits.Rates = []*purserv1.RateLimit{users}
	limits.Concurrency = []*purserv1.ConcurrencyLimit{{Id: "streams", Limit: 4}}
	limits.Entitlements[0].Rates = []*purserv1.RateLimit{rate("tokens", "output_tokens", 20, time.Hour)}
	must(c.world, asAdmin, c.catalog.PublishPlanVersion, limits)
	c.account("acme", "", 100*credit)
	c.account("poor", "", credit/10)
	ask := func(r *purserv1.CheckAndReserveRequest) { call(c, asGate, c.authority.CheckAndReserve, r) }
	by := func(user string, out int64) *purserv1.CheckAndReserveRequest {
		return labelled(work("acme", "large", out), "user", user)
	}
	only := func(r *purserv1.CheckAndReserveRequest) *purserv1.CheckAndReserveRequest {
		r.Candidates = []string{"large"}
		return r
	}

	c.say("more at once than the burst never passes, and what would is said; the plan's fallback is not over its rate")
	ask(work("acme", "large", 30))
	must(c.world, asAdmin, c.catalog.PublishPlanVersion, withoutFallback(limits))
	subscribe(c, "acme")
	subscribe(c, "poor")
	ask(only(atLeast(work("acme", "large", 30), 21)))
	c.say("a replay takes nothing; each user is counted alone")
	first := by("ann", 15)
	first.IdempotencyKey = "once"
	token := c.reserve(first)
	c.reserve(first)
	c.say("a flexible meter shrinks to what the rate leaves")
	c.reserve(atLeast(by("ann", 10), 1))
	c.say("RATE: of several the one that makes it wait longest")
	ask(by("ann", 1))
	ask(by("bob", 1))
	c.say("CONCURRENCY, behind the rates")
	small := work("acme", "small", 0)
	c.reserve(small)
	ask(small)
	ask(by("ann", 0))
	c.say("what was not used comes back with the commit; one user is over the rate still")
	c.commit(token, 1000, 2)
	ask(by("ann", 1))
	released := c.reserve(by("bob", 1))
	c.say("a release gives its permit back, and its request")
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: released})
	c.reserve(by("bob", 1))
	c.say("a quote says the same, and takes nothing")
	for range 2 {
		call(c, asGate, c.authority.Check, &purserv1.CheckRequest{Account: "acme", Candidates: []string{"large"}, Labels: map[string]string{"user": "ann"}})
	}
	c.say("a request that credits deny has taken nothing of the rate")
	ask(only(work("poor", "large", 20)))
	must(c.world, asAdmin, c.accounts.CreateGrant, grant("poor", "more", 100*credit))
	c.reserve(only(work("poor", "large", 20)))
	c.say("a new version of the plan holds at once, and goes on counting")
	more := proto.CloneOf(limits)
	more.Fallback, more.Entitlements[0].Rates[0].Limit = nil, 50
	must(c.world, asAdmin, c.catalog.PublishPlanVersion, more)
	subscribe(c, "poor")
	ask(only(work("poor", "large", 31)))
	c.reserve(only(work("poor", "large", 30)))
}

func withoutFallback(r *purserv1.PublishPlanVersionRequest) *purserv1.PublishPlanVersionRequest {
	r = proto.CloneOf(r)
	r.Fallback = nil
	return r
}

// subscribe moves an account to the latest version of the plan.
func subscribe(c *conversation, account string) {
	must(c.world, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: account, Plan: "pro"})
}
