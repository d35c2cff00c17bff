package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Kinds of stores.
const (
	SQLite     = "sqlite"
	PostgreSQL = "postgresql"
	Cockroach  = "cockroachdb"
)

// Scratch is a store of the benchmark's own: made by it, empty, and gone afterwards.
type Scratch struct {
	URL     string
	Kind    string
	Version string // for people
	drop    func(ctx context.Context) error
}

// Drop removes the store.
func (s *Scratch) Drop(ctx context.Context) error { return s.drop(ctx) }

// NewScratch makes a store: a file that does not exist yet, in a temporary folder if where is
// empty; or a database of its own on the server that where names.
func NewScratch(ctx context.Context, where string) (*Scratch, error) {
	if path, ok := strings.CutPrefix(where, "sqlite:"); ok {
		return newFile(path)
	}
	if where != "" {
		return newDatabase(ctx, where)
	}
	dir, err := os.MkdirTemp("", "purser-bench-")
	if err != nil {
		return nil, err
	}
	return &Scratch{URL: "sqlite:" + filepath.Join(dir, "purser.db"), Kind: SQLite, Version: SQLite,
		drop: func(context.Context) error { return os.RemoveAll(dir) }}, nil
}

func newFile(path string) (*Scratch, error) {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s exists: a benchmark runs on a file of its own, which it removes afterwards; name one that does not exist", path)
	}
	return &Scratch{URL: "sqlite:" + path, Kind: SQLite, Version: SQLite, drop: func(context.Context) error {
		var all error
		for _, file := range []string{path, NaivePath(path)} {
			for _, part := range []string{"", "-wal", "-shm", ".lock"} {
				if err := os.Remove(file + part); !errors.Is(err, fs.ErrNotExist) {
					all = errors.Join(all, err)
				}
			}
		}
		return all
	}}, nil
}

// NaivePath is the naive service's file beside a store's: SQLite has one writer for each file,
// and neither should wait for the other's background work.
func NaivePath(path string) string { return path + ".naive" }

// dropTimeout bounds removing a database after an interrupt.
const dropTimeout = 30 * time.Second

func newDatabase(ctx context.Context, where string) (*Scratch, error) {
	u, err := url.Parse(where)
	if err != nil {
		return nil, errors.New("the store's URL cannot be read: want postgresql://user:password@host:port/database")
	}
	conn, err := pgx.Connect(ctx, where)
	if err != nil {
		return nil, fmt.Errorf("reach the store: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	s := &Scratch{Kind: PostgreSQL}
	if err := conn.QueryRow(ctx, "SELECT version()").Scan(&s.Version); err != nil {
		return nil, fmt.Errorf("reach the store: %w", err)
	}
	if strings.Contains(s.Version, "CockroachDB") {
		s.Kind = Cockroach
	}
	if words := strings.Fields(s.Version); len(words) > 1 {
		s.Version = strings.Join(words[:2], " ")
	}
	name := "purser_bench_" + strings.ToLower(rand.Text()[:10])
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, fmt.Errorf("make a database for the benchmark, which touches no other: %w: name a user who may (CREATEDB)", err)
	}
	u.Path = "/" + name
	s.URL = u.String()
	s.drop = func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dropTimeout)
		defer cancel()
		return dropDatabase(ctx, where, name, s.Kind)
	}
	return s, nil
}

func dropDatabase(ctx context.Context, where, name, kind string) error {
	conn, err := pgx.Connect(ctx, where)
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	how := " WITH (FORCE)"
	if kind == Cockroach {
		how = " CASCADE"
	}
	if _, err := conn.Exec(ctx, "DROP DATABASE "+name+how); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	return nil
}
