package cockroach

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// cutPoint is where a connection breaks.
type cutPoint int

const (
	never       cutPoint = iota
	beforeSend           // nothing of the message leaves
	afterAnswer          // the server acts on the message, its answer is lost
)

// cutter breaks the first connection that sends a given message.
type cutter struct {
	mu      sync.Mutex
	message []byte
	at      cutPoint
}

// arm sets what is to happen once.
func (c *cutter) arm(at cutPoint, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at, c.message = at, []byte(message)
}

func (c *cutter) hit(b []byte) cutPoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == never || !bytes.Contains(b, c.message) {
		return never
	}
	at := c.at
	c.at = never
	return at
}

func (c *cutter) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, cutter: c}, nil
}

type cutConn struct {
	net.Conn
	cutter *cutter
}

func (c *cutConn) Write(b []byte) (int, error) {
	switch c.cutter.hit(b) {
	case beforeSend:
		return 0, errors.Join(io.ErrClosedPipe, c.Close())
	case afterAnswer:
		n, err := c.Conn.Write(b)
		if err != nil {
			return n, err
		}
		// The answer shows that the server has done its work; then it is thrown away.
		if _, err := c.Conn.Read(make([]byte, 1)); err != nil {
			return n, err
		}
		return n, c.Close()
	}
	return c.Conn.Write(b)
}

// faulty opens a store whose connections can be cut.
func faulty(t *testing.T, u string) (*Store, *cutter) {
	t.Helper()
	c := &cutter{}
	return open(t, Options{URL: u, Dial: c.dial}), c
}

func addDebt(t *testing.T, s *Store, payer string) error {
	t.Helper()
	return s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO debts (payer_id, debt) VALUES ($1, 1)", payer)
		return err
	})
}

func TestCommitUnanswered(t *testing.T) {
	for name, u := range databases(t) {
		t.Run(name, func(t *testing.T) {
			s, cut := faulty(t, u)
			cut.arm(afterAnswer, "commit")
			if err := addDebt(t, s, "a"); !errors.Is(err, quota.ReasonOutcomeUnknown) {
				t.Fatalf("answer lost: got %v; want %s", err, quota.ReasonOutcomeUnknown)
			}
			if n := count(t, s, "SELECT count(*) FROM debts"); n != 1 {
				t.Errorf("answer lost: %d rows; it was committed", n)
			}
			// The client cannot tell this from the other, and must not say that it can.
			cut.arm(beforeSend, "commit")
			if err := addDebt(t, s, "b"); !errors.Is(err, quota.ReasonOutcomeUnknown) {
				t.Fatalf("not sent: got %v; want %s", err, quota.ReasonOutcomeUnknown)
			}
			if n := count(t, s, "SELECT count(*) FROM debts"); n != 1 {
				t.Errorf("not sent: %d rows; it was not committed", n)
			}
		})
	}
}

func TestStatementUnanswered(t *testing.T) {
	s, cut := faulty(t, testdb.PostgreSQL(t))
	if err := addDebt(t, s, "warm"); err != nil { // the statement is prepared from here on
		t.Fatal(err)
	}
	for _, at := range []cutPoint{beforeSend, afterAnswer} {
		cut.arm(at, "cut-me")
		wantNotApplied(t, addDebt(t, s, "cut-me"), quota.ReasonStoreUnavailable)
	}
	if n := count(t, s, "SELECT count(*) FROM debts"); n != 1 {
		t.Errorf("%d rows; no COMMIT was sent", n)
	}
}

// R5: an unanswered flush is unknown; the same rows again tell what became of it.
func TestAppendUnanswered(t *testing.T) {
	for name, u := range databases(t) {
		t.Run(name, func(t *testing.T) {
			s, cut := faulty(t, u)
			addLane(t, s, 7)
			batch := rows(7, 1, 3, []byte("cut-me"))
			cut.arm(afterAnswer, "cut-me")
			if _, err := s.Driver.Append(t.Context(), 7, batch); !errors.Is(err, quota.ReasonOutcomeUnknown) {
				t.Fatalf("answer lost: got %v; want %s", err, quota.ReasonOutcomeUnknown)
			}
			if _, err := s.Driver.Append(t.Context(), 7, batch); !errors.Is(err, relational.ErrDuplicate) {
				t.Fatalf("sent again: got %v; want %v", err, relational.ErrDuplicate)
			}
			cut.arm(beforeSend, "cut-me")
			later := rows(7, 4, 2, []byte("cut-me"))
			if _, err := s.Driver.Append(t.Context(), 7, later); !errors.Is(err, quota.ReasonOutcomeUnknown) {
				t.Fatalf("not sent: got %v; want %s", err, quota.ReasonOutcomeUnknown)
			}
			if n, err := s.Driver.Append(t.Context(), 7, later); err != nil || n != 2 {
				t.Fatalf("sent again: got %d, %v; want 2 rows", n, err)
			}
			if n := count(t, s, "SELECT count(*) FROM journal"); n != 5 {
				t.Errorf("%d rows, want 5", n)
			}
		})
	}
}

