package relational_test

import (
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
	"github.com/purser-io/purser/storage/sqlite"
	"github.com/purser-io/purser/storage/storagetest"
)

// twice is a driver that runs every transaction a first time for nothing, as a database does
// after a serialization failure.
type twice struct{ relational.Driver }

var errAgain = errors.New("run again")

func (d twice) Write(ctx context.Context, fn func(relational.Tx) error) error {
	return d.again(ctx, d.Driver.Write, fn)
}

func (d twice) Snapshot(ctx context.Context, fn func(relational.Tx) error) error {
	return d.Read(ctx, fn)
}

func (d twice) Read(ctx context.Context, fn func(relational.Tx) error) error {
	return d.again(ctx, d.Driver.Read, fn)
}

func (d twice) again(ctx context.Context, run func(context.Context, func(relational.Tx) error) error, fn func(relational.Tx) error) error {
	err := run(ctx, func(tx relational.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return errAgain
	})
	if !errors.Is(err, errAgain) {
		return err
	}
	return run(ctx, fn)
}

// openStore opens an empty store with a clock that only the test moves.
func openStore(t testing.TB) (*sqlite.Store, *atomic.Int64) {
	t.Helper()
	var clock atomic.Int64
	clock.Store(time.Date(2026, time.March, 4, 10, 30, 0, 0, time.UTC).UnixNano())
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "store.db"), Clock: clock.Load})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s, &clock
}

// TestEveryTransactionMayRunAgain is the driver's contract: closures keep nothing between runs.
func TestEveryTransactionMayRunAgain(t *testing.T) {
	storagetest.Run(t, storagetest.Harness{Name: "twice", Open: func(t testing.TB) storagetest.Opened {
		s, clock := openStore(t)
		return storagetest.Opened{Store: relational.New(twice{s.Driver}), Now: clock.Load,
			Advance: func(d time.Duration) { clock.Add(int64(d)) }}
	}})
}

const (
	lane  quota.LaneID = 100
	guest quota.LaneID = 101
)

// node registers an incarnation and an account that pays itself.
func node(t *testing.T, s *sqlite.Store, now int64) {
	t.Helper()
	_, err := s.Register(t.Context(), quota.Registration{Incarnation: "i1", Lanes: []quota.LaneID{lane}, Guest: guest,
		Lease: time.Hour, Hold: time.Hour})
	if err != nil {
		t.Fatalf("Register = %v", err)
	}
	if _, err := s.CreateAccount(t.Context(), quota.Mutation{Principal: "admin", Now: now}, quota.Account{ID: "acme", TimeZone: "UTC"}); err != nil {
		t.Fatalf("CreateAccount = %v", err)
	}
}

func grant(t *testing.T, s *sqlite.Store, id string, now, start, amount int64) {
	t.Helper()
	_, err := s.CreateGrant(t.Context(), quota.Mutation{Principal: "admin", Now: now}, "acme", quota.Pot{ID: quota.GrantPotID(id),
		Kind: quota.PotWallet, Granted: amount, Start: start, End: quota.Never, GrantKind: quota.GrantPurchased})
	if err != nil {
		t.Fatalf("CreateGrant = %v", err)
	}
}

func draw(t *testing.T, s *sqlite.Store, now int64, first quota.AllotmentNo, amount int64) quota.Drawn {
	t.Helper()
	p, err := s.Profile(t.Context(), "acme")
	if err != nil {
		t.Fatalf("Profile = %v", err)
	}
	got, err := s.Draw(t.Context(), []quota.Draw{{Incarnation: "i1", Lane: lane, Payer: "acme", Epochs: p.Epochs(), LiveNodes: 1, Now: now,
		Wants: []quota.Want{{Kind: quota.PotWallet, Amount: amount, Floor: amount, First: first}}}})
	if err != nil || got[0].Err != nil {
		t.Fatalf("Draw = %v, %v", got, err)
	}
	return got[0].Drawn[0]
}

// A debt made while a later grant was not yet effective is paid by the draw that finds the
// grant open: nothing else comes by to do it, and the wallet would stay shut (R50).
func TestAGrantThatBecomesEffectivePaysDebt(t *testing.T) {
	s, clock := openStore(t)
	now := clock.Load()
	node(t, s, now)
	later := now + int64(time.Minute)
	grant(t, s, "later", now, later, 100)
	_, err := s.Project(t.Context(), &quota.Projection{Lane: lane, From: 0, To: 1, Now: now,
		Claims: []quota.Claim{{Payer: "acme", Kind: quota.PotWallet, Amount: 30}}})
	if err != nil {
		t.Fatalf("Project = %v", err)
	}
	if got := draw(t, s, now, 1, 10); len(got.Allotments) != 0 || got.Debt != 30 {
		t.Errorf("in debt: drew %+v, want nothing and a debt of 30", got)
	}
	got := draw(t, s, later, 1, 10)
	if len(got.Allotments) != 1 || got.Allotments[0].Amount != 10 || got.Debt != 0 || got.Available != 60 {
		t.Errorf("drew %+v, want 10, no debt and 60 left", got)
	}
	pots, debt, err := s.Pots(t.Context(), "acme", later)
	if err != nil || debt != 0 || len(pots) != 1 || pots[0].Direct != 30 || !pots[0].Balanced() {
		t.Errorf("Pots = %+v, debt %d, %v, want 30 direct and no debt", pots, debt, err)
	}
}

