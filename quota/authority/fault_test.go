package authority_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/faultstore"
)

// faulty is a node whose store can be made to fail.
func faulty(t testing.TB) (*node, *faultstore.Store) {
	t.Helper()
	var f *faultstore.Store
	n := open(t, filepath.Join(t.TempDir(), "purser.db"), quick(), func(s quota.Store) quota.Store {
		f = faultstore.New(s)
		return f
	})
	n.catalogue()
	n.account("acme", "", 1e9)
	return n, f
}

// TestLostAnswersChargeOnce loses answers and requests of every write on the data plane, one
// kind at a time: the callers must not notice more than a delay, and the books must balance.
func TestLostAnswersChargeOnce(t *testing.T) {
	for _, op := range []faultstore.Op{"Append", "Draw", "Return", "Project"} {
		for _, kind := range []faultstore.Kind{faultstore.FailAfter, faultstore.Swallow, faultstore.FailBefore} {
			n, f := faulty(t)
			f.Inject(faultstore.Fault{Op: op, Many: 3, Kind: kind})
			charged := int64(0)
			for range 20 {
				var d quota.Decision
				err := n.Reserve(t.Context(), gate(), chat("acme", 1000, 1000), &d)
				if err != nil { // a draw that surely failed is told to the caller, as definite
					wantReason(t, err, quota.ReasonStoreUnavailable)
					continue
				}
				charged += n.commit(d.Token, 1000, 700).Charged
			}
			n.audited()
			if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 1e9-charged {
				t.Errorf("%s, fault %d: total %d; want 1e9 - %d", op, kind, b.Total, charged)
			}
			n.stop()
		}
	}
}

// TestNoDrawIsForgotten loses the answer of a draw and then fails its next sendings, which
// says nothing about the first: its allotment must come to be known (I15).
func TestNoDrawIsForgotten(t *testing.T) {
	n, f := faulty(t)
	next := f.Calls("Draw") + 1
	f.Inject(faultstore.Fault{Op: "Draw", Call: next, Kind: faultstore.FailAfter})
	f.Inject(faultstore.Fault{Op: "Draw", Call: next + 1, Many: 2, Kind: faultstore.FailBefore})
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Elsewhere != 0 || b.Available != 1e9-4e6 {
		t.Errorf("balance %+v; want all that is out known here", b)
	}
	n.audited()
}

// TestZombieAppendIsHarmless lets the first sending of a batch land after the second one and
// after more was written behind it (race 18, I11).
func TestZombieAppendIsHarmless(t *testing.T) {
	n, f := faulty(t)
	zombie := f.Inject(faultstore.Fault{Op: "Append", Kind: faultstore.LandLate})
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 500)
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 500)
	zombie.Release()
	n.commit(n.granted(chat("acme", 1000, 1000)).Token, 1000, 500)
	n.audited()
	if b := must1(t)(n.Balance(t.Context(), "acme")); b.Total != 1e9-3*2.5e6 {
		t.Errorf("total %d; want three commits charged once each", b.Total)
	}
}

// TestCommitBehindADroppedRelease closes the lane of a reservation while its release is queued
// and a commit waits for that one's fate. The release is dropped, so the commit is charged: an
// answer that says so much without an error would be usage that nobody ever pays.
func TestCommitBehindADroppedRelease(t *testing.T) {
	n, f := faulty(t)
	d := n.granted(chat("acme", 1000, 1000))
	f.Inject(faultstore.Fault{Op: "Append", Many: -1, Kind: faultstore.FailBefore})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := n.Release(context.WithoutCancel(t.Context()), gate(), &quota.Settle{Token: d.Token}); err != nil {
			t.Errorf("release: %v", err)
		}
	})
	eventually(t, func() bool { return n.Status().Queued == 1 })
	wg.Go(func() {
		r, err := n.Commit(context.WithoutCancel(t.Context()), gate(), &quota.Settle{Token: d.Token, Usage: usage(1000, 500)})
		if err != nil || r.State != quota.Committed || !r.Late || r.Charged != 2.5e6 {
			t.Errorf("commit: %+v, %v; want it charged LATE", r, err)
		}
	})
	before := n.Status().Incarnation
	must(t, 0, n.store.BuryPredecessors(t.Context(), "nobody", quick().MaxHold+quick().Grace))
	eventually(t, func() bool { return oldLanesClosed(n, before) })
	f.Clear()
	wg.Wait()
	n.audited()
}

// TestOrphansAreBounded fences all lanes of a node that cannot begin a new incarnation: commits
// wait for a lane, within the bound of its queue.
func TestOrphansAreBounded(t *testing.T) {
	const bound = 16
	c := quick()
	c.SettleQueue, c.SettleTimeout = bound, 100*time.Millisecond
	var f *faultstore.Store
	n := open(t, filepath.Join(t.TempDir(), "purser.db"), c, func(s quota.Store) quota.Store {
		f = faultstore.New(s)
		return f
	})
	n.catalogue()
	n.account("acme", "", 1e9)
	var tokens [][]byte
	for range bound + 1 {
		tokens = append(tokens, n.granted(chat("acme", 1, 1)).Token)
	}
	f.Inject(faultstore.Fault{Op: "Register", Many: -1, Kind: faultstore.FailBefore})
	var lanes []quota.LaneID
	must(t, 0, n.store.Audit(t.Context(), func(r quota.AuditReader) error {
		return r.Lanes(func(l quota.LaneRow) error {
			lanes = append(lanes, l.Lane)
			return nil
		})
	}))
	for _, l := range lanes {
		must(t, 0, n.store.Fence(t.Context(), l))
	}
	var wg sync.WaitGroup
	for _, token := range tokens[:bound] {
		wg.Go(func() {
			if _, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: token, Usage: usage(1, 1)}); !errors.Is(err, quota.ReasonOutcomeUnknown) {
				t.Errorf("without a lane: %v", err)
			}
		})
	}
	wg.Wait()
	_, err := n.Commit(t.Context(), gate(), &quota.Settle{Token: tokens[bound], Usage: usage(1, 1)})
	wantReason(t, err, quota.ReasonServerOverloaded)
	f.Clear()
	eventually(t, func() bool { return n.Status().Ready })
	for _, token := range tokens {
		var r quota.Receipt
		eventually(t, func() bool { // what waited fills the new lane's queue, and flows off
			var err error
			r, err = n.Commit(t.Context(), gate(), &quota.Settle{Token: token, Usage: usage(1, 1)})
			return !errors.Is(err, quota.ReasonServerOverloaded) && !errors.Is(err, quota.ReasonOutcomeUnknown)
		})
		if !r.Late {
			t.Errorf("commit afterwards: %+v; want LATE", r)
		}
	}
	n.audited()
}

func oldLanesClosed(n *node, incarnation string) bool {
	closed := true
	err := n.store.Audit(n.t.Context(), func(r quota.AuditReader) error {
		return r.Lanes(func(l quota.LaneRow) error {
			closed = closed && (l.Incarnation != incarnation || l.State == quota.LaneClosed)
			return nil
		})
	})
	return must(n.t, closed, err)
}
