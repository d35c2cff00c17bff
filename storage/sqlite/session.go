package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	lib "modernc.org/sqlite/lib"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// session is one connection with its prepared statements. SQL is constants of this program,
// so their number is bounded. It belongs to one goroutine at a time.
type session struct {
	file  string
	clock func() int64
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

func openSession(ctx context.Context, file, dsn string, clock func() int64) (*session, error) {
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s cannot be opened", file), err)
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(classify(file, err), db.Close())
	}
	return &session{file: file, clock: clock, db: db, conn: conn, stmts: make(map[string]*sql.Stmt)}, nil
}

func (s *session) close() error {
	var errs []error
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	return errors.Join(append(errs, s.conn.Close(), s.db.Close())...)
}

// statement prepares sql once.
func (s *session) statement(query string) (*sql.Stmt, error) {
	if st := s.stmts[query]; st != nil {
		return st, nil
	}
	st, err := s.conn.PrepareContext(context.Background(), query)
	if err == nil {
		s.stmts[query] = st
	}
	return st, err
}

// exec runs a statement to its end. Statements are not given the caller's context: one costs
// microseconds, watching a context costs as much, and an interrupt would undo the whole
// transaction where the next statement's check is soon enough.
func (s *session) exec(query string, args ...any) (int64, error) {
	st, err := s.statement(query)
	if err != nil {
		return 0, err
	}
	r, err := st.Exec(args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// within runs fn between begin and end; if fn or end fails, everything is rolled back.
func (s *session) within(ctx context.Context, begin, end string, fn func(relational.Tx) error) error {
	if _, err := s.exec(begin); err != nil {
		return classify(s.file, err)
	}
	err := s.guarded(ctx, fn)
	if err == nil {
		if _, err = s.exec(end); err == nil {
			return nil
		}
		err = classifyCommit(s.file, err)
	}
	// SQLite has rolled back by itself behind some errors; then this one has nothing to do.
	if _, undo := s.exec("ROLLBACK"); undo != nil && code(undo)&0xff != lib.SQLITE_ERROR {
		return errors.Join(err, classify(s.file, undo))
	}
	return err
}

// guarded runs fn; a panic of it rolls back before it goes on, so that the one writer there
// is does not stay in a transaction.
func (s *session) guarded(ctx context.Context, fn func(relational.Tx) error) error {
	done := false
	defer func() {
		if !done {
			_, _ = s.exec("ROLLBACK")
		}
	}()
	err := fn(&transaction{session: s})
	if err == nil {
		err = unavailable(s.file, ctx.Err())
	}
	done = true
	return err
}

// unavailable is how a caller that hung up before the commit is answered; nil for nil.
func unavailable(file string, err error) error {
	if err == nil {
		return nil
	}
	return &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true, Err: err,
		Message: fmt.Sprintf("store %s: the call ended before it was done", file)}
}

// transaction is a relational.Tx over a session.
type transaction struct{ session *session }

var _ relational.Tx = (*transaction)(nil)

// Exec see [relational.Tx].
func (t *transaction) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, unavailable(t.session.file, err)
	}
	n, err := t.session.exec(query, args...)
	return n, classify(t.session.file, err)
}

// Query see [relational.Tx].
func (t *transaction) Query(ctx context.Context, query string, args ...any) (relational.Rows, error) {
	if err := ctx.Err(); err != nil {
		return nil, unavailable(t.session.file, err)
	}
	st, err := t.session.statement(query)
	if err != nil {
		return nil, classify(t.session.file, err)
	}
	rows, err := st.Query(args...)
	if err != nil {
		return nil, classify(t.session.file, err)
	}
	return &resultSet{Rows: rows, ctx: ctx, file: t.session.file}, nil
}

// Queries see [relational.Tx].
func (t *transaction) Queries(ctx context.Context, queries []relational.Query, scan func(int, relational.Rows) error) error {
	for i := range queries {
		if err := t.query(ctx, i, &queries[i], scan); err != nil {
			return err
		}
	}
	return nil
}

func (t *transaction) query(ctx context.Context, i int, q *relational.Query, scan func(int, relational.Rows) error) error {
	rows, err := t.Query(ctx, q.SQL, q.Args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(i, rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Bulk see [relational.Tx].
func (t *transaction) Bulk(ctx context.Context, query string, rows [][]any) (affected int64, err error) {
	for _, args := range rows {
		n, err := t.Exec(ctx, query, args...)
		if err != nil {
			return 0, err
		}
		affected += n
	}
	return affected, nil
}

// Now see [relational.Tx].
func (t *transaction) Now(context.Context) (int64, error) {
	if t.session.clock == nil {
		return 0, quota.Errorf(quota.ReasonRequestInvalid, "the store was opened without a clock")
	}
	return t.session.clock(), nil
}

// ForUpdate see [relational.Tx]: there is one writer.
func (t *transaction) ForUpdate() string { return "" }

// resultSet is a relational.Rows that ends with its context.
type resultSet struct {
	*sql.Rows
	ctx   context.Context
	file  string
	ended error
}

// Next see [relational.Rows].
func (r *resultSet) Next() bool {
	if r.ended = r.ctx.Err(); r.ended != nil {
		return false
	}
	return r.Rows.Next()
}

// Err see [relational.Rows].
func (r *resultSet) Err() error {
	if r.ended != nil {
		return unavailable(r.file, r.ended)
	}
	return classify(r.file, r.Rows.Err())
}

// Close see [relational.Rows].
func (r *resultSet) Close() {
	// A result set whose statement failed has told so by Err already.
	_ = r.Rows.Close()
}
