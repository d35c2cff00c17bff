package authority_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/faultstore"
)

func TestReserveAndCommit(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	d := n.granted(chat("acme", 1000, 1000))
	if d.Held != 4e6 {
		t.Fatalf("held %d; want 4 credits", d.Held)
	}
	r := n.commit(d.Token, 1000, 500)
	if r.State != quota.Committed || r.Charged != 2.5e6 || r.Covered != 2.5e6 || r.Overage != 0 || r.Uncovered != 0 || r.Replayed {
		t.Fatalf("receipt %+v", r)
	}
	if again := n.commit(d.Token, 1000, 500); !again.Replayed || again.Charged != r.Charged {
		t.Fatalf("the same commit again: %+v", again)
	}
	_, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1000, 501)})
	wantReason(t, err, quota.ReasonReservationCommitted)
	_, err = n.Release(t.Context(), gate(), &quota.Settle{Token: d.Token})
	wantReason(t, err, quota.ReasonReservationCommitted)
	n.audited()
	b := must1(t)(n.Balance(t.Context(), "acme"))
	if b.Total != 97.5e6 || b.Held != 0 || b.Available != 97.5e6 || b.Elsewhere != 0 {
		t.Fatalf("balance %+v; want 97.5 credits, all available", b)
	}
}

func must1(t testing.TB) func(quota.Balance, error) quota.Balance {
	return func(b quota.Balance, err error) quota.Balance {
		t.Helper()
		return must(t, b, err)
	}
}

func TestReleaseReturnsTheHold(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 4e6)
	d := n.granted(chat("acme", 1000, 1000))
	if again := n.reserve(chat("acme", 1000, 1000)); again.Allowed || !again.Denial.Transient || again.Denial.RetryIn == 0 {
		t.Fatalf("with everything held: %+v; want a TRANSIENT denial that says when to retry", again.Denial)
	}
	r, err := n.Release(t.Context(), gate(), &quota.Settle{Token: d.Token})
	if err != nil || r.State != quota.Released {
		t.Fatalf("release: %+v, %v", r, err)
	}
	_, err = n.Commit(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1, 1)})
	wantReason(t, err, quota.ReasonReservationReleased)
	n.granted(chat("acme", 1000, 1000))
	late, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1000, 0), Delivered: true})
	if err != nil || !late.Late || late.Uncovered != 1e6 {
		t.Fatalf("delivered behind a release: %+v, %v; want a LATE charge", late, err)
	}
	n.audited()
}

func TestPartialAdmissionSaysWhenItIsTheLast(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 2e6)
	d := n.granted(chat("acme", 1000, 10))
	if !d.Partial || !d.Exhausted || d.Granted[1].Quantity != 333 {
		t.Fatalf("decision %+v; want 333 output tokens, the last ones", d)
	}
	r := n.commit(d.Token, 1000, 333)
	if r.Charged != 1_999_000 {
		t.Fatalf("charged %d", r.Charged)
	}
	no := n.reserve(chat("acme", 1000, 10))
	if no.Allowed && no.Feature != "small" {
		t.Fatalf("allowed %+v with nothing left", no)
	}
	n.audited()
}

func TestFallbackDownThePlansChain(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 500_000)
	d := n.granted(chat("acme", 1000, 1000))
	if d.Feature != "small" || d.Held != 400_000 {
		t.Fatalf("decision %+v; want the small model", d)
	}
	n.commit(d.Token, 1000, 1000)
	n.audited()
}

func TestOverCommitBecomesDebtThatTheNextGrantPays(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 4e6)
	d := n.granted(chat("acme", 1000, 1000))
	r := n.commit(d.Token, 1000, 3000)
	if r.Charged != 10e6 || r.Covered != 4e6 || r.Overage != 6e6 || r.Uncovered != 6e6 {
		t.Fatalf("receipt %+v", r)
	}
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Debt != 6e6 {
		t.Fatalf("balance %+v; want a debt of 6 credits", b)
	}
	n.grant("acme", "second", 10e6)
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Debt != 0 || b.Available != 4e6 {
		t.Fatalf("balance %+v; want the debt paid and 4 credits left", b)
	}
	n.audited()
}

