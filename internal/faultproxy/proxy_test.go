package faultproxy_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // looks past the proxy

	"github.com/purser-io/purser/internal/faultproxy"
	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/relational"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// databases are the servers there are to test on.
func databases(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("postgresql", func(t *testing.T) { test(t, testdb.PostgreSQL(t)) })
	if url, ok := testdb.Cockroach(t); ok {
		t.Run("cockroachdb", func(t *testing.T) { test(t, url) })
	}
}

// outcome is what a caller is told, and what is true.
type outcome struct {
	told error // nil, a quota.Reason or relational.ErrDuplicate
	done bool
}

var (
	fine        = outcome{nil, true}
	unknownNot  = outcome{quota.ReasonOutcomeUnknown, false}
	unknownDone = outcome{quota.ReasonOutcomeUnknown, true}
	unavailable = outcome{quota.ReasonStoreUnavailable, false}
	duplicate   = outcome{relational.ErrDuplicate, false}
	twice       = outcome{relational.ErrDuplicate, true}
)

// delay is that of Delay: well below the store's limit.
const delay = 20 * time.Millisecond

// TestFaults makes each fault happen to a flush, to a COMMIT and to a statement before it, through
// the real store: what it says of the outcome must be true, and the fault must have been met, and
// been of its kind: the SQLSTATE, the wait, the sending again.
func TestFaults(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		if err := cockroach.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		db, err := sql.Open("pgx", url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		for i, c := range []struct {
			kind                     faultproxy.Kind
			code                     string // SQLSTATE that the caller is told, but of a duplicate; "" = none
			flush, commit, statement outcome
		}{
			{faultproxy.Cut, "", unknownNot, unknownNot, unavailable},
			{faultproxy.CutAfter, "", unknownDone, unknownDone, unavailable},
			{faultproxy.Unknown, "40003", unknownNot, unknownNot, unavailable},
			{faultproxy.UnknownAfter, "40003", unknownDone, unknownDone, unavailable},
			{faultproxy.Restart, "", fine, fine, fine},
			{faultproxy.Shutdown, "57P01", unknownNot, unknownNot, unavailable},
			{faultproxy.ShutdownAfter, "57P01", unknownDone, unknownDone, unavailable},
			{faultproxy.Zombie, "", unknownNot, unknownNot, unavailable},
			{faultproxy.Delay, "", fine, fine, fine},
			{faultproxy.Hang, "", unknownNot, unknownNot, unavailable},
			{faultproxy.HangAfter, "", unknownDone, unknownDone, unavailable},
			{faultproxy.Duplicate, "", duplicate, duplicate, duplicate},
			{faultproxy.Twice, "", twice, fine, fine},
			{faultproxy.Truncate, "", unknownDone, unknownDone, unavailable},
		} {
			t.Run(c.kind.String(), func(t *testing.T) {
				t.Parallel()
				p := faultproxy.New(t, url)
				l := &line{t: t, proxy: p, db: db, store: open(t, p.URL()), kind: c.kind, code: c.code}
				first := int64(1 + 3*i)
				l.try("flush", c.flush, faultproxy.Append, faultproxy.Commit, first, l.flush, `SELECT count(*) FROM journal WHERE lane_id = $1`)
				const fenced = `SELECT count(*) FROM lanes WHERE lane_id = $1 AND state = 2`
				l.try("commit", c.commit, faultproxy.Close, faultproxy.Commit, first+1, l.fence, fenced)
				l.try("statement", c.statement, faultproxy.Close, faultproxy.Statement, first+2, l.fence, fenced)
				if got := p.Met(c.kind); got != 3 {
					t.Errorf("%d statements met the fault, want 3", got)
				}
			})
		}
	})
}

// line is a store behind a proxy of its own.
type line struct {
	t     *testing.T
	proxy *faultproxy.Proxy
	db    *sql.DB
	store *cockroach.Store
	kind  faultproxy.Kind
	code  string
}

func open(t *testing.T, url string) *cockroach.Store {
	t.Helper()
	s, err := cockroach.Open(t.Context(), cockroach.Options{URL: url, StatementTimeout: 500 * time.Millisecond})
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

func (l *line) flush(lane int64) error {
	_, err := l.store.Driver.Append(l.t.Context(), quota.LaneID(lane), []relational.JournalRow{
		{Lane: lane, Tag: relational.TagEntry, K1: 1, Kind: 1, Body: []byte{}}})
	return err
}

func (l *line) fence(lane int64) error {
	return l.store.Write(l.t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(l.t.Context(), `UPDATE lanes SET state = 2 WHERE lane_id = $1 AND state = 1`, lane)
		return err
	})
}

