package authority_test

import (
	"testing"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/faultstore"
)

// totals is an extension of chat to 1000 input tokens and out output tokens of which least
// will do.
func totals(token []byte, out, least int64) *quota.Extension {
	return &quota.Extension{Token: token, TTL: 2 * time.Second, Estimates: []quota.Estimate{
		{Meter: "output_tokens", Quantity: out, Min: least, Flexible: least < out}}}
}

func (n *node) extend(x *quota.Extension) *quota.Decision {
	n.t.Helper()
	var d quota.Decision
	if err := n.Extend(n.t.Context(), gate(), x, &d); err != nil {
		n.t.Fatalf("extend: %v", err)
	}
	return &d
}

// extended extends and fails the test on a denial.
func (n *node) extended(x *quota.Extension) *quota.Decision {
	n.t.Helper()
	d := n.extend(x)
	if !d.Allowed {
		n.t.Fatalf("denied: %+v", d.Denial)
	}
	return d
}

// refused extends, which must fail for the reason, for sure.
func (n *node) refused(token []byte, reason quota.Reason) *quota.Error {
	n.t.Helper()
	var d quota.Decision
	err := n.Extend(n.t.Context(), gate(), totals(token, 2000, 2000), &d)
	wantReason(n.t, err, reason)
	e := err.(*quota.Error)
	if !e.NotApplied {
		n.t.Errorf("%v does not say that nothing was done", err)
	}
	return e
}

func (n *node) held(account string) int64 {
	n.t.Helper()
	return must1(n.t)(n.Balance(n.t.Context(), account)).Held
}

// TestExtendStatesTotals: amounts are differences of totals, the same totals twice are one,
// nothing is lowered, and every generation of the token works on (R35, race 13).
func TestExtendStatesTotals(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	first := n.granted(chat("acme", 1000, 1000))
	more := n.extended(totals(first.Token, 2000, 2000))
	if more.Held != 7e6 || n.held("acme") != 7e6 || more.Replayed || more.Partial || len(more.Granted) != 2 ||
		more.Granted[1] != (quota.Quantity{Meter: "output_tokens", Quantity: 2000}) || more.Feature != "chat" ||
		more.Sequence != first.Sequence || more.ExpiresAt < first.ExpiresAt {
		t.Fatalf("extended to %+v", more)
	}
	same := totals(first.Token, 2000, 2000) // the answer was lost: by the old token
	same.TTL = time.Second
	for _, x := range []*quota.Extension{same, {Token: more.Token, TTL: time.Second}, {Token: more.Token, TTL: time.Second,
		Estimates: []quota.Estimate{{Meter: "output_tokens", Quantity: 5}, {Meter: "input_tokens", Quantity: 1}}}} {
		again := n.extended(x)
		if !again.Replayed || again.Held != 7e6 || again.ExpiresAt != more.ExpiresAt || string(again.Token) != string(more.Token) {
			t.Fatalf("nothing new: %+v; want %+v", again, more)
		}
	}
	if n.held("acme") != 7e6 {
		t.Fatalf("%d are held", n.held("acme"))
	}
	if r := n.commit(first.Token, 1000, 2000); r.Charged != 7e6 || r.Overage != 0 || r.Uncovered != 0 {
		t.Fatalf("committed with the first token: %+v", r)
	}
	if r := n.commit(more.Token, 1000, 2000); !r.Replayed {
		t.Fatalf("committed again with the newest: %+v", r)
	}
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 93e6 || b.Held != 0 || b.Debt != 0 {
		t.Fatalf("balance %+v", b)
	}
}

// TestExtendRoundsOnce: many small extensions cost what one reservation of their total does.
func TestExtendRoundsOnce(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	r := chat("acme", 1, 1)
	r.Candidates, r.Estimates = []string{"small"}, r.Estimates[1:]
	d := n.granted(r)
	for out := int64(2); out <= 10; out++ {
		d = n.extended(totals(d.Token, out, out))
	}
	if d.Held != 3000 {
		t.Fatalf("ten tokens at 300 micros each, by ones: %d are held", d.Held)
	}
	n.commit(d.Token, 0, 10)
	n.audited()
}

