package apitest

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/authority"
)

// totals asks for out output tokens in all. Without a longer time, so that the same twice
// changes nothing.
func totals(token []byte, out int64) *purserv1.ExtendRequest {
	return &purserv1.ExtendRequest{Token: token, Ttl: durationpb.New(time.Second),
		Estimates: []*purserv1.Estimate{{Meter: "output_tokens", Quantity: out}}}
}

// extend extends, writes it down, and returns the token; it fails the test on a denial.
func (c *conversation) extend(r *purserv1.ExtendRequest) []byte {
	c.t.Helper()
	token := call(c, asGate, c.authority.Extend, r).GetReservation().GetToken()
	if len(token) == 0 {
		c.t.Fatalf("not extended:\n%s", c.lines[len(c.lines)-1])
	}
	return token
}

func extendInTotals(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	req := holdFor(work("acme", "large", 1000), 20*time.Second)
	req.IdempotencyKey = "stream-1"
	first := c.reserve(req)
	c.say("a larger total; the same again is the same, by whichever token")
	second := c.extend(totals(first, 2000))
	c.extend(totals(first, 2000))
	c.extend(totals(second, 2000))
	c.say("a total below what is held leaves it as it is; a meter left out keeps what it has")
	c.extend(totals(second, 10))
	c.say("only more time: a heartbeat")
	c.extend(&purserv1.ExtendRequest{Token: second, Ttl: durationpb.New(40 * time.Second)})
	c.say("a meter that was not estimated before")
	third := c.extend(&purserv1.ExtendRequest{Token: second, Ttl: durationpb.New(time.Second),
		Estimates: []*purserv1.Estimate{{Meter: "input_tokens", Quantity: 1500}, {Meter: "requests", Quantity: 2}}})
	c.say("the key of the reservation still answers as it did")
	c.reserve(req)
	c.say("prices are those of the reservation, whatever was published since")
	must(c.world, asAdmin, c.catalog.PublishRateCard, card(10))
	third = c.extend(totals(third, 3000))
	c.balance(asGate, "acme")
	c.say("the first token settles all that is held now")
	c.commit(first, 1500, 3000)
	c.commit(third, 1500, 3000)
	c.balance(asGate, "acme")
}