func TestExpiryThenLateCommitOnce(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	r := chat("acme", 1000, 1000)
	r.TTL = time.Second
	d := n.granted(r)
	eventually(t, func() bool { return n.Status().Reservations == 0 })
	late := n.commit(d.Token, 1000, 1000)
	if !late.Late || late.Charged != 4e6 || late.Uncovered != 4e6 {
		t.Fatalf("commit behind an expiry: %+v; want it charged LATE", late)
	}
	if again := n.commit(d.Token, 1000, 1000); !again.Replayed || !again.Late {
		t.Fatalf("late commit again: %+v", again)
	}
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 96e6 || b.Debt != 0 {
		t.Fatalf("balance %+v; want 96 credits", b)
	}
}

// TestUnaffordableRequestsMoveNothing: who asks for more than there is gets a FIRM denial, and
// neither starves others on the node nor takes the pot out of other nodes' reach (R28).
func TestUnaffordableRequestsMoveNothing(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	huge := chat("acme", 1e6, 1e6)
	absurd := chat("acme", 1<<53, 1<<53)
	for range 3 {
		for _, r := range []*quota.Request{huge, absurd} {
			r.Candidates = []string{"counted"} // no fallback behind it
			if d := n.reserve(r); d.Allowed || d.Denial.Reason != quota.DeniedCredits || d.Denial.Transient {
				t.Fatalf("%+v; want a FIRM denial for credits", d)
			}
		}
	}
	pots, _, err := n.store.Pots(t.Context(), "acme", time.Now().UnixNano())
	must(t, 0, err)
	for _, p := range pots {
		if p.Kind == quota.PotWallet && p.Available != 100e6 {
			t.Errorf("%d of 100 credits are left in the pot", p.Available)
		}
	}
	n.granted(chat("acme", 1000, 1000))
	n.audited()
}

// eventually waits for a condition, within far more time than it needs.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to pass")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSuspendSyncIsObeyedAtOnce(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 1e12)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	issued := make(chan int64, 1<<20)
	for range 4 {
		wg.Go(func() {
			var d quota.Decision
			for {
				select {
				case <-stop:
					return
				default:
				}
				before := time.Now().UnixNano()
				if err := n.Reserve(t.Context(), gate(), chat("acme", 10, 10), &d); err == nil && d.Allowed {
					issued <- before
				}
			}
		})
	}
	eventually(t, func() bool { return len(issued) > 100 })
	_, revision, err := n.store.SetStatus(t.Context(), mutation(), "acme", quota.AccountSuspended, "unpaid")
	must(t, 0, err)
	must(t, 0, n.AwaitRevision(t.Context(), revision))
	returned := time.Now().UnixNano()
	if d := n.reserve(chat("acme", 10, 10)); d.Allowed || d.Denial.Reason != quota.DeniedAccountSuspended {
		t.Errorf("I13: after Suspend(sync) the answer is %+v", d)
	}
	close(stop)
	wg.Wait()
	close(issued)
	for began := range issued {
		if began > returned {
			t.Fatalf("I13: a token was issued %d ns after Suspend(sync) returned", began-returned)
		}
	}
}

func TestBudgetsByLabelValue(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	n.budget(quota.Budget{Account: "acme", ID: "per-user", Cap: 5e6, Window: window.Lifetime, LabelKey: "user", WarnPercent: 50})
	ask := func(user string) *quota.Decision {
		r := chat("acme", 1000, 1000)
		r.Labels = labels(t, map[string]string{"user": user})
		return n.reserve(r)
	}
	d := ask("ann")
	if !d.Allowed || len(d.Warnings) != 1 {
		t.Fatalf("ann's first: %+v; want it allowed with a warning at 80 %%", d)
	}
	n.commit(d.Token, 1000, 1000)
	no := chat("acme", 1000, 1000)
	no.Labels = labels(t, map[string]string{"user": "ann"})
	no.Candidates = []string{"counted"}
	if d := n.reserve(no); d.Allowed || d.Denial.Reason != quota.DeniedBudget || d.Denial.Level.Selector != "ann" || d.Denial.Transient {
		t.Fatalf("ann's second: %+v; want her own budget to deny it for good", d)
	}
	if d := ask("bob"); !d.Allowed || d.Feature != "chat" {
		t.Fatalf("bob's first: %+v", d)
	}
	n.audited()
}

