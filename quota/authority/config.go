package authority

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// Config is how an authority runs. DefaultConfig gives what protocol §3.5 starts with.
type Config struct {
	Node    string // name for people, in the store's incarnation row
	Address string // where clients reach this node; "" = unknown

	Lease   time.Duration // L: how long a node may issue without renewing
	MaxHold time.Duration // M0: the longest a token may live in memory only (R9)
	Grace   time.Duration // g: how long after its end a hold may still be committed for sure
	Poll    time.Duration // how often changes and notes are read (R32)
	Skew    time.Duration // eps: by how much clocks of nodes may differ

	IdleReturn    time.Duration // free amounts of a pool unused for so long go home
	DrainFor      time.Duration // how long a draining node waits for live holds (R49)
	SettleTimeout time.Duration // how long a caller waits for durability before UNKNOWN

	Shards          int // locks; at most 16 for each lane
	Lanes           int // journal streams: 1 on SQLite, up to 4 else (R36)
	BatchRows       int // of a flush
	SettleQueue     int // settlements waiting in a lane before new ones are refused
	MaxReservations int // live, on this node
	MaxPerPrincipal int // live, of one principal, on this node
	MaxLimiters     int // counters of rate and concurrency limits, on this node
	MaxWaiters      int // requests waiting for one payer's draw
	MaxAccounts     int // cached profiles
	MaxKeys         int // cached API keys

	// Embedded says that the store's file lock proves predecessors dead (R29).
	Embedded bool
}

// DefaultConfig is a node's configuration in production.
func DefaultConfig() Config {
	return Config{
		Node: "purser", Lease: 30 * time.Second, MaxHold: 60 * time.Second, Grace: 10 * time.Second,
		Poll: 500 * time.Millisecond, Skew: 500 * time.Millisecond,
		IdleReturn: 30 * time.Second, DrainFor: 20 * time.Second, SettleTimeout: 10 * time.Second,
		Shards: 16, Lanes: 1, BatchRows: 512, SettleQueue: 65_536,
		MaxReservations: 1_000_000, MaxPerPrincipal: 1_000_000, MaxLimiters: 250_000, MaxWaiters: 1024,
		MaxAccounts: 100_000, MaxKeys: 10_000,
	}
}

// Validate lists every setting that is out of bounds.
func (c Config) Validate() error {
	var errs []error
	span := func(name string, v, least, most time.Duration) {
		if v < least || v > most {
			errs = append(errs, fmt.Errorf("%s is %v; it must be %v to %v", name, v, least, most))
		}
	}
	count := func(name string, v, least, most int) {
		if v < least || v > most {
			errs = append(errs, fmt.Errorf("%s is %d; it must be %d to %d", name, v, least, most))
		}
	}
	span("lease", c.Lease, 500*time.Millisecond, 10*time.Minute)
	span("max hold", c.MaxHold, time.Second, 10*time.Minute)
	span("grace", c.Grace, 100*time.Millisecond, 5*time.Minute)
	span("poll", c.Poll, 10*time.Millisecond, c.Lease/2)
	span("skew", c.Skew, 0, c.Lease/2)
	span("idle return", c.IdleReturn, 100*time.Millisecond, 24*time.Hour)
	span("drain", c.DrainFor, 0, 10*time.Minute)
	span("settle timeout", c.SettleTimeout, 100*time.Millisecond, 5*time.Minute)
	count("lanes", c.Lanes, 1, 16)
	count("shards", c.Shards, c.Lanes, escrow.MaxShards*max(c.Lanes, 1))
	count("batch rows", c.BatchRows, 1, 4096)
	count("settle queue", c.SettleQueue, 1, 1<<22)
	count("max reservations", c.MaxReservations, 1, 1<<26)
	count("max per principal", c.MaxPerPrincipal, 1, 1<<26)
	count("max limiters", c.MaxLimiters, 1, 1<<24)
	count("max waiters", c.MaxWaiters, 1, 1<<20)
	count("max accounts", c.MaxAccounts, 1, 1<<24)
	count("max keys", c.MaxKeys, 1, 1<<24)
	return errors.Join(errs...)
}

// Clock tells the time, with a monotonic reading.
type Clock interface {
	Now() time.Time
}

// Deps are what an authority works with.
type Deps struct {
	Store   quota.Store
	Clock   Clock
	Random  io.Reader // cryptographic: lanes, incarnations, nonces
	Logger  *slog.Logger
	Metrics Metrics      // nil = none
	Watcher Watcher      // nil = none
	Tracer  trace.Tracer // nil = no spans
}
