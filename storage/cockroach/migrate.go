package cockroach

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/purser-io/purser/quota"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	// versionTable records which migrations ran; its presence marks a database as ours.
	versionTable = "purser_schema"
	// initialVersion is the last migration of the first schema. A database below it was
	// left, or is being made, by a first migration: it has no data, so it counts as empty.
	initialVersion = 29
	// migrateTries bounds the attempts of a migration that another process runs as well.
	migrateTries = 20
)

// State is how a database's schema stands to this program's.
type State uint8

// States.
const (
	Empty   State = iota + 1 // nothing in it, or an unfinished first migration
	Current                  // this program's
	Older                    // an older program's
	Newer                    // a newer program's
	Foreign                  // other people's tables, and none of ours
)

// SchemaState says how the schema of the database at url stands to this program's. It
// changes nothing. Reason STORE_UNAVAILABLE if the database cannot be reached.
func SchemaState(ctx context.Context, url string) (State, error) {
	conn, _, err := plainConn(ctx, url)
	if err != nil {
		return 0, err
	}
	defer closeConn(ctx, conn)
	v, err := readVersion(ctx, conn)
	if err != nil {
		return 0, connectError(err)
	}
	return v.state(latestVersion()), nil
}

// plainConn opens one connection outside any pool. Its statements have no limit on the server,
// whatever the URL says: an index of a large table takes as long as it takes.
func plainConn(ctx context.Context, url string) (*pgx.Conn, dialect, error) {
	o := Options{URL: url}
	config, err := o.poolConfig()
	if err != nil {
		return nil, dialect{}, err
	}
	config.ConnConfig.RuntimeParams["statement_timeout"] = "0"
	conn, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, dialect{}, unavailable(err)
	}
	d, err := detect(ctx, conn)
	if err != nil {
		closeConn(ctx, conn)
		return nil, dialect{}, connectError(err)
	}
	return conn, d, nil
}

// schemaVersion is what a database says about its schema.
type schemaVersion struct {
	tables  int64 // of anybody, in the schema that ours would go to
	ours    bool  // the version table is there
	version int64
}

// readVersion counts the tables in the current schema and reads our version.
func readVersion(ctx context.Context, conn *pgx.Conn) (schemaVersion, error) {
	var v schemaVersion
	err := conn.QueryRow(ctx, `SELECT count(*), count(CASE WHEN table_name = $1 THEN 1 END) > 0
FROM information_schema.tables WHERE table_schema = current_schema()`, versionTable).Scan(&v.tables, &v.ours)
	if err != nil {
		return v, fmt.Errorf("list tables: %w", err)
	}
	if !v.ours {
		return v, nil
	}
	err = conn.QueryRow(ctx, `SELECT COALESCE(max(version), 0) FROM `+versionTable).Scan(&v.version)
	if err != nil {
		return v, fmt.Errorf("read schema version: %w", err)
	}
	return v, nil
}

func (v schemaVersion) state(latest int64) State {
	switch {
	case !v.ours && v.tables > 0:
		return Foreign
	case !v.ours || v.version < initialVersion:
		return Empty
	case v.version < latest:
		return Older
	case v.version > latest:
		return Newer
	}
	return Current
}

// refusal is why a store with this schema cannot be opened by a program whose last migration
// is latest; nil if it can.
func (v schemaVersion) refusal(latest int64, store string) error {
	var message string
	switch v.state(latest) {
	case Current:
		return nil
	case Empty:
		message = "the database is empty: run purser migrate --store " + store
	case Older:
		message = fmt.Sprintf("the store's schema is version %d, this program's is %d: run purser migrate --store %s",
			v.version, latest, store)
	case Newer:
		message = fmt.Sprintf("this program is older than the store: its schema is version %d, the store's is %d; run a newer purser",
			latest, v.version)
	case Foreign:
		message = foreignMessage(v.tables)
	}
	return quota.Errorf(quota.ReasonSchema, message)
}

func foreignMessage(tables int64) string {
	return fmt.Sprintf("the database has %d tables of something else and none of Purser's: "+
		"name an empty database, or make one (CREATE DATABASE purser)", tables)
}

// redact takes the password out of a connection URL for a message.
func redact(connection string) string {
	u, err := url.Parse(connection)
	if err != nil || u.Scheme == "" {
		return "URL" // key=value form: the password may stand anywhere
	}
	query := u.Query()
	query.Del("password")
	query.Del("sslpassword")
	u.RawQuery = query.Encode()
	return u.Redacted()
}

// latestVersion is the number of the last migration.
func latestVersion() int64 {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	var latest int64
	for _, f := range files {
		if n, err := goose.NumericComponent(f); err == nil {
			latest = max(latest, n)
		}
	}
	return latest
}

// Migrate brings the database at url to this program's schema. It refuses, with reason
// SCHEMA, one that has other people's tables or a newer program's schema. Several processes
// may do it at once: every migration is one idempotent statement, and who loses a race tries
// again. (Advisory locks are no lock on CockroachDB, design §6.)
func Migrate(ctx context.Context, url string) error {
	conn, d, err := plainConn(ctx, url)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	v, err := readVersion(ctx, conn)
	if err != nil {
		return connectError(err)
	}
	switch latest := latestVersion(); v.state(latest) {
	case Current:
		return nil
	case Foreign, Newer:
		return v.refusal(latest, redact(url))
	}
	config := conn.Config()
	db := stdlib.OpenDB(*config)
	defer func() { _ = db.Close() }() // connections that did their work
	for n := range migrateTries {
		err = migrateOnce(ctx, db)
		if err == nil || !d.racedDDL(sqlState(err)) {
			break
		}
		if waiting := pause(ctx, n); waiting != nil {
			return unavailable(waiting)
		}
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", d.migrationError(err))
	}
	return nil
}

// migrationError gives a failed migration its reason. It may be run again whatever happened,
// so no outcome is unknown.
func (d dialect) migrationError(err error) error {
	switch code := sqlState(err); {
	case code == codeDiskFull:
		return definite(quota.ReasonStoreFull, "the database is out of disk space", err)
	case code == "" || brokenServer(code):
		return unavailable(err)
	}
	return err
}

func migrateOnce(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectCustom, db, files,
		goose.WithStore(versions{}), goose.WithIsolateDDL(true), goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	var partial *goose.PartialError
	if errors.As(err, &partial) {
		return fmt.Errorf("%s: %w", strings.TrimPrefix(partial.Failed.Source.Path, "migrations/"), partial.Err)
	}
	return err
}
