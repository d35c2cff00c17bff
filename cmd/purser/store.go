package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/sqlite"
)

// openedStore is a store that knows whether one process owns it alone (R29).
type openedStore interface {
	quota.Store
	Embedded() bool
}

// writableStore can be made safe after a restore, too.
type writableStore interface {
	openedStore
	quota.RestoreStore
}

// storeURL says where a store is.
type storeURL string

// path is the file of an embedded store; ok is false for a server.
func (u storeURL) path() (path string, ok bool) { return strings.CutPrefix(string(u), "sqlite:") }

func (u storeURL) server() bool {
	return strings.HasPrefix(string(u), "postgresql://") || strings.HasPrefix(string(u), "postgres://")
}

// Validate implements kong's check of a value.
func (u storeURL) Validate() error {
	if path, ok := u.path(); ok {
		if path == "" || strings.HasPrefix(path, "//") {
			return fmt.Errorf("store %q: want sqlite:PATH, such as sqlite:purser.db", string(u))
		}
		return nil
	}
	if !u.server() {
		return fmt.Errorf("store %q: want sqlite:PATH or postgresql://user:password@host:port/database", string(u))
	}
	return nil
}

// open opens the store for a server. One that is empty is migrated; empty reports that. One
// that is older, newer or somebody else's is refused. maxPages bounds an embedded store's file;
// 0 = the disk does.
func (u storeURL) open(ctx context.Context, log *slog.Logger, c clock, maxPages int64) (s writableStore, empty bool, err error) {
	if path, ok := u.path(); ok {
		empty, err := sqliteEmpty(path)
		if err != nil {
			return nil, false, err
		}
		store, err := sqlite.Open(ctx, sqlite.Options{Path: path, Clock: c.unixNano, Logger: log, MaxPages: maxPages})
		if err != nil {
			return nil, false, err
		}
		return store, empty, nil
	}
	state, err := cockroach.SchemaState(ctx, string(u))
	if err != nil {
		return nil, false, err
	}
	if state == cockroach.Empty {
		log.Info("the database is empty: creating the schema")
		if err := cockroach.Migrate(ctx, string(u)); err != nil {
			return nil, false, err
		}
	}
	store, err := cockroach.Open(ctx, cockroach.Options{URL: string(u), Logger: log})
	if err != nil {
		return nil, false, err
	}
	return store, state == cockroach.Empty, nil
}

// exists refuses a store that holds nothing yet, for commands that would otherwise make a new
// one of a name that is wrong, and find everything well with it.
func (u storeURL) exists(ctx context.Context) error {
	path, embedded := u.path()
	if embedded {
		if empty, err := sqliteEmpty(path); err != nil || !empty {
			return err
		}
	} else if state, err := cockroach.SchemaState(ctx, string(u)); err != nil || state != cockroach.Empty {
		return err
	}
	return fmt.Errorf("store %s is empty or not there: name the one that was restored", u)
}

// openReadOnly opens the store beside a running server.
func (u storeURL) openReadOnly(ctx context.Context, log *slog.Logger, c clock) (openedStore, error) {
	if path, ok := u.path(); ok {
		return sqlite.Open(ctx, sqlite.Options{Path: path, Clock: c.unixNano, Logger: log, ReadOnly: true})
	}
	return cockroach.Open(ctx, cockroach.Options{URL: string(u), Logger: log, StatementTimeout: auditTimeout})
}

// auditTimeout bounds one statement of a reader that streams whole tables.
const auditTimeout = time.Hour

// migrate brings the schema to this program's.
func (u storeURL) migrate(ctx context.Context) error {
	if path, ok := u.path(); ok {
		return sqlite.Migrate(ctx, path)
	}
	return cockroach.Migrate(ctx, string(u))
}

// String hides a password, for messages.
func (u storeURL) String() string {
	scheme, rest, ok := strings.Cut(string(u), "://")
	if !ok {
		return string(u)
	}
	user, host, ok := strings.Cut(rest, "@")
	if !ok {
		return string(u)
	}
	name, _, _ := strings.Cut(user, ":")
	return scheme + "://" + name + "@" + host
}
