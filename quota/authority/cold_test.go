package authority_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/faultstore"
)

// TestColdAccounts: many accounts that a node does not know, asked for at once, are read together
// and drawn for together, each gets its own, and one that is not there is in nobody's way.
func TestColdAccounts(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		const accounts = 300
		n, f := member(t, s)
		n.catalogue()
		id := func(i int) string { return fmt.Sprintf("cold-%d", i) }
		for i := range accounts {
			n.newAccount(id(i), "", 1e9)
		}
		must(t, 0, n.Refresh(t.Context()))
		reads, draws := f.Calls("Profiles"), f.Calls("Draw")
		reading := f.Inject(faultstore.Fault{Op: "Profiles", Many: -1, Kind: faultstore.Hold})
		drawing := f.Inject(faultstore.Fault{Op: "Draw", Many: -1, Kind: faultstore.Hold})
		got := make([]quota.Decision, accounts+1) // one more than there are
		var all sync.WaitGroup
		for i := range got {
			all.Go(func() {
				if err := n.Reserve(t.Context(), gate(), chat(id(i), outputOf(i), outputOf(i)), &got[i]); err != nil {
					t.Errorf("account %d: %v", i, err)
				}
			})
		}
		synctest.Wait() // all are asked for
		reading.Release()
		synctest.Wait() // all are known, and drawn for
		drawing.Release()
		all.Wait()

		reads, draws = f.Calls("Profiles")-reads, f.Calls("Draw")-draws
		t.Logf("%d accounts: %d reads, %d draws", accounts, reads, draws)
		if reads+draws > accounts/10 {
			t.Errorf("%d accounts cost %d reads and %d draws", accounts, reads, draws)
		}
		for i := range accounts {
			held := must1(t)(n.Balance(t.Context(), id(i))).Held
			if want := 1e6 + outputOf(i)*3000; !got[i].Allowed || held != want {
				t.Errorf("account %d: allowed %t, %d held of %d", i, got[i].Allowed, held, want)
			}
		}
		if d := &got[accounts]; d.Denial.Reason != quota.DeniedAccountUnknown {
			t.Errorf("an account that is not there: %+v", d.Denial)
		}
		n.audited()
	})
}

// outputOf tells accounts apart by what they ask for.
func outputOf(i int) int64 { return int64(i + 1) }

// TestColdAccountThatNobodyWaitsFor: who gives up does not wait for the read, and the read is of use
// to the next.
func TestColdAccountThatNobodyWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		n.newAccount("acme", "", 1e9)
		held := f.Inject(faultstore.Fault{Op: "Profiles", Kind: faultstore.Hold})
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() {
			var d quota.Decision
			gone <- n.Reserve(ctx, gate(), chat("acme", 10, 10), &d)
		}()
		<-held.Hit()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up was told %v", err)
		}
		go func() {
			synctest.Wait()
			held.Release()
		}()
		reads := f.Calls("Profiles")
		n.granted(chat("acme", 10, 10))
		if again := f.Calls("Profiles") - reads; again != 0 {
			t.Errorf("%d reads more for the next", again)
		}
	})
}

// TestColdAccountChangedMeanwhile: an account is read, and suspended before the answer is there. The
// poll that brought the suspension found nobody to tell; what was read before it is not used (I13).
func TestColdAccountChangedMeanwhile(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		n.account("org", "", 1e9)
		n.newAccount("team", "org", 0)
		n.granted(chat("org", 10, 10)) // who pays has credits here, so that no draw notices
		held := f.Inject(faultstore.Fault{Op: "Profiles", Kind: faultstore.HoldAnswer})
		answered := make(chan quota.Decision, 1)
		go func() { answered <- *n.reserve(chat("team", 10, 10)) }()
		<-held.Hit()
		_, _, err := s.SetStatus(t.Context(), mutation(), "team", quota.AccountSuspended, "unpaid")
		must(t, 0, err)
		must(t, 0, n.Refresh(t.Context()))
		held.Release()
		if d := <-answered; d.Denial.Reason != quota.DeniedAccountSuspended {
			t.Errorf("granted %t, denied %+v", d.Allowed, d.Denial)
		}
	})
}
