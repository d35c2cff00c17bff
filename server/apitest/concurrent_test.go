package apitest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/token"
)

const (
	callers    = 64
	callsEach  = 40
	smallGrant = 200 * credit // what all of them together want is several times that
)

// till is what the callers themselves know of what they were charged.
type till struct {
	mu      sync.Mutex
	charged int64
	acks    []audit.Acknowledged
	denied  atomic.Int64
	granted atomic.Int64
}

func (l *till) settled(id string, kind quota.SettleKind, charged int64) error {
	lane, sequence, nonce, err := token.ParseReservationID(id)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.charged += charged
	l.acks = append(l.acks, audit.Acknowledged{Lane: quota.LaneID(lane), Sequence: sequence, Nonce: nonce, Kind: kind, Charged: charged})
	return nil
}

// TestManyCallersOnOneSmallAccount: however they meet, they are charged no more than there
// is, and the server's books say what they say (I2, I5, I10).
func TestManyCallersOnOneSmallAccount(t *testing.T) {
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t, b)
			w.shop()
			w.account("acme", "", smallGrant)
			w.account("acme:search", "acme", 0)
			var l till
			var wg sync.WaitGroup
			errs := make(chan error, callers)
			for i := range callers {
				wg.Go(func() { errs <- w.trade(&l, rand.New(rand.NewPCG(1, uint64(i)))) })
			}
			wg.Wait()
			close(errs)
			for err := range errs {
				if err != nil {
					t.Error(err)
				}
			}
			if l.granted.Load() < callers || l.denied.Load() == 0 {
				t.Errorf("%d granted, %d denied: the account was not small, or too small", l.granted.Load(), l.denied.Load())
			}
			if l.charged > smallGrant {
				t.Errorf("I2: charged %d of a grant of %d", l.charged, smallGrant)
			}
			w.audited(l.acks...)
			got := must(w, asGate, w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "acme"})
			if got.GetTotalMicros() != smallGrant-l.charged || got.GetHeldMicros() != 0 || got.GetDebtMicros() != 0 {
				t.Errorf("balance %v; want %d, nothing held or owed", got, smallGrant-l.charged)
			}
		})
	}
}

// trade is one caller: it reserves, uses some of what it was granted, and settles, every
// tenth time with nothing.
func (w *world) trade(l *till, r *rand.Rand) error {
	ctx := w.as(asGate)
	for range callsEach {
		account := []string{"acme", "acme:search"}[r.IntN(2)]
		resp, err := w.authority.CheckAndReserve(ctx, atLeast(work(account, "large", r.Int64N(400)), 0))
		if err != nil {
			return err
		}
		got := resp.GetReservation()
		if got == nil {
			l.denied.Add(1)
			continue
		}
		l.granted.Add(1)
		if r.IntN(10) == 0 {
			if _, err := w.authority.Release(ctx, &purserv1.ReleaseRequest{Token: got.GetToken()}); err != nil {
				return err
			}
			if err := l.settled(got.GetReservationId(), quota.Released, 0); err != nil {
				return err
			}
			continue
		}
		used := used(got.GetToken(), r.Int64N(1001), r.Int64N(got.GetGranted()[1].GetQuantity()+1))
		// Twice: an answer that got lost is asked for again.
		for again := range 2 {
			done, err := w.authority.Commit(ctx, used)
			if err != nil {
				return err
			}
			if done.GetUncoveredMicros() != 0 || done.GetOverageMicros() != 0 || done.GetReplayed() != (again == 1) {
				return fmt.Errorf("commit within the hold, time %d: %v", again+1, done)
			}
			if again == 0 {
				err = l.settled(got.GetReservationId(), quota.Committed, done.GetChargedMicros())
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
