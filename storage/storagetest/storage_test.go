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

// onDatabase opens stores in fresh databases of a server; time is real.
func onDatabase(name string, newDatabase func(testing.TB) string) Harness {
	return Harness{Name: name, Open: func(t testing.TB) Opened {
		url := newDatabase(t)
		if err := cockroach.Migrate(t.Context(), url); err != nil {
			t.Fatalf("migrate: %v", err)
		}
		s, err := cockroach.Open(t.Context(), cockroach.Options{URL: url})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		closeAfter(t, s.Close)
		return Opened{Store: s, Now: func() int64 { return time.Now().UnixNano() }}
	}}
}

func closeAfter(t testing.TB, stop func() error) {
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
}

func TestSQLite(t *testing.T) { Run(t, onSQLite()) }

func TestPostgreSQL(t *testing.T) { Run(t, onDatabase("postgresql", testdb.PostgreSQL)) }

// TestCockroachDB runs where TEST_COCKROACH_URL names a server; there is none to start here.
func TestCockroachDB(t *testing.T) {
	if _, ok := testdb.Cockroach(t); !ok {
		t.Log("TEST_COCKROACH_URL is not set: the suite ran on SQLite and PostgreSQL only")
		return
	}
	Run(t, onDatabase("cockroachdb", func(t testing.TB) string {
		url, _ := testdb.Cockroach(t)
		return url
	}))
}