// TestHeartbeat keeps a reservation alive beyond M0, and no longer than it beats.
func TestHeartbeat(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	d := n.granted(chat("acme", 1000, 1000))
	token, began := d.Token, time.Now()
	for time.Since(began) < 4*time.Second { // M0 is 2 s
		beat := n.extended(&quota.Extension{Token: token, TTL: time.Second})
		if beat.ExpiresAt < d.ExpiresAt || beat.Held != d.Held || len(beat.Granted) != 2 {
			t.Fatalf("heartbeat %+v after %+v", beat, d)
		}
		token, d = beat.Token, beat
		eventually(t, func() bool { return time.Now().UnixNano() > d.ExpiresAt-int64(500*time.Millisecond) })
	}
	eventually(t, func() bool { return n.Status().Reservations == 0 })
	if time.Now().UnixNano() < d.ExpiresAt {
		t.Fatal("it expired before its promised time")
	}
	eventually(t, func() bool { return n.Status().Queued == 0 })
	n.refused(token, quota.ReasonReservationExpired)
	if r := n.commit(token, 1000, 1000); !r.Late || r.Charged != 4e6 {
		t.Fatalf("commit behind the expiry: %+v", r)
	}
	n.audited()
}

// TestExtendNearExhaustion: what there is is granted and said to be the last; what is denied
// leaves the reservation as it was.
func TestExtendNearExhaustion(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 10e6)
	first := n.granted(chat("acme", 1000, 1000))
	if d := n.extend(totals(first.Token, 5000, 4000)); d.Allowed || d.Denial.Reason != quota.DeniedCredits || d.Denial.Transient ||
		d.Denial.Shortfall != 3e6 || d.Feature != "chat" || d.Denial.Level.Account != "acme" {
		t.Fatalf("16 credits of 10, or 13: %+v", d)
	}
	if n.held("acme") != 4e6 {
		t.Fatalf("a denial left %d held", n.held("acme"))
	}
	part := n.extended(totals(first.Token, 5000, 100))
	if !part.Partial || !part.Exhausted || part.Held != 10e6 || part.Granted[1].Quantity != 3000 {
		t.Fatalf("as far as it goes: %+v", part)
	}
	last := n.extended(totals(part.Token, 5000, 100))
	if !last.Partial || !last.Exhausted || last.Held != 10e6 {
		t.Fatalf("and no further: %+v", last)
	}
	if d := n.extend(totals(part.Token, 3001, 3001)); d.Allowed {
		t.Fatalf("one more: %+v", d)
	}
	n.commit(last.Token, 1000, 3000)
	n.audited()
}

// TestExtendObeysPolicyOfNow: account, plan and budgets are looked at anew; prices are not.
func TestExtendObeysPolicyOfNow(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 1000e6)
	d := n.granted(chat("acme", 1000, 1000))
	n.budget(quota.Budget{Account: "acme", ID: "new", Cap: 6e6, Window: window.Lifetime})
	n.extended(&quota.Extension{Token: d.Token, TTL: 2 * time.Second}) // more time costs no new budget
	if no := n.extend(totals(d.Token, 2000, 2000)); no.Allowed || no.Denial.Reason != quota.DeniedBudget || no.Denial.Level.Limit != "new" {
		t.Fatalf("7 credits under a new budget of 6: %+v", no)
	}
	d = n.extended(totals(d.Token, 1600, 1600))
	if no := n.reserve(chat("acme", 100, 100)); no.Allowed && no.Feature == "chat" {
		t.Fatalf("the budget is not used by the whole reservation: %+v", no)
	}

	_, revision, err := n.store.SetStatus(t.Context(), mutation(), "acme", quota.AccountSuspended, "unpaid")
	must(t, 0, err)
	must(t, 0, n.AwaitRevision(t.Context(), revision))
	if no := n.extend(&quota.Extension{Token: d.Token, TTL: 2 * time.Second}); no.Allowed || no.Denial.Reason != quota.DeniedAccountSuspended {
		t.Fatalf("I13: a token for a suspended account: %+v", no)
	}
	must(t, 0, second2(n.store.SetStatus(t.Context(), mutation(), "acme", quota.AccountActive, "")))
	must(t, 0, second(n.store.PublishPlan(t.Context(), mutation(), authz.Plan{ID: "pro", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "small"}}})))
	must(t, 0, second(n.store.Subscribe(t.Context(), mutation(), "acme", authz.PlanRef{ID: "pro"})))
	must(t, 0, n.Refresh(t.Context()))
	if no := n.extend(&quota.Extension{Token: d.Token, TTL: 2 * time.Second}); no.Allowed || no.Denial.Reason != quota.DeniedNotEntitled {
		t.Fatalf("the feature is off the plan: %+v", no)
	}
	if r := n.commit(d.Token, 1000, 1600); r.Charged != 5.8e6 || r.Uncovered != 0 {
		t.Fatalf("commit all the same: %+v", r)
	}
	n.audited()
}

func second2[A, B any](_ A, _ B, err error) error { return err }

