package authority_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/storage/cockroach"
)

// databases are the shared stores there are: PostgreSQL always, CockroachDB if the
// environment names one.
func databases(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("postgresql", func(t *testing.T) { test(t, testdb.PostgreSQL(t)) })
	if url, ok := testdb.Cockroach(t); ok {
		t.Run("cockroachdb", func(t *testing.T) { test(t, url) })
	}
}

// seeds runs a test with seeds from 1 on each database: as many as the environment says, or usual.
func seeds(t *testing.T, env string, usual int, test func(t *testing.T, url string, seed uint64)) {
	if s := os.Getenv(env); s != "" {
		n, err := strconv.Atoi(s)
		usual = must(t, n, err)
	}
	databases(t, func(t *testing.T, url string) {
		must(t, 0, cockroach.Migrate(t.Context(), url))
		for seed := range uint64(usual) {
			t.Run(fmt.Sprint("seed ", seed+1), func(t *testing.T) { test(t, url, seed+1) })
		}
	})
}

func pair(t *testing.T, url string) (a, b *node) {
	t.Helper()
	return pairOf(t, url, shared())
}

// shared is quick, with a lease that does not run out while a machine with more to do than it can
// keeps a node from its database for a second.
func shared() authority.Config {
	c := quick()
	c.Lease = 5 * time.Second
	return c
}

// pairOf is pair with a configuration for the first node.
func pairOf(t *testing.T, url string, first authority.Config) (a, b *node) {
	t.Helper()
	must(t, 0, cockroach.Migrate(t.Context(), url))
	plain := func(s quota.Store) quota.Store { return s }
	first.Address = "a.example:8443"
	a = join(t, url, first, plain)
	a.catalogue()
	a.account("acme", "", 1e9)
	b = join(t, url, shared(), plain)
	return a, b
}

func TestEitherNodeSettles(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		d := a.granted(chat("acme", 1000, 1000))
		r := b.commit(d.Token, 1000, 500)
		if r.Charged != 2.5e6 || r.Uncovered != 0 || r.Late || r.Replayed {
			t.Fatalf("commit elsewhere: %+v", r)
		}
		if again := a.commit(d.Token, 1000, 500); !again.Replayed || again.Charged != r.Charged {
			t.Fatalf("the same commit at the owner: %+v", again)
		}
		_, err := a.Commit(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1, 1)})
		wantReason(t, err, quota.ReasonReservationCommitted)

		released := a.granted(chat("acme", 1000, 1000))
		if _, err := b.Release(t.Context(), gate(), &quota.Settle{Token: released.Token}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return a.Status().Reservations == 0 }) // told by notes
		over := a.granted(chat("acme", 1000, 1000))
		if r := b.commit(over.Token, 1000, 2000); r.Charged != 7e6 || r.Covered != 4e6 || r.Uncovered != 3e6 {
			t.Fatalf("commit above the hold elsewhere: %+v", r)
		}
		b.audited()
		a.audited()
		if bal := must1(t)(a.Balance(t.Context(), "acme")); bal.Total != 1e9-9.5e6 || bal.Debt != 0 {
			t.Fatalf("balance %+v", bal)
		}
	})
}

func TestSurvivorClosesTheDead(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		a.commit(a.granted(chat("acme", 1000, 1000)).Token, 1000, 500)
		held := a.granted(chat("acme", 1000, 1000))
		lost := a.granted(chat("acme", 1000, 1000))
		a.stop() // no drain: as good as a crash
		if r := b.commit(held.Token, 1000, 1000); r.Late || r.Charged != 4e6 || r.Uncovered != 0 {
			t.Fatalf("commit of a dead node's reservation: %+v", r)
		}
		eventually(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Elsewhere == 0 })
		if r := b.commit(lost.Token, 1000, 1000); !r.Late || r.Charged != 4e6 {
			t.Fatalf("commit after the lane closed: %+v; want LATE", r)
		}
		b.audited()
		if bal := must1(t)(b.Balance(t.Context(), "acme")); bal.Total != 1e9-10.5e6 {
			t.Fatalf("balance %+v", bal)
		}
	})
}

func TestPolicyReachesTheOtherNode(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		b.commit(b.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
		_, revision, err := a.store.SetStatus(t.Context(), mutation(), "acme", quota.AccountSuspended, "unpaid")
		must(t, 0, err)
		must(t, 0, a.AwaitRevision(t.Context(), revision))
		if d := b.reserve(chat("acme", 1000, 1000)); d.Allowed || d.Denial.Reason != quota.DeniedAccountSuspended {
			t.Fatalf("I13: after Suspend(sync) at a, b answers %+v", d)
		}
	})
}

// TestNoCreditIsSpentTwice runs an account dry from two nodes at once.
func TestNoCreditIsSpentTwice(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		a, b := pair(t, url)
		a.account("small", "", 100e6)
		done := make(chan int64, 8)
		for i := range 8 {
			n := a
			if i%2 == 1 {
				n = b
			}
			go func() {
				var sum int64
				defer func() { done <- sum }()
				for range 40 {
					var d quota.Decision
					if err := n.Reserve(t.Context(), gate(), chat("small", 1000, 1000), &d); err != nil || !d.Allowed {
						continue
					}
					rec, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: d.Token, Usage: usage(1000, 1000)})
					if errors.Is(err, quota.ReasonOutcomeUnknown) {
						t.Error(err)
					}
					sum += rec.Charged
				}
			}()
		}
		var spent int64
		for range 8 {
			spent += <-done
		}
		if spent > 100e6 {
			t.Errorf("I1: %d micros were spent of 100 credits", spent)
		}
		a.audited()
		b.audited()
		if bal := must1(t)(a.Balance(t.Context(), "small")); bal.Total != 100e6-spent || bal.Debt != 0 {
			t.Errorf("balance %+v after spending %d", bal, spent)
		}
	})
}