func TestAppendFencedAndDuplicate(t *testing.T) {
	for name, u := range databases(t) {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{URL: u})
			if n, err := s.Driver.Append(t.Context(), 7, rows(7, 1, 3, nil)); err != nil || n != 0 {
				t.Fatalf("no lane: got %d, %v; want 0 rows", n, err)
			}
			addLane(t, s, 7)
			if n, err := s.Driver.Append(t.Context(), 7, rows(7, 1, 3, []byte{})); err != nil || n != 3 {
				t.Fatalf("open: got %d, %v; want 3 rows", n, err)
			}
			if _, err := s.Driver.Append(t.Context(), 7, rows(7, 3, 3, []byte{})); !errors.Is(err, relational.ErrDuplicate) {
				t.Fatalf("overlap: got %v; want %v", err, relational.ErrDuplicate)
			}
			testdb.Exec(t, u, "UPDATE lanes SET state = 2")
			if n, err := s.Driver.Append(t.Context(), 7, rows(7, 10, 3, []byte{})); err != nil || n != 0 {
				t.Fatalf("closing: got %d, %v; want 0 rows", n, err)
			}
			if n := count(t, s, "SELECT count(*) FROM journal"); n != 3 {
				t.Errorf("%d rows, want 3", n)
			}
		})
	}
}

func TestDuplicateInTransaction(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t)})
	if err := addDebt(t, s, "a"); err != nil {
		t.Fatal(err)
	}
	if err := addDebt(t, s, "a"); !errors.Is(err, relational.ErrDuplicate) {
		t.Fatalf("got %v; want %v", err, relational.ErrDuplicate)
	}
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO debts (payer_id, debt) VALUES ('a', 1)")
		if !errors.Is(err, relational.ErrDuplicate) {
			t.Errorf("inside: got %v", err)
		}
		return nil // goes on as if nothing had happened: the COMMIT must not look like one
	})
	if err == nil {
		t.Fatal("a transaction with a failed statement committed")
	}
}

// A stopped server refuses definitely, and is served again when it is back.
func TestServerStopsAndComesBack(t *testing.T) {
	server := testdb.NewServer(t)
	s := open(t, Options{URL: server.Database(t)})
	addLane(t, s, 7)
	server.Stop(t)
	wantNotApplied(t, addDebt(t, s, "a"), quota.ReasonStoreUnavailable)
	_, err := s.Driver.Append(t.Context(), 7, rows(7, 1, 1, []byte{}))
	if !errors.Is(err, quota.ReasonOutcomeUnknown) && !errors.Is(err, quota.ReasonStoreUnavailable) {
		t.Fatalf("over a connection that was idle: got %v", err)
	}
	_, err = s.Driver.Append(t.Context(), 7, rows(7, 1, 1, []byte{}))
	wantNotApplied(t, err, quota.ReasonStoreUnavailable) // no connection could be made
	err = s.Read(t.Context(), func(relational.Tx) error { return nil })
	wantNotApplied(t, err, quota.ReasonStoreUnavailable)
	server.Start(t)
	if err := addDebt(t, s, "a"); err != nil {
		t.Errorf("write after the restart: %v", err)
	}
	if n, err := s.Driver.Append(t.Context(), 7, rows(7, 1, 1, []byte{})); err != nil || n != 1 {
		t.Errorf("append after the restart: got %d, %v", n, err)
	}
}

