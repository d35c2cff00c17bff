package authority_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/faultstore"
)

// TestColdAccountCostsItsDraw: the first request of an account that was there when the node began,
// that was made while it ran, or that was changed, costs one transaction.
func TestColdAccountCostsItsDraw(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		other := crowd(t, s, 150) // more than one read brings
		n, f := member(t, s)
		time.Sleep(time.Second) // two polls
		costs(t, n, f, "cold-000", 1)
		costs(t, n, f, "cold-149", 1)

		other.newAccount("new", "", 1e9)
		other.newAccount("team", "new", 0)
		time.Sleep(time.Second)
		costs(t, n, f, "new", 1)
		costs(t, n, f, "team", 0) // its payer has just drawn

		must(t, 0, second(s.UpdateAccount(t.Context(), mutation(), quota.Account{ID: "cold-070", DisplayName: "Old", TimeZone: "UTC"}, 0)))
		other.newBudget(quota.Budget{Account: "new", ID: "all", Cap: 1e9, Window: window.Lifetime})
		time.Sleep(time.Second)
		costs(t, n, f, "cold-070", 1)
		reads := f.Calls("Profiles")
		n.granted(chat("team", 10, 10)) // of whom the parent changed
		if again := f.Calls("Profiles") - reads; again != 0 {
			t.Errorf("an account whose parent changed was read %d times more", again)
		}
		n.audited()
	})
}

// crowd is a node that has made accounts, cold-000 and so on: the next one finds them.
func crowd(t *testing.T, s quota.Store, accounts int) *node {
	t.Helper()
	n, _ := member(t, s)
	n.catalogue()
	for i := range accounts {
		n.newAccount(fmt.Sprintf("cold-%03d", i), "", 1e9)
	}
	return n
}

// costs reserves for an account and compares the calls of the store with what they should be. No
// time passes meanwhile, so that they are this request's.
func costs(t *testing.T, n *node, f *faultstore.Store, account string, want int) {
	t.Helper()
	synctest.Wait()
	before, draws := f.Calls(faultstore.Any), f.Calls("Draw")
	n.granted(chat(account, 10, 10))
	if all, drawn := f.Calls(faultstore.Any)-before, f.Calls("Draw")-draws; all != want || drawn != want {
		t.Errorf("%s cost %d calls of the store, %d of them draws; want %d", account, all, drawn, want)
	}
}

// TestDenialOfAHalfMadeAccount: a node reads an account ahead of need while an admin is still at
// work on it. That it has no right yet is not told to anybody who asks when it has.
func TestDenialOfAHalfMadeAccount(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		ctx := t.Context()
		ask := map[string]func(*quota.Decision) error{
			"reserve": func(d *quota.Decision) error { return n.Reserve(ctx, gate(), chat("reserve", 10, 10), d) },
			"check":   func(d *quota.Decision) error { return n.Check(ctx, gate(), chat("check", 10, 10), d) },
			"attempt": func(d *quota.Decision) error { return attempted(t, n, "attempt", d) },
		}
		for id, asked := range ask {
			must(t, 0, second(s.CreateAccount(ctx, mutation(), quota.Account{ID: id, TimeZone: "UTC"})))
			must(t, 0, n.Refresh(ctx))
			synctest.Wait() // it is read, without a plan and without credits
			must(t, 0, second(s.Subscribe(ctx, mutation(), id, authz.PlanRef{ID: "pro"})))
			n.newGrant(id, "first", 1e9)
			var d quota.Decision
			if err := asked(&d); err != nil || !d.Allowed {
				t.Errorf("%s: %v, allowed %t, denied %+v", id, err, d.Allowed, d.Denial)
			}
		}

		_, _, err := s.SetStatus(ctx, mutation(), "reserve", quota.AccountSuspended, "unpaid")
		must(t, 0, err)
		must(t, 0, n.Refresh(ctx))
		synctest.Wait()
		reads := f.Calls("Profiles")
		for range 5 {
			if d := n.reserve(chat("reserve", 10, 10)); d.Denial.Reason != quota.DeniedAccountSuspended {
				t.Errorf("granted %t, denied %+v", d.Allowed, d.Denial)
			}
		}
		if again := f.Calls("Profiles") - reads; again != 1 {
			t.Errorf("five denials had the account read %d times; want once", again)
		}
	})
}

// attempted is Reserve by steps that do not block.
func attempted(t *testing.T, n *node, account string, d *quota.Decision) error {
	w := make(waker, 1)
	attempt := &authority.Attempt{Waker: w}
	for {
		progress, err := n.Attempt(gate(), chat(account, 10, 10), attempt, d)
		switch progress {
		case authority.Done:
			return err
		case authority.Waiting:
			<-w
		case authority.Reading:
			must(t, 0, n.PrefetchAccount(t.Context(), account))
		}
	}
}

type waker chan struct{}

func (w waker) Wake() { w <- struct{}{} }

// TestPreloadHasBounds: more accounts than there is room for are not read ahead of need, and what
// is in memory stays there.
func TestPreloadHasBounds(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		crowd(t, s, 300)
		c := authority.DefaultConfig()
		c.MaxAccounts = 100
		f := faultstore.New(s)
		n := start(t, f, c)
		time.Sleep(time.Minute)
		if got := n.Status().Accounts; got != 100 {
			t.Errorf("%d accounts are in memory; want 100", got)
		}
		if reads := f.Calls("Profiles"); reads != 2 {
			t.Errorf("they were read by %d calls; want 2", reads)
		}
		costs(t, n, f, "cold-010", 1)
		n.granted(chat("cold-299", 10, 10))
		n.audited()
	})
}

// TestPreloadOutlivesAnOutage: reads that fail are not the end of it.
func TestPreloadOutlivesAnOutage(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		crowd(t, s, 200)
		f := faultstore.New(s)
		f.Inject(faultstore.Fault{Op: "ListAccounts", Many: 3, Kind: faultstore.FailBefore})
		f.Inject(faultstore.Fault{Op: "Profiles", Many: 1, Kind: faultstore.FailBefore})
		n := start(t, f, authority.DefaultConfig())
		time.Sleep(10 * time.Second)
		costs(t, n, f, "cold-000", 1)
		costs(t, n, f, "cold-199", 1)
		n.audited()
	})
}
