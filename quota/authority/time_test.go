package authority_test

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/storage/faultstore"
	"github.com/purser-io/purser/storage/sqlite"
)

// What guarantees.md says about time, with the defaults, to the instant: these tests run in the
// fake time of testing/synctest, which passes only when every goroutine waits for it. A bubble
// does not end while a goroutine lives, so nothing is left running either.

// shareable is a store that nodes share: no node closes it.
type shareable struct{ quota.Store }

func (shareable) Close() error { return nil }

// bubble runs a test in fake time, on a store for nodes that share it.
func bubble(t *testing.T, test func(t *testing.T, s quota.Store)) {
	synctest.Test(t, func(t *testing.T) {
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { must(t, 0, s.Close()) })
		test(t, shareable{s})
	})
}

// member is a node with the defaults, one of several as far as it knows.
func member(t *testing.T, s quota.Store) (*node, *faultstore.Store) {
	t.Helper()
	f := faultstore.New(s)
	return start(t, f, authority.DefaultConfig()), f
}

// when lets time pass, in small steps, until ok; it tells for how long.
func when(t *testing.T, ok func() bool) time.Duration {
	t.Helper()
	for start := time.Now(); ; time.Sleep(step) {
		passed := time.Since(start)
		if ok() {
			return passed
		}
		if passed > 5*time.Minute {
			t.Fatal("it did not come to pass within five minutes")
		}
	}
}

// step is how exactly when measures: what else happens at the same instant may come behind it.
const step = 10 * time.Millisecond

// wantAt fails unless got is at want, or within a step behind it.
func wantAt(t *testing.T, what string, got, want time.Duration) {
	t.Helper()
	if got < want || got > want+step {
		t.Errorf("%s after %s, want %s", what, got, want)
	}
}

func (n *node) stopped() bool {
	n.t.Helper()
	var d quota.Decision
	err := n.Reserve(n.t.Context(), gate(), chat("acme", 10, 10), &d)
	if err != nil {
		wantReason(n.t, err, quota.ReasonStoreUnavailable)
	}
	return err != nil
}

// TestLeaseEndsHereFirst: a node that cannot renew its lease stops before the database lets others
// bury it (I6), and comes back with the next renewal and poll.
func TestLeaseEndsHereFirst(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		n.account("acme", "", 1e12)
		c := authority.DefaultConfig()
		time.Sleep(7 * time.Second)
		f.Inject(faultstore.Fault{Op: "Renew", Many: -1, Kind: faultstore.FailBefore})
		left := time.Until(n.Status().LeaseUntil)
		if left != 5*time.Second+c.Lease-7*time.Second { // it was renewed at 5 s
			t.Fatalf("in the database %s of the lease are left", left)
		}
		wantAt(t, "refused", when(t, n.stopped), left-c.Lease/1000-c.Skew)
		f.Clear()
		if after := when(t, func() bool { return !n.stopped() }); after > c.Lease/6+c.Poll+step {
			t.Errorf("back after %s", after)
		}
		n.audited()
	})
}

// TestPolicyIsNeverOlderThanALease: a node that cannot poll stops when what it knows of policy is a
// lease old, though it renews its lease (R32).
func TestPolicyIsNeverOlderThanALease(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		n.account("acme", "", 1e12)
		c := authority.DefaultConfig()
		time.Sleep(7*time.Second + 200*time.Millisecond)
		f.Inject(faultstore.Fault{Op: "Poll", Many: -1, Kind: faultstore.FailBefore})
		wantAt(t, "refused", when(t, n.stopped), c.Lease-200*time.Millisecond) // it polled at 7 s
		if until := n.Status().LeaseUntil; time.Until(until) <= 0 {
			t.Error("its lease ran out as well")
		}
		f.Clear()
		if after := when(t, func() bool { return !n.stopped() }); after > c.Poll+step {
			t.Errorf("back after %s", after)
		}
	})
}

// TestSuspensionArrivesWithAPoll: another node obeys within a poll, and to whom it is said with
// sync, when that returns.
func TestSuspensionArrivesWithAPoll(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		a, _ := member(t, s)
		a.catalogue()
		a.account("acme", "", 1e12)
		b, _ := member(t, s)
		c := authority.DefaultConfig()
		suspended := func() bool { // Check draws nothing: a draw would notice by itself
			var d quota.Decision
			must(t, 0, b.Check(t.Context(), gate(), chat("acme", 10, 10), &d))
			return d.Denial.Reason == quota.DeniedAccountSuspended
		}
		b.granted(chat("acme", 10, 10))
		set := func(status quota.AccountStatus) int64 {
			_, revision, err := s.SetStatus(t.Context(), mutation(), "acme", status, "unpaid")
			return must(t, revision, err)
		}
		time.Sleep(c.Poll / 5)
		set(quota.AccountSuspended)
		wantAt(t, "suspended", when(t, suspended), c.Poll-c.Poll/5)
		set(quota.AccountActive)
		when(t, func() bool { return !suspended() })
		time.Sleep(c.Poll / 5)
		began, revision := time.Now(), set(quota.AccountSuspended)
		must(t, 0, a.AwaitRevision(t.Context(), revision))
		if passed := time.Since(began); passed > c.Poll {
			t.Errorf("sync returned after %s", passed)
		}
		if !suspended() {
			t.Error("I13: sync returned, and it is not obeyed")
		}
	})
}

