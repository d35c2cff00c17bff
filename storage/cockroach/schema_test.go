package cockroach

import (
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
)

// Both stores have the same tables, columns, types, keys and indexes: storage/relational is
// written once for both.
func TestSchemaIsThatOfSQLite(t *testing.T) {
	want := sqliteSchema(t)
	if len(want) == 0 {
		t.Fatal("the SQLite schema has no columns")
	}
	for name, u := range databases(t) {
		t.Run(name, func(t *testing.T) {
			if err := Migrate(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			got := serverSchema(t, u)
			for _, line := range slices.Sorted(maps.Keys(want)) {
				if !got[line] {
					t.Errorf("missing here: %s", line)
				}
			}
			for _, line := range slices.Sorted(maps.Keys(got)) {
				if !want[line] {
					t.Errorf("missing in SQLite: %s", line)
				}
			}
		})
	}
}

func sqliteSchema(t *testing.T) map[string]bool {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "s.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	p, err := goose.NewProvider(goose.DialectSQLite3, db, os.DirFS("../sqlite/migrations"), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return lines(t, db, `
SELECT 'column ' || m.name || '.' || c.name || ' ' || lower(c.type) || CASE c."notnull" WHEN 1 THEN ' not null' ELSE '' END
FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%'
UNION ALL
SELECT 'key ' || m.name || ' ' || c.pk || ' ' || c.name
FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.pk > 0 AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'goose_%'
UNION ALL
SELECT 'index ' || tbl_name || '.' || name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL`)
}

func serverSchema(t *testing.T, u string) map[string]bool {
	t.Helper()
	db, err := sql.Open("pgx", u)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	return lines(t, db, `
SELECT 'column ' || table_name || '.' || column_name || ' ' || CASE data_type WHEN 'bytes' THEN 'bytea' ELSE data_type END ||
       CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END
FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> 'purser_schema'
UNION ALL
SELECT 'key ' || k.table_name || ' ' || k.ordinal_position || ' ' || k.column_name
FROM information_schema.key_column_usage k
JOIN information_schema.table_constraints c ON c.constraint_name = k.constraint_name AND c.table_name = k.table_name AND c.table_schema = k.table_schema
WHERE c.constraint_type = 'PRIMARY KEY' AND k.table_schema = current_schema() AND k.table_name <> 'purser_schema'
UNION ALL
SELECT 'index ' || tablename || '.' || indexname FROM pg_indexes
WHERE schemaname = current_schema() AND tablename <> 'purser_schema' AND indexname NOT LIKE '%_pkey' AND indexname <> 'primary'`)
}

func lines(t *testing.T, db *sql.DB, query string) map[string]bool {
	t.Helper()
	rs, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rs.Close() }()
	set := map[string]bool{}
	for rs.Next() {
		var line string
		if err := rs.Scan(&line); err != nil {
			t.Fatal(err)
		}
		set[line] = true
	}
	if err := rs.Err(); err != nil {
		t.Fatal(err)
	}
	return set
}

// One DDL statement in each migration, outside a transaction, that may be run twice: what
// CockroachDB needs, and what makes two migrations at once harmless.
func TestMigrationsAreOneRepeatableStatement(t *testing.T) {
	files, err := filepath.Glob("migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		if !strings.HasPrefix(text, "-- +goose NO TRANSACTION\n-- +goose Up\n") {
			t.Errorf("%s: does not start with the two goose lines", f)
		}
		var code strings.Builder
		for line := range strings.Lines(text) {
			before, _, _ := strings.Cut(line, "--")
			code.WriteString(before)
		}
		if n := strings.Count(code.String(), ";"); n != 1 {
			t.Errorf("%s: %d statements; want 1", f, n)
		}
		if !strings.Contains(code.String(), "IF NOT EXISTS") && !strings.Contains(code.String(), "DO NOTHING") {
			t.Errorf("%s: fails when it is run again", f)
		}
	}
}

func TestMigrateAtOnce(t *testing.T) {
	for name, u := range databases(t) {
		t.Run(name, func(t *testing.T) {
			if got, err := SchemaState(t.Context(), u); err != nil || got != Empty {
				t.Fatalf("before: got state %d, %v; want %d", got, err, Empty)
			}
			const programs = 6
			errs := make([]error, programs)
			var wg sync.WaitGroup
			for i := range programs {
				wg.Go(func() { errs[i] = Migrate(t.Context(), u) })
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatalf("migrate: %v", err)
			}
			if got, err := SchemaState(t.Context(), u); err != nil || got != Current {
				t.Fatalf("after: got state %d, %v; want %d", got, err, Current)
			}
			open(t, Options{URL: u})
		})
	}
}

// An unfinished first migration is taken up where it stopped.
func TestMigrateAfterCrash(t *testing.T) {
	u := testdb.PostgreSQL(t)
	if err := Migrate(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	testdb.Exec(t, u, "DROP TABLE requests", "DROP TABLE mac_keys", "DELETE FROM purser_schema WHERE version >= "+
		fmt.Sprint(initialVersion-2))
	if got, err := SchemaState(t.Context(), u); err != nil || got != Empty {
		t.Fatalf("unfinished: got state %d, %v; want %d", got, err, Empty)
	}
	if err := Migrate(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	if got, err := SchemaState(t.Context(), u); err != nil || got != Current {
		t.Fatalf("finished: got state %d, %v; want %d", got, err, Current)
	}
}

func TestOpenRefusesOtherSchemas(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, u string)
		state   State
		says    string
		migrate bool // Migrate refuses as well
	}{
		{"empty", func(*testing.T, string) {}, Empty, "the database is empty: run purser migrate --store postgresql://", false},
		{"foreign", func(t *testing.T, u string) {
			testdb.Exec(t, u, "CREATE TABLE payroll (n INT)")
		}, Foreign, "1 tables of something else and none of Purser's", true},
		{"newer", func(t *testing.T, u string) {
			if err := Migrate(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			testdb.Exec(t, u, "INSERT INTO purser_schema (version) VALUES (9999)")
		}, Newer, "this program is older than the store", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := testdb.PostgreSQL(t)
			c.prepare(t, u)
			if got, err := SchemaState(t.Context(), u); err != nil || got != c.state {
				t.Errorf("got state %d, %v; want %d", got, err, c.state)
			}
			_, err := Open(t.Context(), Options{URL: u})
			if !errors.Is(err, quota.ReasonSchema) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("open: got %v; want %s with %q", err, quota.ReasonSchema, c.says)
			}
			if err := Migrate(t.Context(), u); errors.Is(err, quota.ReasonSchema) != c.migrate {
				t.Errorf("migrate: got %v; want refused = %t", err, c.migrate)
			}
		})
	}
}

func TestStateOfVersions(t *testing.T) {
	const latest = initialVersion + 3
	for _, c := range []struct {
		v    schemaVersion
		want State
	}{
		{schemaVersion{}, Empty},
		{schemaVersion{tables: 2}, Foreign},
		{schemaVersion{tables: 1, ours: true}, Empty},
		{schemaVersion{tables: 9, ours: true, version: initialVersion - 1}, Empty},
		{schemaVersion{tables: 9, ours: true, version: initialVersion}, Older},
		{schemaVersion{tables: 9, ours: true, version: latest}, Current},
		{schemaVersion{tables: 9, ours: true, version: latest + 1}, Newer},
	} {
		if got := c.v.state(latest); got != c.want {
			t.Errorf("%+v: got %d, want %d", c.v, got, c.want)
		}
	}
	err := schemaVersion{ours: true, version: initialVersion}.refusal(latest, "postgresql://h/d")
	if !errors.Is(err, quota.ReasonSchema) || !strings.Contains(err.Error(), "run purser migrate --store postgresql://h/d") {
		t.Errorf("older: got %v", err)
	}
	if latestVersion() < initialVersion {
		t.Errorf("the last migration is %d, before the initial version %d", latestVersion(), initialVersion)
	}
}

// A migration that was released is never renumbered, so the bound of the first schema holds.
func TestVersionTableIsNoColumnOfOurs(t *testing.T) {
	u := testdb.PostgreSQL(t)
	if err := Migrate(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer closeConn(t.Context(), conn)
	var n int64
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM purser_schema").Scan(&n); err != nil || n != latestVersion()+1 {
		t.Errorf("got %d versions, %v; want %d: goose's 0 and each migration once", n, err, latestVersion()+1)
	}
}
