package relational

import (
	"context"
	"errors"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	updateRevision = `UPDATE revision SET value = value + 1 WHERE id = 1 RETURNING value`
	insertChange   = `INSERT INTO changes (revision, kind, id) VALUES ($1, $2, $3)`
)

// bumpRevision takes the next revision and leaves the change row that tells every node what
// to drop (R32, R47). The revision's one row orders all such transactions.
func bumpRevision(ctx context.Context, tx Tx, kind quota.ChangeKind, id string) (int64, error) {
	var revision int64
	found, err := queryRow(ctx, tx, updateRevision, nil, &revision)
	if err != nil {
		return 0, fmt.Errorf("bump revision: %w", err)
	}
	if !found {
		return 0, violated("bump revision: the revision row is missing")
	}
	if _, err := tx.Exec(ctx, insertChange, revision, int16(kind), id); err != nil {
		return 0, fmt.Errorf("bump revision: %w", err)
	}
	return revision, nil
}

// queryRow reads the first row of a result into dest; found is false if there is none.
func queryRow(ctx context.Context, tx Tx, sql string, args []any, dest ...any) (found bool, err error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(dest...); err != nil {
			return false, err
		}
		found = true
	}
	// The rest is drained, so that an UPDATE ... RETURNING has run to its end.
	for rows.Next() {
	}
	return found, rows.Err()
}

// each calls scan for every row of a result; scan reads it with rows.Scan.
func each(ctx context.Context, tx Tx, sql string, args []any, scan func(Rows) error) error {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// violated reports a broken invariant: a bug, or a row somebody else wrote. Nothing was
// changed.
func violated(format string, args ...any) error {
	return &quota.Error{Reason: quota.ReasonInvariantViolated, Message: fmt.Sprintf(format, args...), NotApplied: true}
}

// duplicateTries bounds how often a transaction that met a unique violation runs again.
const duplicateTries = 5

// write is Driver.Write for transactions that look before they insert: a unique violation
// then means that another one was first, and that the same transaction run again will see
// what it wrote.
func (s *Store) write(ctx context.Context, operation string, fn func(Tx) error) error {
	err := error(ErrDuplicate)
	for try := 0; try < duplicateTries && errors.Is(err, ErrDuplicate); try++ {
		err = s.Write(ctx, fn)
	}
	if errors.Is(err, ErrDuplicate) {
		return quota.Wrap(quota.ReasonContention, operation+" met the same keys again and again; try later", err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return nil
}

// read is Driver.Read with the operation's name on its errors.
func (s *Store) read(ctx context.Context, operation string, fn func(Tx) error) error {
	if err := s.Read(ctx, fn); err != nil {
		return fmt.Errorf("%s: %w", operation, err)
	}
	return nil
}