func extendDenied(c *conversation) {
	c.shop()
	c.account("acme", "", 10*credit)
	token := c.reserve(work("acme", "large", 1000))
	c.say("more than there is: denied, and the reservation is as it was")
	call(c, asGate, c.authority.Extend, totals(token, 4000))
	c.balance(asGate, "acme")
	c.say("as far as it goes, if less will do; that was the last")
	some := totals(token, 4000)
	some.Estimates[0].MinQuantity = proto.Int64(0)
	c.extend(some)
	c.extend(some)
	c.say("a budget that was made meanwhile counts the whole reservation, once it asks for more")
	must(c.world, asAdmin, c.accounts.CreateGrant, grant("acme", "more", 10*credit))
	must(c.world, asAdmin, c.accounts.PutBudget, budget("acme", "new", 10*credit))
	call(c, asGate, c.authority.Extend, totals(token, 3001))
	c.extend(totals(token, 3000))
	c.say("suspended: not even more time")
	must(c.world, asAdmin, c.accounts.SuspendAccount, &purserv1.SuspendAccountRequest{Account: "acme", Reason: "unpaid invoice"})
	call(c, asGate, c.authority.Extend, &purserv1.ExtendRequest{Token: token})
	must(c.world, asAdmin, c.accounts.ResumeAccount, &purserv1.ResumeAccountRequest{Account: "acme"})
	c.say("the feature is taken off the plan")
	must(c.world, asAdmin, c.catalog.PublishPlanVersion, &purserv1.PublishPlanVersionRequest{Plan: "pro", RateCard: "standard",
		Entitlements: []*purserv1.Entitlement{{Feature: "small"}}})
	must(c.world, asAdmin, c.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro"})
	call(c, asGate, c.authority.Extend, &purserv1.ExtendRequest{Token: token})
	c.say("what was used is charged all the same")
	c.commit(token, 1000, 3000)
	c.balance(asGate, "acme")
}

// extendWithinLimits: the rates are so slow that nothing comes back while the test runs.
func extendWithinLimits(c *conversation) {
	c.shop()
	limits := withoutFallback(plan(2))
	limits.Rates = []*purserv1.RateLimit{rate("calls", "requests", 2, time.Hour)}
	limits.Concurrency = []*purserv1.ConcurrencyLimit{{Id: "streams", Limit: 1}}
	limits.Entitlements[0].Rates = []*purserv1.RateLimit{rate("tokens", "output_tokens", 3000, time.Hour)}
	must(c.world, asAdmin, c.catalog.PublishPlanVersion, limits)
	c.account("acme", "", 100*credit)
	ask := func(r *purserv1.CheckAndReserveRequest) { call(c, asGate, c.authority.CheckAndReserve, r) }
	only := func(out int64) *purserv1.CheckAndReserveRequest {
		r := holdFor(work("acme", "large", out), 20*time.Second)
		r.Candidates = []string{"large"}
		return r
	}
	token := c.reserve(only(1000))
	c.say("what is added counts against the rate; the reservation is one request and one stream still")
	token = c.extend(totals(token, 2000))
	c.extend(totals(token, 2000))
	ask(only(0))
	c.say("RATE: 500 too much, and more than it ever allows; nothing is taken, the reservation is as it was")
	call(c, asGate, c.authority.Extend, totals(token, 3500))
	call(c, asGate, c.authority.Extend, totals(token, 5001))
	c.extend(totals(token, 2000))
	c.say("as far as the rate goes, if less will do")
	some := totals(token, 3500)
	some.Estimates[0].MinQuantity = proto.Int64(2001)
	token = c.extend(some)
	c.say("the commit says what was really used; the rest comes back")
	c.commit(token, 1000, 2500)
	ask(only(501))
	c.reserve(only(500))
}

func extendEnded(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	c.say("after a commit, a release, an expiry")
	token := c.reserve(work("acme", "large", 1000))
	c.commit(token, 1000, 500)
	call(c, asGate, c.authority.Extend, totals(token, 2000))
	token = c.reserve(work("acme", "large", 1000))
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: token})
	call(c, asGate, c.authority.Extend, totals(token, 2000))
	token = c.reserve(holdFor(work("acme", "large", 1000), time.Second))
	c.await("the hold has expired", func() bool { return c.engine.Status().Reservations == 0 })
	call(c, asGate, c.authority.Extend, totals(token, 2000))
	c.say("charged late it was committed")
	c.commit(token, 1000, 500)
	call(c, asGate, c.authority.Extend, totals(token, 2000))
	c.say("usage that the plan has no such meter for, too much time, no token")
	token = c.reserve(work("acme", "large", 1000))
	odd := totals(token, 2000)
	odd.Estimates[0].Meter = "inches"
	call(c, asGate, c.authority.Extend, odd)
	call(c, asGate, c.authority.Extend, &purserv1.ExtendRequest{Token: token, Ttl: durationpb.New(61 * time.Second)})
	call(c, asGate, c.authority.Extend, &purserv1.ExtendRequest{})
	call(c, asGate, c.authority.Release, &purserv1.ReleaseRequest{Token: token})
	c.balance(asGate, "acme")
}

// TestExtendElsewhere: a node that did not issue a reservation names the one that did.
func TestExtendElsewhere(t *testing.T) {
	for _, b := range backends(t)[1:] { // nodes share a database
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t, b)
			w.shop()
			w.account("acme", "", 10*credit)
			token := must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 1000)).GetReservation().GetToken()
			first := w.engine
			w.engine = w.secondEngine()
			w.serve(b.json) // from here on the calls reach the second node
			elsewhere := refusal{name: "elsewhere", code: codes.FailedPrecondition, reason: "EXTEND_ELSEWHERE", says: "10.0.0.7:8443",
				call: func(w *world) error {
					_, err := w.authority.Extend(w.as(asGate), totals(token, 2000))
					info, _, _ := details(err)
					if info.GetMetadata()["address"] != "10.0.0.7:8443" || info.GetMetadata()["owner_state"] != "LIVE" {
						t.Errorf("metadata %v", info.GetMetadata())
					}
					return err
				}}
			elsewhere.check(t, w)
			if got := must(w, asGate, w.authority.Commit, used(token, 1000, 1000)); got.GetChargedMicros() != 4*credit {
				t.Errorf("commit %v", got)
			}
			w.quiesce()
			w.engine = first
			w.audited()
		})
	}
}

// secondEngine is another node on the world's store.
func (w *world) secondEngine() *authority.Authority {
	w.t.Helper()
	c := authority.DefaultConfig()
	c.Poll, c.Embedded = 200*time.Millisecond, false
	a, err := authority.New(c, authority.Deps{Store: w.store, Clock: &wallClock{}, Random: rand.Reader,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		w.t.Fatalf("new authority: %v", err)
	}
	if err := a.Start(w.t.Context()); err != nil {
		w.t.Fatalf("start authority: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run authority: %v", err)
		}
	})
	return a
}