// TestFlushThatHangs: a flush is given up after its limit, though its write has landed, and sent
// again. The caller waits, for SettleTimeout at most.
func TestFlushThatHangs(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		n, f := member(t, s)
		n.catalogue()
		n.account("acme", "", 1e9)
		c := authority.DefaultConfig()
		const limit = 5 * time.Second // for one call of the store
		first, second := n.granted(chat("acme", 1000, 1000)), n.granted(chat("acme", 1000, 1000))

		f.Inject(faultstore.Fault{Op: "Append", Kind: faultstore.HoldAnswer})
		began := time.Now()
		r := n.commit(first.Token, 1000, 500)
		if passed := time.Since(began); r.Charged != 2.5e6 || r.Late || passed < limit || passed > limit+time.Second {
			t.Errorf("after %s the commit is %+v", passed, r)
		}

		f.Inject(faultstore.Fault{Op: "Append", Many: 3, Kind: faultstore.HoldAnswer})
		began = time.Now()
		_, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: second.Token, Usage: usage(1000, 500)})
		wantReason(t, err, quota.ReasonOutcomeUnknown)
		if passed := time.Since(began); passed != c.SettleTimeout {
			t.Errorf("OUTCOME_UNKNOWN after %s", passed)
		}
		if again := n.commit(second.Token, 1000, 500); again.Charged != 2.5e6 || again.Late {
			t.Errorf("the same commit again: %+v", again)
		}
		n.audited()
		if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 1e9-5e6 {
			t.Errorf("total %d; want two commits charged once each", b.Total)
		}
	})
}

// TestDrainWaitsForHolds: until they are settled, or for DrainFor; what one that is left holds comes
// home when its promise is over, and all else at once.
func TestDrainWaitsForHolds(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		b, _ := member(t, s)
		b.catalogue()
		b.account("acme", "", 1e9)
		c := authority.DefaultConfig()
		look := 2 * c.Poll // how often the reaper does

		a, _ := member(t, s)
		held := a.granted(chat("acme", 1000, 1000))
		done := make(chan error, 1)
		began := time.Now()
		go func() { done <- a.Drain(t.Context()) }()
		time.Sleep(time.Second)
		a.commit(held.Token, 1000, 1000)
		must(t, 0, <-done)
		wantAt(t, "drained", time.Since(began), time.Second)
		a.stop()
		if after := when(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Elsewhere == 0 }); after > look+step {
			t.Errorf("all is home after %s", after)
		}

		a, _ = member(t, s)
		r := chat("acme", 1000, 1000)
		r.TTL = 40 * time.Second
		a.granted(r)
		began = time.Now()
		must(t, 0, a.Drain(t.Context()))
		wantAt(t, "drained", time.Since(began), c.DrainFor)
		a.stop()
		elsewhere := must1(t)(b.Balance(t.Context(), "acme")).Elsewhere
		if elsewhere != 4e6 {
			t.Errorf("%d are out, want what is held", elsewhere)
		}
		when(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Elsewhere == 0 })
		promised := r.TTL + c.Grace
		if after := time.Since(began); after < promised || after > promised+look+step {
			t.Errorf("it is home after %s, promised for %s", after, promised)
		}
		b.audited()
	})
}

// TestCrashedNodesCreditsComeHome: after lease, longest hold, grace and twice the skew, and the next
// look of the reaper; not before (I7).
func TestCrashedNodesCreditsComeHome(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		b, _ := member(t, s)
		b.catalogue()
		b.account("acme", "", 1e9)
		a, _ := member(t, s)
		time.Sleep(5 * time.Second) // that is when it renews
		synctest.Wait()
		r := chat("acme", 1000, 1000)
		r.TTL = 60 * time.Second
		held := a.granted(r)
		c := authority.DefaultConfig()
		began := time.Now()
		a.stop()
		out := must1(t)(b.Balance(t.Context(), "acme")).Elsewhere
		if out < 4e6 {
			t.Fatalf("%d are out", out)
		}
		promised := c.Lease + c.MaxHold + c.Grace + 2*c.Skew
		time.Sleep(promised - step - time.Since(began))
		if now := must1(t)(b.Balance(t.Context(), "acme")).Elsewhere; now != out {
			t.Fatalf("%d of %d are out, before %s have passed", now, out, promised)
		}
		if r := b.commit(held.Token, 1000, 500); r.Late || r.Charged != 2.5e6 {
			t.Errorf("a commit while the lane is open: %+v", r)
		}
		when(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Elsewhere == 0 })
		after := time.Since(began)
		if after < promised || after > promised+2*c.Poll+step {
			t.Errorf("they are home after %s, want %s", after, promised)
		}
		t.Logf("home after %s, promised are %s", after, promised)
		b.audited()
	})
}
