package cockroach

import (
	"context"
	"errors"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// update adds to a debt in its own transaction, beside whatever else runs.
func update(t *testing.T, u, payer string) {
	t.Helper()
	testdb.Exec(t, u, "UPDATE debts SET debt = debt + 1 WHERE payer_id = '"+payer+"'")
}

// readDebt is the debt a transaction sees.
func readDebt(ctx context.Context, tx relational.Tx, payer string) (debt int64, err error) {
	rs, err := tx.Query(ctx, "SELECT debt FROM debts WHERE payer_id = $1", payer)
	if err != nil {
		return 0, err
	}
	defer rs.Close()
	for rs.Next() {
		if err := rs.Scan(&debt); err != nil {
			return 0, err
		}
	}
	return debt, rs.Err()
}

// readModifyWrite doubles a debt; between is called after the read.
func readModifyWrite(t *testing.T, s *Store, between func()) error {
	return s.Write(t.Context(), func(tx relational.Tx) error {
		debt, err := readDebt(t.Context(), tx, "a")
		if err != nil {
			return err
		}
		between()
		_, err = tx.Exec(t.Context(), "UPDATE debts SET debt = $1 WHERE payer_id = 'a'", 2*debt)
		return err
	})
}

func TestSerializationFailureRunsAgain(t *testing.T) {
	u := testdb.PostgreSQL(t)
	s := open(t, Options{URL: u})
	if err := addDebt(t, s, "a"); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := readModifyWrite(t, s, func() {
		if runs++; runs <= 3 {
			update(t, u, "a")
		}
	})
	if err != nil || runs != 4 {
		t.Fatalf("got %v after %d runs; want success in the fourth", err, runs)
	}
	if debt := count(t, s, "SELECT debt FROM debts"); debt != 8 { // (1 + 3) * 2
		t.Errorf("debt is %d, want 8", debt)
	}
}

func TestContentionIsBounded(t *testing.T) {
	u := testdb.PostgreSQL(t)
	s := open(t, Options{URL: u})
	if err := addDebt(t, s, "a"); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := readModifyWrite(t, s, func() {
		runs++
		update(t, u, "a")
	})
	wantNotApplied(t, err, quota.ReasonContention)
	if runs != maxTries {
		t.Errorf("%d runs, want %d", runs, maxTries)
	}
	if debt := count(t, s, "SELECT debt FROM debts"); debt != 1+maxTries {
		t.Errorf("debt is %d, want %d: only the others' updates", debt, 1+maxTries)
	}
}

// A write skew is found when nothing is left but COMMIT, and the closure runs again.
func TestFailureAtCommitRunsAgain(t *testing.T) {
	u := testdb.PostgreSQL(t)
	s := open(t, Options{URL: u})
	for _, payer := range []string{"a", "b"} {
		if err := addDebt(t, s, payer); err != nil {
			t.Fatal(err)
		}
	}
	copyDebt := func(tx relational.Tx, from, to string) error {
		debt, err := readDebt(t.Context(), tx, from)
		if err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), "UPDATE debts SET debt = $1 WHERE payer_id = $2", debt+1, to)
		return err
	}
	runs := 0
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		if err := copyDebt(tx, "a", "b"); err != nil {
			return err
		}
		if runs++; runs == 1 {
			return s.Write(t.Context(), func(other relational.Tx) error { return copyDebt(other, "b", "a") })
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Fatalf("got %v after %d runs; want success in the second", err, runs)
	}
	if a, b := count(t, s, "SELECT debt FROM debts WHERE payer_id = 'a'"), count(t, s, "SELECT debt FROM debts WHERE payer_id = 'b'"); a != 2 || b != 3 {
		t.Errorf("debts are %d and %d; one after the other gives 2 and 3", a, b)
	}
}

func TestDeadlockRunsAgain(t *testing.T) {
	s := open(t, Options{URL: with(testdb.PostgreSQL(t), "deadlock_timeout=20ms")})
	for _, payer := range []string{"a", "b"} {
		if err := addDebt(t, s, payer); err != nil {
			t.Fatal(err)
		}
	}
	const sql = "UPDATE debts SET debt = debt + 10 WHERE payer_id = $1"
	ready := make(chan struct{}, 2)
	both := make(chan struct{})
	inOrder := func(first, second string) error {
		runs := 0
		return s.Write(t.Context(), func(tx relational.Tx) error {
			if _, err := tx.Exec(t.Context(), sql, first); err != nil {
				return err
			}
			if runs++; runs == 1 {
				ready <- struct{}{}
				<-both
			}
			_, err := tx.Exec(t.Context(), sql, second)
			return err
		})
	}
	errs := make(chan error, 2)
	go func() { errs <- inOrder("a", "b") }()
	go func() { errs <- inOrder("b", "a") }()
	<-ready
	<-ready
	close(both)
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	if sum := count(t, s, "SELECT sum(debt)::INT8 FROM debts"); sum != 42 {
		t.Errorf("debts sum to %d, want 42", sum)
	}
}

// A closure that hides the database's error from the loop is run again all the same.
func TestHiddenFailureRunsAgain(t *testing.T) {
	u := testdb.PostgreSQL(t)
	s := open(t, Options{URL: u})
	if err := addDebt(t, s, "a"); err != nil {
		t.Fatal(err)
	}
	runs := 0
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		debt, err := readDebt(t.Context(), tx, "a")
		if err != nil {
			return err
		}
		if runs++; runs == 1 {
			update(t, u, "a")
		}
		if _, err := tx.Exec(t.Context(), "UPDATE debts SET debt = $1 WHERE payer_id = 'a'", debt+5); err != nil && runs == 1 {
			return errors.New("something went wrong")
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Fatalf("got %v after %d runs; want success in the second", err, runs)
	}
}

// The lane's fence against the close of its allotments, in two sessions (R3, mutant 6): a
// flush that read the lane as open cannot commit once a close has read the entries without it.
func TestFenceHoldsBetweenSessions(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t)})
	addLane(t, s, 7)
	runs := 0
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		// What Append does, in a transaction that can be held open.
		n, err := tx.Exec(t.Context(), `INSERT INTO journal (lane_id, tag, k1, k2, kind, body)
SELECT 7, 2, 1, 0, 1, ''::BYTEA WHERE EXISTS (SELECT 1 FROM lanes WHERE lane_id = 7 AND state = 1)`)
		if err != nil {
			return err
		}
		if runs++; runs == 1 {
			fence := func(other relational.Tx) error {
				_, err := other.Exec(t.Context(), "UPDATE lanes SET state = 2 WHERE lane_id = 7")
				return err
			}
			if err := s.Write(t.Context(), fence); err != nil {
				return err
			}
			return s.Write(t.Context(), func(other relational.Tx) error {
				if entries, err := other.Query(t.Context(), "SELECT k1 FROM journal WHERE lane_id = 7"); err != nil {
					return err
				} else if entries.Next() {
					t.Error("the close saw an uncommitted entry")
				} else {
					entries.Close()
				}
				_, err := other.Exec(t.Context(), "UPDATE lanes SET state = 3 WHERE lane_id = 7")
				return err
			})
		}
		if n != 0 {
			t.Errorf("run %d settled %d entries in a closed lane", runs, n)
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Fatalf("got %v after %d runs; want the flush to be run again and find the lane closed", err, runs)
	}
	if n := count(t, s, "SELECT count(*) FROM journal"); n != 0 {
		t.Errorf("%d entries landed behind the close", n)
	}
}