// Lists are read in pieces of a fixed number: more than one piece, and not a multiple.
func TestMoreThanOnePieceOfAList(t *testing.T) {
	s, clock := openStore(t)
	now := clock.Load()
	node(t, s, now)
	grant(t, s, "one", now, now, 1000)
	const n = 37
	var shrinks []quota.Shrink
	var refs []quota.AllotmentRef
	var records []quota.Record
	for i := range n {
		first := quota.AllotmentNo(1 + i*quota.MaxWalletGrants)
		if got := draw(t, s, now, first, 10); len(got.Allotments) != 1 {
			t.Fatalf("draw %d = %+v", i, got)
		}
		shrinks = append(shrinks, quota.Shrink{Number: first, Sequence: 1, Amount: 10, Close: true})
		refs = append(refs, quota.AllotmentRef{Lane: lane, Number: first})
		records = append(records, quota.Record{EntryKey: quota.EntryKey{Lane: lane, Sequence: uint64(i + 1)}, Kind: quota.Released,
			ExpiresAt: now, ReservedAt: now})
	}
	pots, err := s.PotsOf(t.Context(), refs)
	if err != nil || len(pots) != n {
		t.Errorf("PotsOf found %d of %d pots, %v", len(pots), n, err)
	}
	for range 2 { // sent again, it is applied once (R19)
		if err := s.Return(t.Context(), lane, shrinks); err != nil {
			t.Fatalf("Return = %v", err)
		}
	}
	if got := draw(t, s, now, 1000, 1); got.Available != 999 || got.Escrowed != 1 {
		t.Errorf("after all came home %+v, want 999 available", got)
	}
	for sending := range 2 {
		fates, used, err := s.Settle(t.Context(), guest, 1, records)
		if err != nil || !used {
			t.Fatalf("Settle = %t, %v", used, err)
		}
		for i, f := range fates {
			want := records[i].Entry(guest, 1)
			if f.Verdict != quota.VerdictApplied || !reflect.DeepEqual(f.Entry, want) {
				t.Errorf("sending %d, record %d: %+v, want %+v applied", sending, i, f, want)
			}
		}
	}
}

// A batch that holds one key twice could never be written: it is refused before it is sent.
func TestABatchWithAKeyTwiceIsRefused(t *testing.T) {
	s, clock := openStore(t)
	node(t, s, clock.Load())
	r := quota.Record{EntryKey: quota.EntryKey{Lane: lane, Sequence: 1}, Kind: quota.Released}
	foreign := r
	foreign.Lane = lane + 7
	for name, batch := range map[string][]quota.Record{"a key twice": {r, r}, "another lane": {foreign}} {
		if _, err := s.Append(t.Context(), lane, 1, batch); !errors.Is(err, quota.ReasonInvariantViolated) {
			t.Errorf("%s: Append = %v, want INVARIANT_VIOLATED", name, err)
		}
	}
}

// TestWishesOfAVersionToCome: what another node wrote and this one cannot read costs a wish, not
// the poll, without which the node would stop.
func TestWishesOfAVersionToCome(t *testing.T) {
	s, clock := openStore(t)
	node(t, s, clock.Load())
	for _, c := range []struct {
		stored string
		want   []quota.PotRef
	}{
		{`[["acme","b/acme/cap/1/"]]`, []quota.PotRef{{Payer: "acme", Pot: "b/acme/cap/1/"}}},
		{`{"v":2}`, nil},
		{`[[`, nil},
	} {
		err := s.Driver.Write(t.Context(), func(tx relational.Tx) error {
			_, err := tx.Exec(t.Context(), "UPDATE incarnations SET wishes = $1", c.stored)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Poll(t.Context(), quota.PollRequest{Incarnation: "somebody else"})
		if err != nil || !reflect.DeepEqual(got.Wishes, c.want) || got.LiveNodes != 1 {
			t.Errorf("%s: polled %+v, %v, want the wishes %v of one node", c.stored, got, err, c.want)
		}
	}
}
