package sqlite

import (
	"errors"
	"fmt"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// code is SQLite's extended result code; 0 if err is not SQLite's.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// classify turns an error of SQLite into a reason, by its code alone. Errors of others come
// back as they are.
func classify(file string, err error) error {
	c := code(err)
	reason, message := quota.ReasonInternal, "store %s: a statement was refused"
	switch {
	case c == 0:
		return err
	case c == lib.SQLITE_CONSTRAINT_PRIMARYKEY, c == lib.SQLITE_CONSTRAINT_UNIQUE, c == lib.SQLITE_CONSTRAINT_ROWID:
		return fmt.Errorf("%w: %w", relational.ErrDuplicate, err)
	}
	switch c & 0xff {
	case lib.SQLITE_FULL:
		// The transaction is undone whole; the file can be read, and written again once there
		// is room.
		reason, message = quota.ReasonStoreFull, "store %s is full: free space on its disk, or raise its bound of pages"
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		reason, message = quota.ReasonStoreDamaged, "store %s is damaged or no database: keep it aside, and restore a copy or name another file"
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		reason, message = quota.ReasonContention, "store %s is locked by another program: try again"
	case lib.SQLITE_CANTOPEN, lib.SQLITE_PERM, lib.SQLITE_READONLY, lib.SQLITE_IOERR, lib.SQLITE_NOMEM, lib.SQLITE_INTERRUPT:
		reason, message = quota.ReasonStoreUnavailable, "store %s cannot be read or written: see to its disk and permissions"
	}
	return &quota.Error{Reason: reason, Message: fmt.Sprintf(message, file), NotApplied: true, Err: err}
}

// classifyCommit is classify for COMMIT. A log that could not be synced may still hold the
// whole transaction, and give it back after a crash: nobody knows (R5).
func classifyCommit(file string, err error) error {
	if code(err)&0xff == lib.SQLITE_IOERR {
		return quota.Wrap(quota.ReasonOutcomeUnknown, fmt.Sprintf("store %s: the disk failed during a commit", file), err)
	}
	return classify(file, err)
}
