package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// Backup writes one consistent state of the store to a new file, beside a server that runs on
// it, and syncs it to disk. The file must not exist; one that could not be finished is removed.
//
// Reasons: those of Open; REQUEST_INVALID if the file exists.
func Backup(ctx context.Context, path, to string) error {
	file, err := resolve(path, true)
	if err != nil {
		return err
	}
	// Made here, so that nobody else may read it: SQLite takes an empty file for a new one.
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return quota.Errorf(quota.ReasonRequestInvalid, fmt.Sprintf("backup: %s exists: name a file that does not", to))
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err = vacuumInto(ctx, file, to); err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("backup: %w", err), os.Remove(to))
	}
	return nil
}

func vacuumInto(ctx context.Context, file, to string) error {
	s, err := openSession(ctx, file, dsn(file, false, 0), nil)
	if err != nil {
		return err
	}
	err = s.guarded(ctx, func(tx relational.Tx) error {
		// The copy counts as a change, so a connection that may change nothing may not make it;
		// the file itself is open for reading only.
		if _, err := tx.Exec(ctx, "PRAGMA query_only = 0"); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "VACUUM INTO $1", to)
		return err
	})
	return errors.Join(err, s.close())
}