// try does something to a lane of its own once without the fault, which prepares the statements
// and must do nothing since there is no such lane, and once with it.
func (l *line) try(what string, want outcome, op faultproxy.Op, at faultproxy.Point, lane int64, do func(int64) error, count string) {
	l.t.Helper()
	if err := do(-lane); err != nil {
		l.t.Fatalf("%s without a fault: %v", what, err)
	}
	if _, err := l.db.ExecContext(l.t.Context(), `INSERT INTO lanes (lane_id, incarnation_id, guest, state, gc_before, seal_time, create_time, close_time)
VALUES ($1, 'test', 0, 1, 0, 0, 0, 0)`, lane); err != nil {
		l.t.Fatal(err)
	}
	f := faultproxy.Fault{Op: op, At: at, Kind: l.kind}
	if l.kind == faultproxy.Delay {
		f.For = delay
	}
	fault, before, began := l.proxy.Inject(f), l.proxy.Seen(op), time.Now()
	err := do(lane)
	if waited := time.Since(began); waited < f.For {
		l.t.Errorf("%s: took %v; want %v at least", what, waited, f.For)
	}
	sent := l.proxy.Seen(op) - before
	code, said := l.code, &pgconn.PgError{}
	if want.told == relational.ErrDuplicate {
		code = "23505"
	}
	if _ = errors.As(err, &said); said.Code != code {
		l.t.Errorf("%s: got %v; want SQLSTATE %q", what, err, code)
	}
	if !errors.Is(err, want.told) || want.told == nil && err != nil {
		l.t.Errorf("%s: got %v; want %v", what, err, want.told)
	}
	if done := l.count(count, lane) == 1; done != want.done {
		l.t.Errorf("%s: done is %t; want %t", what, done, want.done)
	}
	fault.Release()
	// A write that lands late is there now; a statement without its COMMIT never is.
	if done := l.count(count, lane) == 1; done != (want.done || l.kind == faultproxy.Zombie && at == faultproxy.Commit) {
		l.t.Errorf("%s: in the end, done is %t", what, done)
	}
	before = l.proxy.Seen(op)
	if err := do(lane); err != nil && !errors.Is(err, relational.ErrDuplicate) {
		l.t.Errorf("%s: the same again, without a fault: %v", what, err)
	}
	if more := sent > l.proxy.Seen(op)-before; more != (l.kind == faultproxy.Restart) {
		l.t.Errorf("%s: %d statements were sent, without a fault %d", what, sent, l.proxy.Seen(op)-before)
	}
	if l.count(count, lane) != 1 {
		l.t.Errorf("%s: the same again did nothing", what)
	}
}

func (l *line) count(query string, lane int64) (n int) {
	l.t.Helper()
	if err := l.db.QueryRowContext(l.t.Context(), query, lane).Scan(&n); err != nil {
		l.t.Fatal(err)
	}
	return n
}

// TestOutage: F12. Whoever is connected is cut off, nobody new is let in, and afterwards all is well.
func TestOutage(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		if err := cockroach.Migrate(t.Context(), url); err != nil {
			t.Fatal(err)
		}
		p := faultproxy.New(t, url)
		s := open(t, p.URL())
		read := func() error { return s.Read(t.Context(), func(relational.Tx) error { return nil }) }
		if err := read(); err != nil {
			t.Fatal(err)
		}
		p.SetDown(true)
		for range 2 { // over the connection there was, and without one
			if err := read(); !errors.Is(err, quota.ReasonStoreUnavailable) {
				t.Errorf("while it is down: %v", err)
			}
		}
		p.SetDown(false)
		if err := read(); err != nil {
			t.Errorf("when it is up again: %v", err)
		}
	})
}

// TestRandomiseReplays: the same seed and the same statements meet the same faults, another seed others.
func TestRandomiseReplays(t *testing.T) {
	url := testdb.PostgreSQL(t)
	if err := cockroach.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	run := func(seed uint64) (told string) {
		p := faultproxy.New(t, url)
		s := open(t, p.URL())
		p.Randomise(seed, faultproxy.Rates{faultproxy.Unknown: 300, faultproxy.Duplicate: 200})
		for range 40 {
			_, err := s.Driver.Append(context.WithoutCancel(t.Context()), 1, nil)
			switch {
			case errors.Is(err, quota.ReasonOutcomeUnknown):
				told += "?"
			case errors.Is(err, relational.ErrDuplicate):
				told += "2"
			case err == nil:
				told += "."
			default:
				t.Fatal(err)
			}
		}
		return told
	}
	first := run(7)
	if again := run(7); again != first {
		t.Errorf("seed 7 came to\n%s and then to\n%s", first, again)
	}
	if other := run(8); other == first {
		t.Errorf("seeds 7 and 8 both came to %s", first)
	}
}
