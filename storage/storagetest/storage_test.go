package storagetest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/sqlite"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testdb.Stop()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// onSQLite has a clock of its own, which stands still unless a test moves it.
func onSQLite() Harness {
	return Harness{Name: "sqlite", Open: func(t testing.TB) Opened {
		var clock atomic.Int64
		clock.Store(time.Date(2026, time.March, 4, 10, 30, 0, 0, time.UTC).UnixNano())
		s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "purser.db"), Clock: clock.Load})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		closeAfter(t, s.Close)
		return Opened{Store: s, Now: clock.Load, Advance: func(d time.Duration) { clock.Add(int64(d)) }}
	}}
}

// onDatabase opens stores in a database whose schema is there already and which every test
// finds empty: a database of its own for each would take most of the suite's time. Time is
// real.
func onDatabase(t *testing.T, name, url string) Harness {
	if err := cockroach.Migrate(t.Context(), url); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	return Harness{Name: name, Open: func(t testing.TB) Opened {
		testdb.Exec(t, url, emptied()...)
		s, err := cockroach.Open(t.Context(), cockroach.Options{URL: url})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		closeAfter(t, s.Close)
		return Opened{Store: s, Now: func() int64 { return time.Now().UnixNano() }}
	}}
}

// emptied are the statements that make a store as it was when it was new. A table that is
// forgotten here fails the tests behind the one that wrote to it.
func emptied() []string {
	out := []string{"UPDATE revision SET value = 0"}
	for _, table := range []string{"changes", "features", "plans", "rate_cards", "accounts", "budgets", "pots", "debts", "incarnations",
		"lanes", "cursors", "allotments", "journal", "interims", "usage_events", "rollups", "spent", "api_keys", "mac_keys", "requests"} {
		out = append(out, "DELETE FROM "+table)
	}
	return out
}

func closeAfter(t testing.TB, stop func() error) {
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func TestSQLite(t *testing.T) { Run(t, onSQLite()) }

func TestPostgreSQL(t *testing.T) { Run(t, onDatabase(t, "postgresql", testdb.PostgreSQL(t))) }

// TestCockroachDB runs where TEST_COCKROACH_URL names a server; there is none to start here.
func TestCockroachDB(t *testing.T) {
	url, ok := testdb.Cockroach(t)
	if !ok {
		t.Log("TEST_COCKROACH_URL is not set: the suite ran on SQLite and PostgreSQL only")
		return
	}
	Run(t, onDatabase(t, "cockroachdb", url))
}
