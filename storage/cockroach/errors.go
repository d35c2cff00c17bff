package cockroach

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// stage is how far an attempt had come when it failed; it decides what an error means.
type stage uint8

const (
	// beforeCommit: COMMIT was not sent, so nothing is applied and nothing will be.
	beforeCommit stage = iota
	// atCommit: COMMIT, or a statement that commits by itself, was sent.
	atCommit
)

// restart marks an error after which the transaction runs again, in the form that
// cockroach-go's loop recognises; it knows no 40P01.
type restart struct{ error }

// SQLState makes the error retryable for crdb.ExecuteCtx.
func (r restart) SQLState() string { return codeSerializationFailure }

// Unwrap yields the database's error.
func (r restart) Unwrap() error { return r.error }

// sqlState is the code of the database's error in err, or "".
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// brokenServer reports codes that speak of the server or the connection rather than of the
// statement: 08 connection, 57 operator intervention (shutdown, timeout), 58 system error,
// XX internal error. Sent with a commit on its way, they leave its outcome open.
func brokenServer(code string) bool {
	for _, class := range []string{"08", "57", "58", "XX"} {
		if strings.HasPrefix(code, class) {
			return true
		}
	}
	return false
}

// link is what classify asks of a connection.
type link interface{ IsClosed() bool }

// classify turns a database error on conn into what the seam promises. It is the one place
// that decides by SQLSTATE.
func (d dialect) classify(at stage, conn link, err error) error {
	code := sqlState(err)
	switch {
	case err == nil:
		return nil
	case d.restarts(code):
		return restart{err}
	case code == codeUniqueViolation:
		return fmt.Errorf("%w: %w", relational.ErrDuplicate, err)
	case code == codeDiskFull:
		return definite(quota.ReasonStoreFull, "the database is out of disk space", err)
	case code == codeReadOnly:
		return definite(quota.ReasonStoreUnavailable, "the database is read-only at the moment", err)
	case code == "" && mistaken(conn, err):
		return err
	case code == "" || code == codeStatementUnknown || brokenServer(code):
		return broken(at, err)
	}
	return err
}

// mistaken reports an error that neither server nor network caused: arguments that do not
// fit the statement, or a COMMIT after a statement had failed. Nothing is applied.
func mistaken(conn link, err error) bool {
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return true
	}
	return !conn.IsClosed() && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

// broken is the outcome of a lost connection, a timeout or a server going down. Whether
// anything was sent is not read from the error: pgconn.SafeToRetry says so of a connection
// that breaks while the answer to COMMIT is awaited, when it has long been sent. Who sends
// looks before (see live).
func broken(at stage, err error) error {
	if at == beforeCommit {
		return unavailable(err)
	}
	return quota.Wrap(quota.ReasonOutcomeUnknown, "the database did not say whether it committed", err)
}

// live reports a definite failure if nothing can be sent any more.
func live(ctx context.Context, conn link) error {
	if err := ctx.Err(); err != nil {
		return unavailable(err)
	}
	if conn.IsClosed() {
		return unavailable(pgconn.ErrConnClosed)
	}
	return nil
}

// unavailable is a failure that surely applied nothing.
func unavailable(err error) error {
	return definite(quota.ReasonStoreUnavailable, "the database cannot be reached", err)
}

func definite(reason quota.Reason, message string, err error) error {
	return &quota.Error{Reason: reason, Message: message, NotApplied: true, Err: err}
}

// connectError is the outcome of not getting a connection. What [Open] refuses is refused on
// every later connection too, and keeps its reason.
func connectError(err error) error {
	var known *quota.Error
	if errors.As(err, &known) {
		return err
	}
	return unavailable(err)
}

// ended passes on what ended a loop of attempts. Errors the database caused were classified
// where they came up; a context that ended between statements is the one kind left that is
// about the store, and nothing is applied then.
func ended(err error) error {
	var known *quota.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return unavailable(err)
	}
	return err
}
