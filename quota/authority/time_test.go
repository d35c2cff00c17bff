package authority_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/pricing"
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

// TestPlanOfANewAccount: a node that has not polled since a plan was published and an account put
// on it serves the account all the same.
func TestPlanOfANewAccount(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		a, _ := member(t, s)
		b, _ := member(t, s)
		time.Sleep(step) // both have polled
		a.catalogue()
		a.account("acme", "", 1e12)
		b.granted(chat("acme", 10, 10))
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

// TestPricesAndPlansArriveWithAPoll: at a node that made neither. What was reserved before is charged
// as it was priced then, whatever the plan says by now (R32, R37).
func TestPricesAndPlansArriveWithAPoll(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		a, _ := member(t, s)
		a.catalogue()
		a.account("acme", "", 1e9)
		b, _ := member(t, s)
		began, poll := time.Now(), authority.DefaultConfig().Poll
		quote := func() (d quota.Decision) { // draws nothing: a draw would notice by itself
			must(t, 0, b.Check(t.Context(), gate(), chat("acme", 1000, 1000), &d))
			return d
		}
		before := b.granted(chat("acme", 1000, 1000))

		time.Sleep(poll / 5)
		double := func(m string, micros int64) quota.Price {
			return quota.Price{Feature: "chat", Meter: m, Rate: pricing.Rate{PriceMicros: 2 * micros, Per: 1000}}
		}
		must(t, 0, second(s.PublishRateCard(t.Context(), mutation(), quota.RateCard{ID: "standard",
			Prices: []quota.Price{double("input_tokens", 1e6), double("output_tokens", 3e6)}})))
		when(t, func() bool { return quote().Held == 8e6 })
		wantAt(t, "priced anew", time.Since(began), poll)
		after := b.granted(chat("acme", 1000, 1000))
		if after.Held != 8e6 || after.PriceVersion <= before.PriceVersion {
			t.Errorf("%d held at price version %d, behind %d", after.Held, after.PriceVersion, before.PriceVersion)
		}

		time.Sleep(poll / 5)
		must(t, 0, second(s.PublishPlan(t.Context(), mutation(), authz.Plan{ID: "basic", RateCard: "standard",
			Entitlements: []authz.Entitlement{{Feature: "small"}}})))
		must(t, 0, second(s.Subscribe(t.Context(), mutation(), "acme", authz.PlanRef{ID: "basic"})))
		when(t, func() bool { return quote().Denial.Reason == quota.DeniedNotEntitled })
		wantAt(t, "no longer entitled", time.Since(began), 2*poll)
		if d := b.reserve(chat("acme", 1000, 1000)); d.Allowed {
			t.Errorf("allowed %s on a plan without it", d.Feature)
		}

		if r := b.commit(before.Token, 1000, 500); r.Late || r.Charged != 2.5e6 {
			t.Errorf("reserved at the old price: %+v", r)
		}
		if r := b.commit(after.Token, 1000, 500); r.Late || r.Charged != 5e6 {
			t.Errorf("reserved at the new price: %+v", r)
		}
		b.audited()
	})
}

// TestDrainWithTheStoreAway: it ends in the time that it is given. A commit meanwhile is answered for
// certain, or as OUTCOME_UNKNOWN; then another node answers it, and it is charged once.
func TestDrainWithTheStoreAway(t *testing.T) {
	const given = 35 * time.Second
	for _, tt := range []struct {
		name string
		kind faultstore.Kind
		away time.Duration
		ends bool // the drain does all that it has to
	}{
		{"comes back", faultstore.FailBefore, 8 * time.Second, true},
		{"stays away", faultstore.FailBefore, 2 * time.Minute, false},
		{"its answers are lost", faultstore.FailAfter, 2 * time.Minute, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s quota.Store) {
				b, _ := member(t, s)
				b.catalogue()
				b.account("acme", "", 1e9)
				a, f := member(t, s)
				c := authority.DefaultConfig()
				r := chat("acme", 1000, 1000)
				r.TTL = c.MaxHold
				settled, held := a.granted(r), a.granted(r)

				f.Inject(faultstore.Fault{Many: -1, Kind: tt.kind})
				defer time.AfterFunc(tt.away, f.Clear).Stop()
				answer := make(chan error, 1)
				began := time.Now()
				go func() {
					_, err := a.Commit(t.Context(), gate(), &quota.Settle{Token: settled.Token, Usage: usage(1000, 500)})
					answer <- err
				}()
				ctx, cancel := context.WithTimeout(t.Context(), given)
				defer cancel()
				err, want := a.Drain(ctx), given
				if tt.ends {
					want = c.DrainFor // for what is held
				}
				if (err == nil) != tt.ends {
					t.Errorf("drain: %v", err)
				}
				wantAt(t, "drained", time.Since(began), want)
				if err := <-answer; tt.ends {
					must(t, 0, err)
				} else {
					wantReason(t, err, quota.ReasonOutcomeUnknown)
				}
				a.stop()

				time.Sleep(4 * c.Poll) // the reaper has looked, and nothing promised was closed
				written := tt.ends || tt.kind == faultstore.FailAfter
				if r := b.commit(settled.Token, 1000, 500); r.Late || r.Charged != 2.5e6 || r.Replayed != written {
					t.Errorf("the same commit elsewhere: %+v", r)
				}
				if r := b.commit(held.Token, 1000, 1000); r.Late || r.Charged != 4e6 {
					t.Errorf("a commit of what outlived the node: %+v", r)
				}
				when(t, func() bool { return must1(t)(b.Balance(t.Context(), "acme")).Elsewhere == 0 })
				b.audited()
				if got := must1(t)(b.Balance(t.Context(), "acme")); got.Total != 1e9-6.5e6 || got.Debt != 0 {
					t.Errorf("balance %+v; want two commits charged once each", got)
				}
			})
		})
	}
}

