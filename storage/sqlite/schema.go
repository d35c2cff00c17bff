package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	listTables    = `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'`
	selectVersion = `SELECT COALESCE(MAX(version_id), 0) FROM goose_db_version WHERE is_applied = 1`
	versionTable  = "goose_db_version"
)

// Migrate brings the file's schema up to this program's, and makes the file if it is missing.
// It takes the lock, so a server must not run. Reasons as for [Open]; a newer schema is
// refused.
func Migrate(ctx context.Context, path string) error {
	file, err := resolve(path, false)
	if err != nil {
		return err
	}
	lock, err := acquire(file)
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, file), lock.Close())
}

func migrate(ctx context.Context, file string) error {
	s, err := openSession(ctx, file, dsn(file, true, 0), nil)
	if err != nil {
		return err
	}
	err = whole(s)
	var state schemaState
	if err == nil {
		state, err = stateOf(ctx, &transaction{session: s})
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	if state == foreign || state == newer {
		return refusal(state, file)
	}
	return up(ctx, file)
}

// up runs the migrations that are missing, each in a transaction.
func up(ctx context.Context, file string) error {
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	db, err := sql.Open("sqlite", dsn(file, true, 0))
	if err != nil {
		return fmt.Errorf("migrate %s: %w", file, err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, folder)
	if err != nil {
		return errors.Join(fmt.Errorf("migrate %s: %w", file, err), db.Close())
	}
	if _, err = p.Up(ctx); err != nil {
		err = fmt.Errorf("migrate %s: %w", file, classify(file, err))
	}
	return errors.Join(err, p.Close()) // which closes db
}

// prepare checks a file that is to be written, and makes the schema if there is nothing yet.
func prepare(ctx context.Context, s *session) error {
	if err := whole(s); err != nil {
		return err
	}
	state, err := stateOf(ctx, &transaction{session: s})
	if err == nil && state == empty {
		err = up(ctx, s.file)
	}
	return err
}

// whole reads the file through. A page that is wrong is found now, and not by a settlement.
func whole(s *session) error {
	var mode, verdict string
	if err := s.conn.QueryRowContext(context.Background(), `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
		return classify(s.file, err)
	}
	if verdict != "ok" {
		return &quota.Error{Reason: quota.ReasonStoreDamaged, Err: errors.New(verdict),
			Message: fmt.Sprintf("store %s is damaged: keep it aside, and restore a copy or name another file", s.file)}
	}
	if err := s.conn.QueryRowContext(context.Background(), `PRAGMA journal_mode`).Scan(&mode); err != nil {
		return classify(s.file, err)
	}
	if mode != "wal" {
		return quota.Errorf(quota.ReasonStoreUnavailable, fmt.Sprintf(
			"store %s: its file system cannot share memory between processes: name a file on a local disk", s.file))
	}
	return nil
}

// schemaState is how a file's schema stands to this program's.
type schemaState uint8

const (
	empty schemaState = iota + 1
	current
	older
	newer
	foreign
)

// checkSchema refuses every schema but this program's.
func checkSchema(ctx context.Context, tx relational.Tx, file string) error {
	state, err := stateOf(ctx, tx)
	if err != nil {
		return err
	}
	return refusal(state, file)
}

func refusal(state schemaState, file string) error {
	message := ""
	switch state {
	case current:
		return nil
	case empty:
		message = "store %s is empty: a server makes what it needs when it starts"
	case older:
		message = "store %[1]s has an older schema: stop the server and run `purser migrate --store sqlite:%[1]s`"
	case newer:
		message = "this program is older than the store %s: use the version of purser that wrote it, or a later one"
	case foreign:
		message = "%s is the database of another program: name another file"
	}
	return quota.Errorf(quota.ReasonSchema, fmt.Sprintf(message, file))
}

func stateOf(ctx context.Context, tx relational.Tx) (schemaState, error) {
	tables := make(map[string]bool)
	err := scanAll(ctx, tx, listTables, func(rows relational.Rows) error {
		var name string
		err := rows.Scan(&name)
		tables[name] = true
		return err
	})
	switch {
	case err != nil:
		return 0, err
	case len(tables) == 0:
		return empty, nil
	case !tables[versionTable]:
		return foreign, nil
	}
	var version int64
	err = scanAll(ctx, tx, selectVersion, func(rows relational.Rows) error { return rows.Scan(&version) })
	if err != nil {
		return 0, err
	}
	latest, err := latestVersion()
	switch {
	case err != nil:
		return 0, err
	case version == 0 && len(tables) == 1:
		return empty, nil // a first migration that was interrupted
	case !tables["incarnations"]:
		return foreign, nil // goose keeps other programs' versions under the same name
	case version < latest:
		return older, nil
	case version > latest:
		return newer, nil
	}
	return current, nil
}

func scanAll(ctx context.Context, tx relational.Tx, query string, scan func(relational.Rows) error) error {
	rows, err := tx.Query(ctx, query)
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

// latestVersion is the number of the last migration: there is one file for each.
func latestVersion() (int64, error) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	return goose.NumericComponent(files[len(files)-1])
}
