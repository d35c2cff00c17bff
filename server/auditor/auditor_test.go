package auditor

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
	"github.com/purser-io/purser/storage/sqlite"
)

// results keeps what an auditor tells.
type results chan Result

func (r results) Audited(x Result) { r <- x }

// books is a store of some rows, each of which takes a while to read.
type books struct {
	quota.AuditReader
	rows   int
	takes  time.Duration
	broken error
	closed *int
}

func (b *books) Close() error {
	*b.closed++
	return nil
}

func (b *books) Audit(_ context.Context, fn func(quota.AuditReader) error) error {
	if b.broken != nil {
		return b.broken
	}
	return fn(b)
}

func (b *books) Pots(fn func(quota.Pot) error) error {
	for range b.rows {
		time.Sleep(b.takes)
		if err := fn(quota.Pot{Kind: quota.PotWallet}); err != nil {
			return err
		}
	}
	return nil
}

func (b *books) Lanes(func(quota.LaneRow) error) error           { return nil }
func (b *books) Allotments(func(quota.AllotmentRow) error) error { return nil }
func (b *books) Entries(func(quota.Entry) error) error           { return nil }
func (b *books) Batches(func(quota.Batch) error) error           { return nil }
func (b *books) Interims(func(quota.InterimRow) error) error     { return nil }
func (b *books) Debts(func(string, int64) error) error           { return nil }
func (b *books) Spent(func(quota.SpentRow) error) error          { return nil }
func (b *books) UsageEvents(func(quota.UsageEvent) error) error  { return nil }

// run starts an auditor of b; cancel ends it.
func run(t *testing.T, b *books, change func(*Auditor)) (results, *strings.Builder, context.CancelFunc) {
	ctx, cancel := context.WithCancel(t.Context())
	told, log := make(results, 100), &strings.Builder{}
	a := &Auditor{Every: time.Hour, Now: time.Now, Logger: slog.New(slog.NewTextHandler(log, nil)), Metrics: told,
		Open: func(context.Context) (Store, error) { return b, nil }}
	if change != nil {
		change(a)
	}
	go func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	return told, log, cancel
}

// TestAuditsAgainAndAgain: the first within the interval, each next one an interval behind.
func TestAuditsAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &books{closed: new(int)}
		start := time.Now()
		told, _, cancel := run(t, b, nil)
		first := <-told
		if after := first.Ended.Sub(start); after > time.Hour {
			t.Errorf("the first came after %v", after)
		}
		second := <-told
		if between := second.Ended.Sub(first.Ended); between != time.Hour {
			t.Errorf("the second came %v behind", between)
		}
		if first.Err != nil || first.Findings != 0 || *b.closed != 2 {
			t.Errorf("%+v, closed %d times", first, *b.closed)
		}
		cancel()
		synctest.Wait()
	})
}

// TestKeepsItsBudget: at work for its share of the time, whatever the work is.
func TestKeepsItsBudget(t *testing.T) {
	for _, share := range []float64{0, 0.25, 1} {
		synctest.Test(t, func(t *testing.T) {
			const rows, takes = 100 * paceRows, 10 * time.Microsecond
			told, _, cancel := run(t, &books{rows: rows, takes: takes, closed: new(int)}, func(a *Auditor) { a.Share = share })
			r := <-told
			want := share
			if want == 0 {
				want = DefaultShare
			}
			if got := float64(rows*takes) / float64(r.Took); r.Err != nil || got < want*0.99 || got > want*1.01 {
				t.Errorf("share %v: at work for %.3f of the time; %v", want, got, r.Err)
			}
			cancel()
			synctest.Wait()
		})
	}
}

// TestGivesUpInTime: an audit that takes too long is no audit, and neither is one of a store
// that is away.
func TestGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		told, log, cancel := run(t, &books{rows: 1 << 20, takes: time.Millisecond, closed: new(int)}, func(a *Auditor) { a.Limit = time.Minute })
		if r := <-told; !errors.Is(r.Err, context.DeadlineExceeded) || r.Took > 2*time.Minute {
			t.Errorf("%+v; want to be out of time", r)
		}
		if !strings.Contains(log.String(), "could not be done") {
			t.Errorf("nobody is told: %s", log)
		}
		cancel()
		synctest.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		away := quota.Errorf(quota.ReasonStoreUnavailable, "away")
		told, _, cancel := run(t, &books{broken: away, closed: new(int)}, nil)
		if r := <-told; !errors.Is(r.Err, away) || r.Findings != 0 {
			t.Errorf("%+v; want %v", r, away)
		}
		cancel()
		synctest.Wait()
	})
}

// TestFindsWhatIsWrong: of real books, sound ones and such as somebody has written to. Figures
// stay out of the log.
func TestFindsWhatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "purser.db")
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Clock: func() int64 { return time.Now().UnixNano() }})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	m := quota.Mutation{Principal: "test", Now: time.Now().UnixNano()}
	if _, err := store.CreateAccount(t.Context(), m, quota.Account{ID: "acme"}); err != nil {
		t.Fatal(err)
	}
	grant := quota.Pot{ID: quota.GrantPotID("one"), Kind: quota.PotWallet, Granted: 7654321, Start: m.Now, End: quota.Never, GrantKind: quota.GrantPurchased}
	if _, err := store.CreateGrant(t.Context(), m, "acme", grant); err != nil {
		t.Fatal(err)
	}
	told, log := make(results, 1), &strings.Builder{}
	a := &Auditor{Now: time.Now, Logger: slog.New(slog.NewTextHandler(log, nil)), Metrics: told, Share: 1,
		Open: func(ctx context.Context) (Store, error) {
			return sqlite.Open(ctx, sqlite.Options{Path: path, Clock: func() int64 { return time.Now().UnixNano() }, ReadOnly: true})
		}}
	a.once(t.Context())
	if r := <-told; r.Err != nil || r.Findings != 0 {
		t.Errorf("sound books: %+v", r)
	}
	err = store.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), "UPDATE pots SET available = available + 1234567")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	a.once(t.Context())
	if r := <-told; r.Err != nil || r.Findings == 0 {
		t.Errorf("a credit out of nothing: %+v", r)
	}
	if s := log.String(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, "invariant=I1") || strings.Contains(s, "1234567") || strings.Contains(s, "7654321") {
		t.Errorf("the log says\n%s", s)
	}
}