// TestOutage takes the store away from two nodes: reservations go on from what is drawn until the
// lease ends, commits wait, and none is lost. Who comes back first buries nobody (R30).
func TestOutage(t *testing.T) {
	for _, away := range []time.Duration{8 * time.Second, 2 * time.Minute} {
		bubble(t, func(t *testing.T, s quota.Store) {
			f, c := faultstore.New(s), authority.DefaultConfig()
			a := start(t, f, c)
			a.catalogue()
			a.account("acme", "", 1e12)
			time.Sleep(c.Lease / 15) // so they do not renew at the same instant
			b := start(t, f, c)
			lives := [2]string{a.Status().Incarnation, b.Status().Incarnation}
			open := a.granted(chat("acme", 1000, 1000))

			f.SetDown(true)
			defer time.AfterFunc(away, func() { f.SetDown(false) }).Stop()
			began, stops := time.Now(), time.Until(a.Status().LeaseUntil)-c.Lease/1000-c.Skew
			answer := make(chan error, 1)
			go func() {
				_, err := a.Commit(t.Context(), gate(), &quota.Settle{Token: open.Token, Usage: usage(1000, 500)})
				answer <- err
			}()
			for time.Since(began) < min(away, stops)-time.Second {
				a.granted(chat("acme", 10, 10)) // from memory
				time.Sleep(time.Second)
			}
			if away > stops {
				when(t, a.stopped)
				wantAt(t, "refused", time.Since(began), stops)
			}
			if err := <-answer; away < c.SettleTimeout {
				must(t, 0, err)
			} else {
				wantReason(t, err, quota.ReasonOutcomeUnknown)
			}
			time.Sleep(away - time.Since(began))
			if after := when(t, func() bool { return a.Status().Ready && b.Status().Ready }); after > c.Lease/6+c.Poll+step {
				t.Errorf("back after %s", after)
			}
			if r := a.commit(open.Token, 1000, 500); r.Late || r.Charged != 2.5e6 {
				t.Errorf("the same commit again: %+v", r)
			}
			b.commit(b.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
			if now := [2]string{a.Status().Incarnation, b.Status().Incarnation}; now != lives {
				t.Errorf("R30: %v became %v", lives, now)
			}
			a.audited()
			b.audited()
			if got := must1(t)(b.Balance(t.Context(), "acme")); got.Total != 1e12-6.5e6 {
				t.Errorf("total %d; want two commits charged once each", got.Total)
			}
		})
	}
}

// TestLeaseLost cuts a node off until another one has buried it: it begins a new incarnation when it
// is back, settles what the old one issued, and that one's lanes are closed (R30, R26).
func TestLeaseLost(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		b, _ := member(t, s)
		b.catalogue()
		b.account("acme", "", 1e9)
		a, f := member(t, s)
		c, before := authority.DefaultConfig(), a.Status().Incarnation
		r := chat("acme", 1000, 1000)
		r.TTL = c.MaxHold
		early, late := a.granted(r), a.granted(r)

		f.SetDown(true)
		time.Sleep(c.Lease + c.Lease/3)
		f.SetDown(false)
		if after := when(t, func() bool { return a.Status().Ready }); after > c.Lease/6+c.Poll+step {
			t.Errorf("back after %s", after)
		}
		if a.Status().Incarnation == before {
			t.Error("it issues, and is dead in the database")
		}
		if r := a.commit(early.Token, 1000, 500); r.Late || r.Charged != 2.5e6 {
			t.Errorf("commit in the old incarnation's lane: %+v", r)
		}
		a.commit(a.granted(chat("acme", 1000, 1000)).Token, 1000, 1000)
		when(t, func() bool { return oldLanesClosed(a, before) })
		if r := a.commit(late.Token, 1000, 1000); !r.Late || r.Charged != 4e6 {
			t.Errorf("commit after the old lane closed: %+v; want LATE", r)
		}
		a.audited()
		if got := must1(t)(a.Balance(t.Context(), "acme")); got.Total != 1e9-10.5e6 {
			t.Errorf("total %d; want three commits charged once each", got.Total)
		}
	})
}

// clockOff is a clock that is wrong by so much.
type clockOff time.Duration

func (c clockOff) Now() time.Time { return time.Now().Add(time.Duration(c)) }

// TestWrongClock: a node whose clock is an hour off goes by the database's. What nobody settles
// expires in time, and a key is remembered for as long as it should be.
func TestWrongClock(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, 0, -time.Hour} {
		bubble(t, func(t *testing.T, s quota.Store) {
			c := authority.DefaultConfig()
			n := startWith(t, c, authority.Deps{Store: s, Clock: clockOff(off)})
			n.catalogue()
			n.account("acme", "", 1e9)
			keyed := chat("acme", 10, 10)
			keyed.Key, keyed.TTL = "once", quota.DefaultTTL
			n.granted(keyed)
			time.Sleep(quota.DefaultTTL / 2)
			if !n.granted(keyed).Replayed {
				t.Errorf("a clock %v off: the key was forgotten after %v", off, quota.DefaultTTL/2)
			}
			time.Sleep(quota.DefaultTTL + c.Grace)
			if held := must1(t)(n.Balance(t.Context(), "acme")).Held; held != 0 {
				t.Errorf("a clock %v off: %d is held %v after its end", off, held, quota.DefaultTTL+c.Grace)
			}
			n.audited()
		})
	}
}
