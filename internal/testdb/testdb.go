// Package testdb gives tests real databases: a private PostgreSQL, started when the first
// test asks for it and gone when the test process is, and whatever CockroachDB the
// environment names. It downloads nothing and touches no server it did not start, except
// to make databases of its own on the one that TEST_POSTGRES_URL names.
package testdb

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Environment variables.
const (
	envPostgres  = "TEST_POSTGRES_URL"
	envCockroach = "TEST_COCKROACH_URL"
)

// patience bounds everything that is waited for.
const patience = 60 * time.Second

// shared is the server of this test process. It is package state because a process has one
// TestMain and may have many tests; nothing but Main and PostgreSQL touches it.
var shared struct {
	sync.Mutex
	server *Server
}

// Main runs a package's tests and stops the server they used. A package whose tests call
// [PostgreSQL] has `func TestMain(m *testing.M) { testdb.Main(m) }`; one that does more there
// calls [Stop] itself. Should the process be killed, a watchdog stops the server.
func Main(m *testing.M) {
	code := m.Run()
	Stop()
	os.Exit(code)
}

// Stop stops the shared server, if one was started.
func Stop() {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return
	}
	if err := shared.server.remove(); err != nil {
		fmt.Fprintln(os.Stderr, "testdb:", err)
	}
	shared.server = nil
}

// PostgreSQL makes an empty database, dropped when t ends, and returns its URL: on the server
// that TEST_POSTGRES_URL names, else on the process's own. It fails t if neither can be had.
func PostgreSQL(t testing.TB) string {
	t.Helper()
	if u := os.Getenv(envPostgres); u != "" {
		return newDatabase(t, u, "")
	}
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := start()
		if err != nil {
			t.Fatalf("start PostgreSQL: %v", err)
		}
		shared.server = s
	}
	return newDatabase(t, shared.server.URL(), "")
}

// Cockroach makes an empty database, dropped when t ends, on the CockroachDB that
// TEST_COCKROACH_URL names; ok is false if it names none.
func Cockroach(t testing.TB) (databaseURL string, ok bool) {
	t.Helper()
	u := os.Getenv(envCockroach)
	if u == "" {
		return "", false
	}
	return newDatabase(t, u, ""), true
}

// newDatabase makes a database with a name of its own, and drops it when t ends.
func newDatabase(t testing.TB, server, clause string) string {
	t.Helper()
	var b [6]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatalf("name a database: %v", err)
	}
	name := "purser_test_" + hex.EncodeToString(b[:])
	admin(t, server, "CREATE DATABASE "+name+clause)
	t.Cleanup(func() { dropDatabase(t, server, name) })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("the server's URL must be of the form postgresql://user@host:port/database: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

// dropDatabase drops name with whatever sessions are left in it; CockroachDB has no such
// option and needs none.
func dropDatabase(t testing.TB, server, name string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Logf("drop database %s: %v", name, err) // a test may end with its server stopped
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err == nil {
		return
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE "+name+" CASCADE"); err != nil {
		t.Errorf("drop database %s: %v", name, err)
	}
}

// Exec runs statements one by one on the database at databaseURL; t fails if one does.
func Exec(t testing.TB, databaseURL string, statements ...string) {
	t.Helper()
	admin(t, databaseURL, statements...)
}

func admin(t testing.TB, databaseURL string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}
