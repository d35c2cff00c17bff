package authority_test

import (
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/faultstore"
)

// interim reports usage, which must be noted.
func (n *node) interim(token []byte, in, out int64) {
	n.t.Helper()
	if err := n.Interim(n.t.Context(), gate(), &quota.Settle{Token: token, Usage: usage(in, out)}); err != nil {
		n.t.Fatalf("interim: %v", err)
	}
}

// notNoted reports usage, which must be refused for the reason, for sure.
func (n *node) notNoted(token []byte, reason quota.Reason) *quota.Error {
	n.t.Helper()
	err := n.Interim(n.t.Context(), gate(), &quota.Settle{Token: token, Usage: usage(1, 1)})
	wantReason(n.t, err, reason)
	e := err.(*quota.Error)
	if !e.NotApplied {
		n.t.Errorf("%v does not say that nothing was done", err)
	}
	return e
}

// TestInterimIsAFloor: what was reported in between moves nothing, counts for nothing beside a
// commit, and is charged if nobody settles; what a late commit says above it is charged then (R23).
func TestInterimIsAFloor(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	committed, expired := n.granted(chat("acme", 1000, 1000)), n.granted(chat("acme", 1000, 1000))
	before := must1(t)(n.Balance(t.Context(), "acme"))
	for _, d := range []*quota.Decision{committed, expired} {
		n.interim(d.Token, 1000, 200)
		n.interim(d.Token, 1000, 500)
		n.interim(d.Token, 500, 100) // came late
	}
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != before.Total || b.Held != before.Held || b.Available != before.Available {
		t.Errorf("balance %+v, before the reports %+v", b, before)
	}
	if r := n.commit(committed.Token, 1000, 400); r.Charged != 2.2e6 || r.Late {
		t.Errorf("a commit below what was reported: %+v; want what it says", r)
	}
	n.notNoted(committed.Token, quota.ReasonReservationCommitted)
	eventually(t, func() bool { return n.Status().Reservations == 0 })
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 100e6-2.2e6-2.5e6 || b.Held != 0 || b.Debt != 0 {
		t.Errorf("balance %+v; want the usage reported charged", b)
	}
	n.notNoted(expired.Token, quota.ReasonReservationExpired)
	if r := n.commit(expired.Token, 1000, 900); !r.Late || r.Charged != 1.2e6 || r.Replayed {
		t.Errorf("a late commit of more: %+v; want the rest", r)
	}
	if r := n.commit(expired.Token, 1000, 900); !r.Replayed || r.Charged != 1.2e6 {
		t.Errorf("again: %+v", r)
	}
	released := n.granted(chat("acme", 1000, 1000))
	n.interim(released.Token, 10, 10)
	must(t, quota.Receipt{}, second(n.Release(t.Context(), gate(), &quota.Settle{Token: released.Token})))
	n.notNoted(released.Token, quota.ReasonReservationReleased)
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 100e6-2.2e6-2.5e6-1.2e6 {
		t.Errorf("balance %+v", b)
	}
}

// TestInterimOfTheDead: only the owner notes usage; when it dies, who closes its lane charges what
// it had acknowledged.
func TestInterimOfTheDead(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		d := a.granted(chat("acme", 1000, 1000))
		if e := b.notNoted(d.Token, quota.ReasonExtendElsewhere); e.Meta["address"] != "a.example:8443" || e.Meta["owner_state"] != "LIVE" {
			t.Errorf("%+v; want a's address", e)
		}
		a.interim(d.Token, 1000, 500)
		settled := a.granted(chat("acme", 1000, 1000))
		a.interim(settled.Token, 1000, 1000)
		if r := b.commit(settled.Token, 10, 0); r.Charged != 10_000 {
			t.Errorf("a commit elsewhere, below what was reported: %+v", r)
		}
		a.stop() // no drain: as good as a crash
		eventually(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Total == 1e9-10_000-2.5e6 })
		b.notNoted(d.Token, quota.ReasonReservationExpired)
		if r := b.commit(d.Token, 1000, 600); !r.Late || r.Charged != 300_000 {
			t.Errorf("a late commit: %+v; want what was not charged yet", r)
		}
		b.audited()
		if x := must1(t)(b.Balance(t.Context(), "acme")); x.Total != 1e9-10_000-2.8e6 || x.Elsewhere != 0 {
			t.Errorf("balance %+v", x)
		}
	})
}

// TestInterimThroughFaults: a report is acknowledged when it is durable, and sent again until that
// is known.
func TestInterimThroughFaults(t *testing.T) {
	for _, kind := range []faultstore.Kind{faultstore.FailAfter, faultstore.Swallow, faultstore.FailBefore} {
		n, f := faulty(t)
		d := n.granted(chat("acme", 1000, 1000))
		f.Inject(faultstore.Fault{Op: "Interim", Many: 2, Kind: kind})
		n.interim(d.Token, 1000, 500)
		if f.Calls("Interim") < 3 {
			t.Errorf("fault %d: sent %d times", kind, f.Calls("Interim"))
		}
		eventually(t, func() bool { return n.Status().Reservations == 0 })
		n.audited()
		if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 1e9-2.5e6 {
			t.Errorf("fault %d: balance %+v", kind, b)
		}
		n.stop()
	}
}

// TestInterimIsNotAcknowledgedFromMemory: while the store is away nothing is said.
func TestInterimIsNotAcknowledgedFromMemory(t *testing.T) {
	n, f := faulty(t)
	d := n.granted(chat("acme", 1000, 1000))
	f.Inject(faultstore.Fault{Op: "Interim", Many: -1, Kind: faultstore.FailBefore})
	told := make(chan error, 1)
	go func() { told <- n.Interim(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1000, 500)}) }()
	eventually(t, func() bool { return f.Calls("Interim") >= 2 })
	select {
	case err := <-told:
		t.Fatalf("answered with the store away: %v", err)
	default:
	}
	if r := n.commit(d.Token, 1000, 600); r.Charged != 2.8e6 {
		t.Errorf("a commit waits for no report: %+v", r)
	}
	f.Clear()
	select {
	case err := <-told:
		wantReason(t, err, quota.ReasonReservationCommitted)
	case <-time.After(10 * time.Second):
		t.Fatal("the report is never answered")
	}
	n.audited()
}
