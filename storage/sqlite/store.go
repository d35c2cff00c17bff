// Package sqlite keeps a store in one file: the embedded default, with the same guarantees as
// a cluster on one node. There is one writer, so transactions are serializable; a commit is
// on disk when it returns (WAL, synchronous=FULL).
//
// An exclusive lock on <file>.lock proves that no earlier process can write any more (R29).
// Readers such as the audit open the file beside it, without the lock.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/gofrs/flock"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// Options say which file, and how to open it.
type Options struct {
	// Path of the database file. Its folder must exist; the file is made, readable by its
	// owner only, unless ReadOnly.
	Path string
	// Clock is the database's time, unix ns (R44). It may be nil if ReadOnly.
	Clock func() int64
	// MaxPages bounds the file, in pages of 4 KiB; 0 = by the disk only. Beyond it writes are
	// refused with STORE_FULL. A file that is larger already may not grow.
	MaxPages int64
	// ReadOnly opens without the lock, beside a running server. Nothing can be written.
	ReadOnly bool
	// Logger gets what happens behind the scenes; nil = nothing is logged.
	Logger *slog.Logger
}

// Store keeps everything in one file.
type Store struct {
	*relational.Store
	lock *flock.Flock // nil if read-only
}

var _ quota.Store = (*Store)(nil)

// Embedded reports whether one process owns the store alone (R29): here it does.
func (s *Store) Embedded() bool { return true }

// Open opens the file, and makes the schema in one that is empty. It reads the whole file
// once, to know that it is whole.
//
// Reasons: STORE_LOCKED if another process has it; STORE_DAMAGED if it is no database or a
// broken one; SCHEMA if it holds something else, or an older or newer schema than this
// program's; STORE_UNAVAILABLE if it cannot be opened at all. The caller closes the store.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Clock == nil && !o.ReadOnly {
		return nil, quota.Errorf(quota.ReasonRequestInvalid, "open store: a clock is needed")
	}
	file, err := resolve(o.Path, o.ReadOnly)
	if err != nil {
		return nil, err
	}
	s := &Store{}
	if !o.ReadOnly {
		if s.lock, err = acquire(file); err != nil {
			return nil, err
		}
	}
	d, err := openDriver(ctx, file, &o)
	if err != nil {
		return nil, errors.Join(err, s.unlock())
	}
	s.Store = relational.New(d)
	if o.Logger != nil {
		o.Logger.Debug("store opened", "file", file, "read_only", o.ReadOnly)
	}
	return s, nil
}

// Close waits for operations that run, closes the file and gives up the lock, in this order:
// who takes the lock next must find no writer.
func (s *Store) Close() error {
	return errors.Join(s.Store.Close(), s.unlock())
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	if err := s.lock.Close(); err != nil {
		return fmt.Errorf("unlock store: %w", err)
	}
	return nil
}
