package testdb

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func TestMain(m *testing.M) { Main(m) }

// value runs a query of one integer.
func value(t *testing.T, databaseURL, sql string) (int, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), databaseURL)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var n int
	err = conn.QueryRow(t.Context(), sql).Scan(&n)
	return n, err
}

func TestDatabasesAreEmptyAndApart(t *testing.T) {
	one, two := PostgreSQL(t), PostgreSQL(t)
	if one == two {
		t.Fatalf("two calls gave one database: %s", one)
	}
	Exec(t, one, "CREATE TABLE x (n INT)", "INSERT INTO x VALUES (7)")
	if n, err := value(t, one, "SELECT n FROM x"); err != nil || n != 7 {
		t.Errorf("first database: got %d, %v; want 7", n, err)
	}
	if n, err := value(t, two, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"); err != nil || n != 0 {
		t.Errorf("second database: got %d tables, %v; want 0", n, err)
	}
}

func TestServerStopsStartsAndRecovers(t *testing.T) {
	s := NewServer(t)
	u := s.Database(t)
	Exec(t, u, "CREATE TABLE x (n INT)", "INSERT INTO x VALUES (7)")
	s.Stop(t)
	if _, err := value(t, u, "SELECT n FROM x"); err == nil {
		t.Fatal("a stopped server answered")
	}
	s.Start(t)
	Exec(t, u, "INSERT INTO x VALUES (8)", "CHECKPOINT")
	s.Crash(t)
	s.Start(t)
	if n, err := value(t, u, "SELECT sum(n) FROM x"); err != nil || n != 15 {
		t.Errorf("after a crash: got %d, %v; want 15", n, err)
	}
	s.Restart(t)
}

func TestServerLeavesNothingBehind(t *testing.T) {
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil || len(pid) == 0 {
		t.Fatalf("no pid file: %v", err)
	}
	// The watchdog does it all when this process dies: closing its input is the same event.
	if err := errors.Join(s.guard.Close(), s.guarded.Wait()); err != nil {
		t.Fatalf("watchdog: %v", err)
	}
	<-s.done
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", s.dir, err)
	}
}

func TestSmallDatabaseFillsAndGrows(t *testing.T) {
	small := NewServer(t).Small(t, 10)
	Exec(t, small.URL, "CREATE TABLE x (s TEXT)", "ALTER TABLE x ALTER s SET STORAGE PLAIN")
	const fill = "WITH i AS (INSERT INTO x SELECT repeat(md5(random()::text), 50) FROM generate_series(1, 4000) RETURNING 1) SELECT count(*) FROM i"
	_, err := value(t, small.URL, fill)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != "53100" {
		t.Fatalf("filling a full disk: got %v; want SQLSTATE 53100", err)
	}
	small.Resize(40)
	if n, err := value(t, small.URL, fill); err != nil || n != 4000 {
		t.Errorf("with room again: got %d, %v; want 4000", n, err)
	}
}