// TestExtendAfterTheEnd: what has ended is not extended, and the reason says how it ended.
func TestExtendAfterTheEnd(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	d := n.granted(chat("acme", 1000, 1000))
	n.commit(d.Token, 1000, 500)
	if e := n.refused(d.Token, quota.ReasonReservationCommitted); e.Meta["charged_micros"] != "2500000" {
		t.Errorf("%+v does not say what was charged", e)
	}
	d = n.granted(chat("acme", 1000, 1000))
	must(t, 0, second(n.Release(t.Context(), gate(), &quota.Settle{Token: d.Token})))
	n.refused(d.Token, quota.ReasonReservationReleased)
	d = n.granted(chat("acme", 1000, 1000))
	n.refused(d.Token[:20], quota.ReasonTokenInvalid)
	err := n.Extend(t.Context(), &authz.Principal{Name: "other", Role: authz.RoleGate}, totals(d.Token, 1, 1), &quota.Decision{})
	wantReason(t, err, quota.ReasonCallerNotAllowed)
	long := totals(d.Token, 1, 1)
	long.TTL = 3 * time.Second
	wantReason(t, n.Extend(t.Context(), gate(), long, &quota.Decision{}), quota.ReasonTTLOutOfRange)
	odd := totals(d.Token, 1, 1)
	odd.Estimates[0].Meter = "inches"
	wantReason(t, n.Extend(t.Context(), gate(), odd, &quota.Decision{}), quota.ReasonUnitUnknown)
	drained := make(chan error, 1)
	go func() { drained <- n.Drain(t.Context()) }()
	eventually(t, func() bool { return !n.Status().Ready })
	n.refused(d.Token, quota.ReasonShuttingDown)
	n.commit(d.Token, 1000, 500)
	must(t, 0, <-drained)
}

// TestExtendElsewhere: only the node that issued a reservation extends it; any other says
// which that is, or that it is gone.
func TestExtendElsewhere(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := shared()
		c.MaxHold = 30 * time.Second // what is held outlives the node
		a, b := pairOf(t, url, c)
		d := a.granted(chat("acme", 1000, 1000))
		if e := b.refused(d.Token, quota.ReasonExtendElsewhere); e.Meta["address"] != "a.example:8443" || e.Meta["owner_state"] != "LIVE" {
			t.Fatalf("%+v; want a's address", e)
		}
		more := a.extended(totals(d.Token, 2000, 2000))
		if r := b.commit(d.Token, 1000, 2000); r.Charged != 7e6 || r.Covered != 4e6 || r.Uncovered != 3e6 {
			t.Fatalf("a token of the first generation elsewhere: %+v; want no more from the hold than it says", r)
		}
		eventually(t, func() bool { return a.Status().Reservations == 0 }) // told by a note
		a.refused(more.Token, quota.ReasonReservationCommitted)
		b.refused(more.Token, quota.ReasonReservationCommitted)
		more = a.extended(totals(a.granted(chat("acme", 1000, 1000)).Token, 2000, 2000))
		if r := b.commit(more.Token, 1000, 2000); r.Charged != 7e6 || r.Uncovered != 0 {
			t.Fatalf("the newest token elsewhere: %+v", r)
		}
		r := chat("acme", 1000, 1000)
		r.TTL = c.MaxHold
		orphan := a.granted(r)
		must(t, 0, a.Drain(t.Context()))
		if e := b.refused(orphan.Token, quota.ReasonExtendElsewhere); e.Meta["owner_state"] != "DEAD" || e.Meta["address"] != "" {
			t.Fatalf("%+v; want to be told that nobody can extend it", e)
		}
		b.audited()
	})
}

// TestExtendThroughFaults loses what the store says to draws and to the look for a reservation.
func TestExtendThroughFaults(t *testing.T) {
	n, f := faulty(t)
	// The first reservation's draw gets through, and brings a few times as much as that needs.
	// None ahead of need does.
	f.Inject(faultstore.Fault{Op: "Draw", Call: f.Calls("Draw") + 2, Many: -1, Kind: faultstore.FailBefore})
	d := n.granted(chat("acme", 1000, 1000))
	const more = 1e5
	held := n.held("acme")
	err := n.Extend(t.Context(), gate(), totals(d.Token, more, more), &quota.Decision{})
	wantReason(t, err, quota.ReasonStoreUnavailable)
	if e := err.(*quota.Error); !e.NotApplied || n.held("acme") != held {
		t.Fatalf("%v; held are %d, before %d", err, n.held("acme"), held)
	}
	f.Clear()
	f.Inject(faultstore.Fault{Op: "Draw", Kind: faultstore.FailAfter})
	d = n.extended(totals(d.Token, more, more)) // sent again until it is known (R11)
	n.commit(d.Token, 1000, more)
	f.Inject(faultstore.Fault{Op: "Whereabouts", Call: f.Calls("Whereabouts") + 1, Kind: faultstore.FailBefore})
	n.refused(d.Token, quota.ReasonStoreUnavailable)
	n.refused(d.Token, quota.ReasonReservationCommitted)
	n.audited()
}
