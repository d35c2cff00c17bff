package authority_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// limited publishes a plan with a feature under limits, and subscribes an account to it.
func (n *node) limited(account string, l authz.Limits) *quota.Request {
	n.t.Helper()
	n.account(account, "", 1e9)
	must(n.t, 0, second(n.store.PublishPlan(n.t.Context(), mutation(), authz.Plan{ID: "limited", RateCard: "standard",
		Entitlements: []authz.Entitlement{{Feature: "chat", Limits: l}}})))
	must(n.t, 0, second(n.store.Subscribe(n.t.Context(), mutation(), account, authz.PlanRef{ID: "limited"})))
	must(n.t, 0, n.Refresh(n.t.Context()))
	return chat(account, 100, 100)
}

// until reserves until it is denied, and returns how many were granted.
func (n *node) until(r *quota.Request, reason quota.DenialReason) (granted []*quota.Decision) {
	n.t.Helper()
	for {
		d := n.reserve(r)
		if !d.Allowed {
			if d.Denial.Reason != reason || !d.Denial.Transient || d.Denial.RetryIn <= 0 {
				n.t.Fatalf("after %d: denied %+v, want a transient %v", len(granted), d.Denial, reason)
			}
			return granted
		}
		granted = append(granted, d)
	}
}

// TestEachUserHasOwnLimits: labels choose the counter; a label bound to the key wins.
func TestEachUserHasOwnLimits(t *testing.T) {
	n := world(t)
	n.catalogue()
	r := n.limited("acme", authz.Limits{Rates: []authz.Rate{{ID: "user", Meter: "requests", Limit: 3, Per: time.Hour, LabelKey: "user"}}})
	for _, user := range []string{"ann", "bob"} {
		r.Labels = labels(t, map[string]string{"user": user})
		if got := len(n.until(r, quota.DeniedRate)); got != 3 {
			t.Errorf("%s was let in %d times, want 3", user, got)
		}
	}
	bound := gate()
	bound.Labels = labels(t, map[string]string{"user": "ann"})
	r.Labels = labels(t, map[string]string{"user": "eve"})
	var d quota.Decision
	if err := n.Reserve(t.Context(), bound, r, &d); err != nil || d.Allowed || d.Denial.Level.Selector != "ann" {
		t.Errorf("with a key of ann's: %v, %+v", err, d.Denial)
	}
	r.Labels = nil
	for range 10 {
		n.granted(r)
	}
	n.audited()
}

// TestPermitsReturn with commit, release, expiry, and a commit that comes twice.
func TestPermitsReturn(t *testing.T) {
	n := world(t)
	n.catalogue()
	r := n.limited("acme", authz.Limits{Concurrency: []authz.Concurrency{{ID: "streams", Limit: 3}}})
	r.TTL = time.Second
	live := n.until(r, quota.DeniedConcurrency)
	if len(live) != 3 {
		t.Fatalf("%d were live, want 3", len(live))
	}
	n.commit(live[0].Token, 1000, 100)
	n.commit(live[0].Token, 1000, 100)
	if _, err := n.Release(t.Context(), gate(), &quota.Settle{Token: live[1].Token}); err != nil {
		t.Fatal(err)
	}
	if got := len(n.until(r, quota.DeniedConcurrency)); got != 2 {
		t.Errorf("%d permits came back, want 2", got)
	}
	eventually(t, func() bool { return n.reserve(r).Allowed }) // when they expire
	if got := n.Status().Limiters; got != 1 {
		t.Errorf("%d counters", got)
	}
	n.audited()
}

// TestExtendCountsWhatItAdds against a rate in tokens; as a request and a stream it counts once.
func TestExtendCountsWhatItAdds(t *testing.T) {
	n := world(t)
	n.catalogue()
	r := n.limited("acme", authz.Limits{
		Rates: []authz.Rate{{ID: "tokens", Meter: "output_tokens", Limit: 300, Per: time.Hour},
			{ID: "calls", Meter: "requests", Limit: 2, Per: time.Hour}},
		Concurrency: []authz.Concurrency{{ID: "streams", Limit: 1}}})
	first := n.granted(r)
	if d := n.extended(totals(first.Token, 250, 250)); d.Partial {
		t.Fatalf("within the rate: %+v", d)
	}
	d := n.extend(totals(first.Token, 301, 301))
	if d.Allowed || d.Denial.Reason != quota.DeniedRate || !d.Denial.Transient || d.Denial.RetryIn > 12*time.Second ||
		d.Denial.Level.Limit != "tokens" || d.Denial.Shortfall != 1 {
		t.Fatalf("one too many: %+v", d)
	}
	if d := n.extended(totals(first.Token, 500, 260)); !d.Partial || d.Granted[1].Quantity != 300 {
		t.Fatalf("as far as it goes: %+v", d)
	}
	n.commit(first.Token, 1000, 50)
	if d := n.reserve(chat("acme", 100, 50)); !d.Allowed { // of 250 unused those of the last extension are back
		t.Fatalf("after the commit: %+v", d.Denial)
	}
	n.audited()
}

// TestNodesShareLimits: what all nodes let in adds up to the limit.
func TestNodesShareLimits(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		for i, l := range []authz.Limits{
			{Rates: []authz.Rate{{ID: "rph", Meter: "requests", Limit: 10, Per: time.Hour}}},
			{Concurrency: []authz.Concurrency{{ID: "streams", Limit: 10}}},
		} {
			r := a.limited(fmt.Sprint("shared-", i), l)
			must(t, 0, b.Refresh(t.Context()))
			reason := quota.DeniedRate
			if l.Rates == nil {
				reason = quota.DeniedConcurrency
			}
			if x, y := len(a.until(r, reason)), len(b.until(r, reason)); x != 5 || y != 5 {
				t.Errorf("%v: a let in %d, b %d; want 5 each", reason, x, y)
			}
		}
	})
}