func TestIdempotencyKeys(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	r := chat("acme", 1000, 1000)
	r.Key = "k"
	first := n.granted(r)
	if again := n.granted(r); !again.Replayed || string(again.Token) != string(first.Token) {
		t.Fatalf("same key, same content: %+v", again)
	}
	other := chat("acme", 999, 999)
	other.Key = "k"
	wantReason(t, n.Reserve(t.Context(), gate(), other, &quota.Decision{}), quota.ReasonIdempotencyKeyReused)
	another := &authz.Principal{Name: "somebody-else", Role: authz.RoleGate}
	var d quota.Decision
	if err := n.Reserve(t.Context(), another, other, &d); err != nil || !d.Allowed || d.Replayed {
		t.Fatalf("another principal's key of that name: %+v, %v", d, err)
	}
	_, err := n.Commit(t.Context(), another, &quota.Settle{Token: first.Token, Usage: usage(1, 1)})
	wantReason(t, err, quota.ReasonCallerNotAllowed)
	_, err = n.Commit(t.Context(), gate(), &quota.Settle{Token: first.Token[:20], Usage: usage(1, 1)})
	wantReason(t, err, quota.ReasonTokenInvalid)
}

func TestCheckHoldsNothing(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 5e6)
	for range 3 {
		var d quota.Decision
		if err := n.Check(t.Context(), gate(), chat("acme", 1000, 1000), &d); err != nil || !d.Allowed || d.Held != 4e6 || len(d.Token) != 0 {
			t.Fatalf("check: %+v, %v", d, err)
		}
	}
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Available != 5e6 || b.Held != 0 {
		t.Fatalf("balance %+v after checks only", b)
	}
}

func TestHalfOfAHealthyBalanceSurvivesACrash(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 1e12)
	for range 200 {
		n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
	}
	left := n.granted(chat("acme", 1000, 1000)) // lives on
	n.stop()                                    // as good as a crash: nothing is returned, nothing said

	n2 := open(t, n.path, quick(), func(s quota.Store) quota.Store { return s })
	b := must1(t)(n2.Balance(t.Context(), "acme"))
	if b.Available < 5e11 {
		t.Fatalf("available after a crash: %d; want at least half of the balance", b.Available)
	}
	n2.granted(chat("acme", 1000, 1000))
	if r := n2.commit(left.Token, 1000, 10); r.Late || r.Uncovered != 0 || r.Charged != 1_030_000 {
		t.Fatalf("commit of the predecessor's reservation: %+v; want it from the hold", r)
	}
	eventually(t, func() bool {
		b := must1(t)(n2.Balance(t.Context(), "acme"))
		return b.Elsewhere == 0
	})
	n2.audited()
}

func TestDrainLeavesNothingOut(t *testing.T) {
	n := world(t)
	n.catalogue()
	n.account("acme", "", 100e6)
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
	must(t, 0, n.Drain(t.Context()))
	wantReason(t, n.Reserve(t.Context(), gate(), chat("acme", 1, 1), &quota.Decision{}), quota.ReasonShuttingDown)
	n.stop()

	n2 := open(t, n.path, quick(), func(s quota.Store) quota.Store { return s })
	if b := must1(t)(n2.Balance(t.Context(), "acme")); b.Available != 96e6 || b.Elsewhere != 0 {
		t.Fatalf("balance after a drain %+v; want 96 credits, none elsewhere", b)
	}
}

// A drain whose returns do not get through says all the same that its lanes may be closed.
func TestDrainWithoutReturns(t *testing.T) {
	n, f := faulty(t)
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
	f.Inject(faultstore.Fault{Op: "Return", Many: -1, Kind: faultstore.FailBefore})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	must(t, 0, n.Drain(ctx))
	if f.Calls("Drain") == 0 {
		t.Fatal("the incarnation is not drained")
	}
	n.stop()

	n2 := open(t, n.path, quick(), func(s quota.Store) quota.Store { return s })
	eventually(t, func() bool {
		b := must1(t)(n2.Balance(t.Context(), "acme"))
		return b.Available == 996e6 && b.Elsewhere == 0
	})
}
