package naive_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/cmd/purser/internal/bench/naive"
	"github.com/purser-io/purser/internal/testdb"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/pricing"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// onEach runs a test on every kind of store.
func onEach(t *testing.T, test func(t *testing.T, s *naive.Service)) {
	for name, open := range map[string]func(t *testing.T) (naive.Books, error){
		"sqlite": func(t *testing.T) (naive.Books, error) {
			return naive.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "n.db"))
		},
		"postgresql": func(t *testing.T) (naive.Books, error) { return naive.OpenServer(t.Context(), testdb.PostgreSQL(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			books, err := open(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := errors.Join(books.Drop(context.Background()), books.Close()); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			var now atomic.Int64
			test(t, &naive.Service{Books: books, TTL: time.Second, Rates: map[string]pricing.Rate{"tokens": {PriceMicros: 1, Per: 1}},
				Now: func() time.Time { return time.Unix(0, now.Add(1)) }})
		})
	}
}

func seed(t *testing.T, s *naive.Service, balance int64, accounts ...string) {
	t.Helper()
	if err := s.Books.Seed(t.Context(), accounts, balance); err != nil {
		t.Fatal(err)
	}
}

// reserve returns a token, nil if it was denied.
func reserve(t *testing.T, s *naive.Service, account, key string, tokens int64) []byte {
	t.Helper()
	r, err := s.CheckAndReserve(t.Context(), &purserv1.CheckAndReserveRequest{Account: account, IdempotencyKey: key,
		Candidates: []string{"chat"}, Estimates: []*purserv1.Estimate{{Meter: "tokens", Quantity: tokens}}})
	if err != nil {
		t.Errorf("reserve: %v", err)
	}
	return r.GetReservation().GetToken()
}

func commit(t *testing.T, s *naive.Service, token []byte, tokens int64) (*purserv1.CommitResponse, error) {
	t.Helper()
	return s.Commit(t.Context(), &purserv1.CommitRequest{Token: token, Usage: []*purserv1.MeterQuantity{{Meter: "tokens", Quantity: tokens}}})
}

func sums(t *testing.T, s *naive.Service) (balances, held, charged int64) {
	t.Helper()
	balances, held, charged, err := s.Books.Sums(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return balances, held, charged
}

// TestConserves has many clients reserve and settle at once on few accounts, commits repeated:
// at every moment credits add up, and at the end to the micro.
func TestConserves(t *testing.T) {
	onEach(t, func(t *testing.T, s *naive.Service) {
		const granted = 2 * 1_000_000
		seed(t, s, granted/2, "a", "b")
		var want atomic.Int64
		var clients sync.WaitGroup
		for c := range 8 {
			clients.Go(func() {
				for i := range 15 {
					token := reserve(t, s, string("ab"[i%2]), fmt.Sprintf("%d-%d", c, i), 100)
					if i%5 == 4 {
						if _, err := s.Release(t.Context(), &purserv1.ReleaseRequest{Token: token}); err != nil {
							t.Errorf("release: %v", err)
						}
						continue
					}
					used := int64(90 + i) // sometimes more than was held
					for range 2 {
						if _, err := commit(t, s, token, used); err != nil {
							t.Errorf("commit: %v", err)
						}
					}
					want.Add(used)
				}
			})
		}
		clients.Wait()
		balances, held, charged := sums(t, s)
		if balances+held+charged != granted || held != 0 || charged != want.Load() {
			t.Errorf("balances %d, held %d, charged %d; granted %d, charged by the clients' count %d", balances, held, charged, granted, want.Load())
		}
	})
}

// TestNoOverspend: twenty ask at once for what five can have.
func TestNoOverspend(t *testing.T) {
	onEach(t, func(t *testing.T, s *naive.Service) {
		seed(t, s, 500, "a")
		var got atomic.Int64
		var clients sync.WaitGroup
		for c := range 20 {
			clients.Go(func() {
				if reserve(t, s, "a", fmt.Sprint(c), 100) != nil {
					got.Add(1)
				}
			})
		}
		clients.Wait()
		if balances, held, _ := sums(t, s); got.Load() != 5 || balances != 0 || held != 500 {
			t.Errorf("%d reserved, balance %d, held %d", got.Load(), balances, held)
		}
	})
}

func TestReplays(t *testing.T) {
	onEach(t, func(t *testing.T, s *naive.Service) {
		seed(t, s, 1000, "a")
		token := reserve(t, s, "a", "k", 100)
		if again := reserve(t, s, "a", "k", 100); string(again) != string(token) {
			t.Errorf("the same key got %q, then %q", token, again)
		}
		if other := reserve(t, s, "a", "k", 200); other != nil {
			t.Error("a key was taken for another amount")
		}
		first, err := commit(t, s, token, 70)
		if err != nil || first.GetReplayed() || first.GetChargedMicros() != 70 {
			t.Errorf("commit: %v, %v", first, err)
		}
		if second, err := commit(t, s, token, 70); err != nil || !second.GetReplayed() || second.GetChargedMicros() != 70 {
			t.Errorf("commit again: %v, %v", second, err)
		}
		if _, err := commit(t, s, token, 71); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("commit of other usage: %v", err)
		}
		if _, err := s.Release(t.Context(), &purserv1.ReleaseRequest{Token: token}); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("release of what was committed: %v", err)
		}
		if _, err := commit(t, s, []byte("none/a"), 1); status.Code(err) != codes.NotFound {
			t.Errorf("commit of nothing: %v", err)
		}
		if balances, held, charged := sums(t, s); balances != 930 || held != 0 || charged != 70 {
			t.Errorf("balance %d, held %d, charged %d", balances, held, charged)
		}
	})
}
