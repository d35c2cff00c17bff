package cockroach

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
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

// databases are the URLs of an empty database on each server there is to test on.
func databases(t *testing.T) map[string]string {
	t.Helper()
	urls := map[string]string{"postgresql": testdb.PostgreSQL(t)}
	if u, ok := testdb.Cockroach(t); ok {
		urls["cockroach"] = u
	}
	return urls
}

// open migrates the database of o and opens a store on it.
func open(t *testing.T, o Options) *Store {
	t.Helper()
	if err := Migrate(t.Context(), o.URL); err != nil {
		t.Fatalf("migrate: %v", err)
	}
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// addLane makes an open lane.
func addLane(t *testing.T, s *Store, lane quota.LaneID) {
	t.Helper()
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO lanes (lane_id, incarnation_id, guest, state, gc_before, seal_time, create_time, close_time)
VALUES ($1, 'test', 0, 1, 0, 0, 0, 0)`, int64(lane))
		return err
	})
	if err != nil {
		t.Fatalf("add lane: %v", err)
	}
}

// rows makes n entries of a lane from sequence first on.
func rows(lane quota.LaneID, first, n int, body []byte) []relational.JournalRow {
	out := make([]relational.JournalRow, n)
	for i := range out {
		out[i] = relational.JournalRow{Lane: int64(lane), Tag: relational.TagEntry, K1: int64(first + i), Kind: 1, Body: body}
	}
	return out
}

// count runs a query of one number in a read of its own.
func count(t *testing.T, s *Store, sql string, args ...any) (n int64) {
	t.Helper()
	err := s.Read(t.Context(), func(tx relational.Tx) error {
		rs, err := tx.Query(t.Context(), sql, args...)
		if err != nil {
			return err
		}
		defer rs.Close()
		for rs.Next() {
			if err := rs.Scan(&n); err != nil {
				return err
			}
		}
		return rs.Err()
	})
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}