// A server that goes down in the middle of a transaction (57P01, or the connection breaks)
// has not committed it.
func TestServerStopsInTransaction(t *testing.T) {
	server := testdb.NewServer(t)
	s := open(t, Options{URL: server.Database(t)})
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		if _, err := tx.Exec(t.Context(), "INSERT INTO debts (payer_id, debt) VALUES ('a', 1)"); err != nil {
			return err
		}
		server.Stop(t)
		_, err := tx.Exec(t.Context(), "INSERT INTO debts (payer_id, debt) VALUES ('b', 1)")
		return err
	})
	wantNotApplied(t, err, quota.ReasonStoreUnavailable)
	server.Start(t)
	if n := count(t, s, "SELECT count(*) FROM debts"); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func TestStoreFull(t *testing.T) {
	small := testdb.NewServer(t).Small(t, 12)
	s := open(t, Options{URL: small.URL})
	addLane(t, s, 7)
	body := bytes.Repeat([]byte{1, 2, 3, 5, 8, 13, 21, 34}, 150)
	const batch = 100
	sent := 1
	var err error
	for ; err == nil && sent < 40000; sent += batch {
		_, err = s.Driver.Append(t.Context(), 7, rows(7, sent, batch, body))
	}
	wantNotApplied(t, err, quota.ReasonStoreFull)
	sent -= batch // the last batch is not there
	if n := count(t, s, "SELECT count(*) FROM journal"); n != int64(sent-1) {
		t.Errorf("full: %d rows, want %d", n, sent-1)
	}
	small.Resize(60)
	if n, err := s.Driver.Append(t.Context(), 7, rows(7, sent, batch, body)); err != nil || n != batch {
		t.Errorf("room again: got %d, %v", n, err)
	}
}

type fakeLink bool

func (f fakeLink) IsClosed() bool { return bool(f) }

func TestClassify(t *testing.T) {
	pg := func(code string) error { return &pgconn.PgError{Code: code} }
	const again = quota.Reason("again")
	for _, c := range []struct {
		name              string
		err               error
		cockroach, closed bool
		before, at        quota.Reason // "" = passed on as it is
	}{
		{"serialization", pg("40001"), false, false, again, again},
		{"deadlock", pg("40P01"), false, false, again, again},
		{"deadlock on CockroachDB is none of its codes", pg("40P01"), true, false, "", ""},
		{"ambiguous", pg("40003"), true, false, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"shutdown", pg("57P01"), false, true, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"statement timeout", pg("57014"), false, false, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"connection exception", pg("08006"), false, true, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"internal", pg("XX000"), false, false, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"closed while waiting", pgconn.ErrConnClosed, false, true, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"end of file", io.ErrUnexpectedEOF, false, true, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"deadline", context.DeadlineExceeded, false, true, quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown},
		{"disk full", pg("53100"), false, false, quota.ReasonStoreFull, quota.ReasonStoreFull},
		{"standby", pg("25006"), false, false, quota.ReasonStoreUnavailable, quota.ReasonStoreUnavailable},
		{"our mistake", pg("42601"), false, false, "", ""},
		{"our argument", errors.New("cannot encode"), false, false, "", ""},
		{"rolled back", pgx.ErrTxCommitRollback, false, false, "", ""},
	} {
		for stage, want := range map[stage]quota.Reason{beforeCommit: c.before, atCommit: c.at} {
			err := dialect{cockroach: c.cockroach}.classify(stage, fakeLink(c.closed), c.err)
			var got quota.Reason
			var e *quota.Error
			var r restart
			switch {
			case errors.As(err, &r):
				got = again
			case errors.As(err, &e):
				got = e.Reason
				if definite := e.Reason != quota.ReasonOutcomeUnknown; e.NotApplied != definite {
					t.Errorf("%s at stage %d: not applied = %t", c.name, stage, e.NotApplied)
				}
			}
			if got != want {
				t.Errorf("%s at stage %d: got %q, want %q", c.name, stage, got, want)
			}
		}
	}
}

// The bound of a statement is the server's plus a margin: the server speaks first.
func TestClientWaitsLongerThanServer(t *testing.T) {
	o := Options{StatementTimeout: time.Second}
	if limit := o.statementTimeout() + networkMargin; limit <= time.Second {
		t.Errorf("the client waits %v", limit)
	}
}

// A connection known to be broken before COMMIT is sent is a definite failure.
func TestConnectionBrokenBeforeCommit(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t)})
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		if _, err := tx.Exec(t.Context(), "INSERT INTO debts (payer_id, debt) VALUES ('a', 1)"); err != nil {
			return err
		}
		return tx.(*transaction).tx.Conn().Close(t.Context())
	})
	wantNotApplied(t, err, quota.ReasonStoreUnavailable)
	if n := count(t, s, "SELECT count(*) FROM debts"); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}
