package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/cmd/purser/internal/bench"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/naive"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/storage/faultstore"
)

// benchCmd measures.
type benchCmd struct {
	Run    benchRunCmd    `cmd:"" default:"withargs" help:"Measure throughput and latency, and print ratios."`
	Memory benchMemoryCmd `cmd:"" help:"Measure what warm accounts and live reservations take in memory."`
	Curves benchCurvesCmd `cmd:"" help:"Measure how it grows: with accounts, budgets and nodes."`
	Host   benchHostCmd   `cmd:"" hidden:"" help:"The process that is measured; started by the others."`
}

// Help is shown by --help.
func (benchCmd) Help() string { return benchRunCmd{}.Help() }

// benchRunCmd measures throughput and latency.
type benchRunCmd struct {
	Store       string        `placeholder:"URL" help:"Where to measure: sqlite:PATH of a file that does not exist yet, or postgresql://user@host:port/database of a server on which the user may create databases. Default: a temporary SQLite file."`
	Only        []string      `placeholder:"NAME" help:"Scenarios to run, of reserve, pairs, session, latency, commit. Default: all."`
	Quick       bool          `help:"A few seconds only: shows that it works, and nothing about speed."`
	Concurrency int           `default:"64" help:"Calls in flight."`
	Connections int           `default:"4" help:"Connections they share."`
	Rounds      int           `default:"3" help:"How often each scenario is run; they take turns."`
	Round       time.Duration `default:"1s" help:"How long a scenario runs in a round."`
	Accounts    int           `default:"10000" help:"How many accounts stand for many."`
	Pots        int           `default:"1" help:"What a reservation holds on: 1 = the wallet, as naive does; 2 = a budget as well; 3 = and one for each user."`
	Load        float64       `default:"0.5" help:"At what share of reserve's highest rate latencies are taken."`
	Profiles    string        `type:"existingdir" placeholder:"DIR" help:"Write a CPU profile of the server in each scenario into this folder, for go tool pprof."`
	SVG         string        `name:"svg" type:"path" placeholder:"FILE" help:"Draw the ratios into this file."`
	Markdown    string        `type:"path" placeholder:"FILE" help:"Write the tables into this file, in Markdown."`
}

// Help is shown by --help.
func (benchRunCmd) Help() string {
	return `A server is started in a process of its own, on a store of its own that is removed afterwards; this process drives it over loopback. What counts are the ratios between figures of the same round, for they say something on any machine:

  reserve / echo            what Purser leaves of gRPC: 1 would be a server that decides for nothing. Echo takes and sends messages of the same size and does nothing, bare or behind Purser's own interceptors.
  pairs / naive             what holding in memory and committing in groups gains over the best design with one transaction for each reserve and each commit, on the same store.
  session / no-op session   as reserve / echo, with 64 operations in each message of a stream.
  reserve p99 / echo p99    how late the slowest of a hundred answers are at half of the highest rate (--load). Calls are timed from when they were due: those that a stall delayed count as slow.
  commit / one-row insert   how much longer an acknowledgement takes with many in flight than one durable insert alone.

Beside each stands the floor that the design asks for. Load generator, server and database share this machine: leave it alone meanwhile.

Examples:
  purser bench
  purser bench --quick --output json
  purser bench --store postgresql://postgres@localhost/postgres --only pairs,commit --svg ratios.svg`
}

// Validate implements kong's check of a command.
func (b *benchRunCmd) Validate() error {
	for _, bound := range []struct {
		flag        string
		value, most int
	}{{"concurrency", b.Concurrency, 4096}, {"connections", b.Connections, 64}, {"rounds", b.Rounds, 100},
		{"accounts", b.Accounts, 100_000}, {"pots", b.Pots, 3}} {
		if bound.value < 1 || bound.value > bound.most {
			return fmt.Errorf("--%s is %d, want 1 to %d", bound.flag, bound.value, bound.most)
		}
	}
	if !(b.Load >= 0.01 && b.Load <= 1) {
		return fmt.Errorf("--load is %v, want 0.01 to 1", b.Load)
	}
	if err := checkRound(b.Round); err != nil {
		return err
	}
	return bench.Check(b.Only)
}

func checkRound(round time.Duration) error {
	if round < 10*time.Millisecond || round > time.Minute {
		return fmt.Errorf("--round is %v, want 10ms to 1m", round)
	}
	return nil
}

// options are how to measure.
func (b *benchRunCmd) options(e *env, s *bench.Scratch) bench.Options {
	o := bench.Options{Store: s, Families: b.Only, Concurrency: b.Concurrency, Connections: b.Connections,
		Rounds: b.Rounds, Round: b.Round, Accounts: b.Accounts, Pots: b.Pots, Load: b.Load, Profiles: b.Profiles, Launch: launchHost(e)}
	if len(b.Only) == 0 {
		o.Families = bench.Families()
	}
	if b.Quick {
		o.Rounds, o.Round, o.Accounts = 1, 100*time.Millisecond, min(b.Accounts, 100)
	}
	return o
}

// Run measures.
func (b *benchRunCmd) Run(e *env) error {
	store, err := bench.NewScratch(e.ctx, b.Store)
	if err != nil {
		return err
	}
	o := b.options(e, store)
	progress, stop := showSteps(e)
	o.Progress = progress
	found, err := bench.Run(e.ctx, o)
	stop()
	if err = errors.Join(err, store.Drop(e.ctx)); err != nil {
		return err
	}
	if err := errors.Join(writeTo(b.SVG, found.SVG), writeTo(b.Markdown, found.Markdown)); err != nil {
		return err
	}
	return e.out.emit(found, func(w io.Writer) {
		found.Print(w)
		if b.Quick {
			printLine(w, "This was a quick run: it shows that everything works, and nothing about speed.")
		}
	})
}

// showSteps draws what is being measured, on a terminal, as progress is told of it; stop wipes it.
func showSteps(e *env) (progress func(step, steps int, what string), stop func()) {
	var now atomic.Value
	now.Store("")
	progress = func(step, steps int, what string) { now.Store(fmt.Sprintf("%3d%%  %s", step*100/steps, what)) }
	return progress, terminal.Progress(e.stderr, func() string { return now.Load().(string) })
}

// writeTo has write fill a file; "" is none.
func writeTo(path string, write func(io.Writer) error) error {
	if path == "" {
		return nil
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// launchHost starts this program as the host of a store, whose URL may have a password in it
// and so goes by the environment.
func launchHost(e *env, flags ...string) func(store string) *exec.Cmd {
	return func(store string) *exec.Cmd {
		program, err := os.Executable()
		if err != nil {
			program = os.Args[0]
		}
		cmd := exec.Command(program, append([]string{"bench", "host"}, flags...)...)
		cmd.Env = append(os.Environ(), "PURSER_STORE="+store)
		cmd.Stderr = e.stderr
		return cmd
	}
}

// benchMemoryCmd fills a node.
type benchMemoryCmd struct {
	Store        string `placeholder:"URL" help:"As of purser bench run."`
	Accounts     int    `default:"100000" help:"Accounts that have drawn, at most 100000: more are not kept in memory."`
	Reservations int    `default:"1000000" help:"Live reservations, shared by the accounts."`
	Pots         int    `default:"1" help:"What a reservation holds on: 1 = the wallet; 2 = a budget as well; 3 = and one for each user."`
	Keys         bool   `help:"Give each reservation an idempotency key, which is remembered with its answer."`
	Markdown     string `type:"path" placeholder:"FILE" help:"Write the table into this file, in Markdown."`
}

// Help is shown by --help.
func (benchMemoryCmd) Help() string {
	return `A server of its own is filled: with accounts, each of which has drawn once, then with reservations that nobody settles. Told is what a collection leaves, and what they add to the process as it runs: when garbage has made the heap as large as the collector lets it grow, as it is set for purser serve or by GOGC and GOMEMLIMIT.

Examples:
  purser bench memory
  GOGC=50 purser bench memory --keys --pots 3`
}

// Validate implements kong's check of a command.
func (b *benchMemoryCmd) Validate() error {
	for _, bound := range []struct {
		flag        string
		value, most int
	}{{"accounts", b.Accounts, 100_000}, {"reservations", b.Reservations, benchHolds / 2}, {"pots", b.Pots, 3}} {
		if bound.value < 1 || bound.value > bound.most {
			return fmt.Errorf("--%s is %d, want 1 to %d", bound.flag, bound.value, bound.most)
		}
	}
	return nil
}

// Run fills.
func (b *benchMemoryCmd) Run(e *env) error {
	store, err := bench.NewScratch(e.ctx, b.Store)
	if err != nil {
		return err
	}
	o := bench.MemoryOptions{Options: bench.Options{Store: store, Accounts: b.Accounts, Pots: b.Pots, Connections: 4, Concurrency: 64,
		Launch: launchHost(e)}, Reservations: b.Reservations, Keys: b.Keys}
	progress, stop := showSteps(e)
	o.Progress = progress
	found, err := bench.RunMemory(e.ctx, o)
	stop()
	if err = errors.Join(err, store.Drop(e.ctx)); err != nil {
		return err
	}
	if err := writeTo(b.Markdown, found.Markdown); err != nil {
		return err
	}
	return e.out.emit(found, found.Print)
}

// benchCurvesCmd measures along numbers of things.
type benchCurvesCmd struct {
	Store    string        `placeholder:"URL" help:"For the curve of nodes: postgresql://user@host:port/database of a server on which the user may create databases, and which takes 16 connections for each node. Default: no such curve, for a SQLite file has one node."`
	Accounts []int         `default:"1,100,10000,1000000" help:"Numbers of accounts, of the engine alone. A million take some 2 GiB of memory."`
	Budgets  []int         `default:"1,2,4,8,16,32,63" help:"Numbers of budgets that match a request, of the engine alone."`
	Nodes    []int         `default:"1,2,4,8" help:"Numbers of nodes on one database."`
	Rounds   int           `default:"5" help:"How often each point is measured."`
	Round    time.Duration `default:"1s" help:"How long a point is measured in a round."`
	SVG      string        `name:"svg" type:"path" placeholder:"FILE" help:"Draw the curves into this file."`
	Markdown string        `type:"path" placeholder:"FILE" help:"Write the tables into this file, in Markdown."`
}

// Help is shown by --help.
func (benchCurvesCmd) Help() string {
	return `How much longer does it take when there is more of it?

  accounts   the engine alone decides, holds and signs for accounts that ask at random. More accounts are more memory, which the processor's cache does not hold.
  budgets    the same for one account, when so many budgets match a request besides the wallet.
  nodes      so many processes on one database of PostgreSQL or CockroachDB, each at home for its share of 1 000 accounts; 64 pairs of reserve and durable commit in flight to each. All of them share this machine: what grows well keeps its CPU and transactions for a pair level; pairs per second grow only where there are processors for them.

Examples:
  purser bench curves
  purser bench curves --store postgresql://postgres@localhost/postgres --svg curves.svg --output json`
}

// Bounds of what curves are measured along.
const (
	curveAccounts = 10_000_000
	curveBudgets  = 63 // and the wallet are as many parts as a reservation may have
	curveNodes    = 16
	curveShared   = 1000 // accounts
	curveInFlight = 64
)

// Validate implements kong's check of a command.
func (b *benchCurvesCmd) Validate() error {
	for _, along := range []struct {
		flag   string
		values []int
		most   int
	}{{"accounts", b.Accounts, curveAccounts}, {"budgets", b.Budgets, curveBudgets}, {"nodes", b.Nodes, curveNodes}, {"rounds", []int{b.Rounds}, 100}} {
		for _, v := range along.values {
			if v < 1 || v > along.most {
				return fmt.Errorf("--%s is %d, want 1 to %d", along.flag, v, along.most)
			}
		}
	}
	if strings.HasPrefix(b.Store, "sqlite:") {
		return errors.New("--store is a SQLite file, on which there is one node only; name a server, or leave it out")
	}
	return checkRound(b.Round)
}

// Run measures.
func (b *benchCurvesCmd) Run(e *env) error {
	o := bench.CurveOptions{Accounts: b.Accounts, Budgets: b.Budgets, Rounds: b.Rounds, Round: b.Round,
		Shared: curveShared, InFlight: curveInFlight, Launch: launchHost(e, "--alone")}
	if b.Store != "" {
		o.Nodes = b.Nodes
		o.Scratch = func(ctx context.Context) (*bench.Scratch, error) { return bench.NewScratch(ctx, b.Store) }
	}
	progress, stop := showSteps(e)
	o.Progress = progress
	found, err := bench.RunCurves(e.ctx, o)
	stop()
	if err != nil {
		return err
	}
	if err := errors.Join(writeTo(b.SVG, found.SVG), writeTo(b.Markdown, found.Markdown)); err != nil {
		return err
	}
	return e.out.emit(found, func(w io.Writer) {
		found.Print(w)
		if b.Store == "" {
			printLine(w, "There is no curve over nodes: it needs --store postgresql://...")
		}
	})
}

// benchHostCmd is the process that is measured. Its settings are those of serve, but that
// amounts stay drawn while other scenarios have their turn.
type benchHostCmd struct {
	Store storeURL `required:"" placeholder:"URL" help:"The scratch store."`
	Alone bool     `help:"A node with nothing to compare it with, perhaps one of several on the store."`
}

const (
	benchIdle  = time.Hour // longer than a benchmark
	benchHolds = 4_000_000
	// As many as are in flight: with the whole load on one account all may wait for one draw.
	benchWaiters = 1 << 16
)

// Run serves until its input ends.
func (b *benchHostCmd) Run(e *env) error {
	store, empty, err := b.Store.open(e.ctx, e.log, e.clock, 0)
	if err != nil {
		return err
	}
	if !empty && !b.Alone {
		return errors.Join(errors.New("the store is not empty"), store.Close())
	}
	return errors.Join(b.serve(e, store, countedStore{faultstore.New(store), store.Embedded()}), store.Close())
}

// countedStore counts the transactions of a node: each operation of a store is one.
type countedStore struct {
	*faultstore.Store
	embedded bool
}

// Embedded implements openedStore.
func (s countedStore) Embedded() bool { return s.embedded }

func (b *benchHostCmd) serve(e *env, store openedStore, counted countedStore) error {
	defer tuneMemory()()
	writer, ok := store.(host.Writer)
	if !ok {
		return fmt.Errorf("%T has no transactions of its own", store)
	}
	_, secret, err := createKey(e.ctx, store, authz.Key{Role: authz.RoleAdmin, Principal: "bench"}, e.clock.unixNano())
	if err != nil {
		return err
	}
	settings := authority.DefaultConfig()
	settings.Embedded, settings.Lanes = store.Embedded(), defaultLanes(store.Embedded())
	settings.IdleReturn, settings.DrainFor = benchIdle, 0
	settings.MaxReservations, settings.MaxPerPrincipal = benchHolds, benchHolds
	settings.MaxWaiters = benchWaiters
	n, err := newNode(e.ctx, nodeConfig{authority: settings, listen: "127.0.0.1:0"}, counted, e.clock, e.log)
	if err != nil {
		return err
	}
	h := &host.Host{Node: n.authority, Store: writer, Calls: func() int { return counted.Calls(faultstore.Any) }, Options: n.server.Options(),
		Request: bench.FillRequest(settings.MaxHold)}
	if b.Alone {
		return b.obey(e, n, h, secret)
	}
	books, err := b.books(e.ctx)
	if err != nil {
		return err
	}
	h.Naive = &naive.Service{Books: books, Rates: bench.Rates(), Now: e.clock.Now, TTL: bench.TTL}
	return errors.Join(b.obey(e, n, h, secret), h.Close(), books.Drop(context.WithoutCancel(e.ctx)), books.Close())
}

// obey serves node and host until orders end.
func (b *benchHostCmd) obey(e *env, n *node, h *host.Host, secret string) error {
	ready := host.Ready{Purser: n.address(), Key: secret}
	if err := h.Open(&ready); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	err := h.Serve(ctx, os.Stdin, e.out.w, ready)
	stop()
	return errors.Join(err, <-done)
}

func (b *benchHostCmd) books(ctx context.Context) (naive.Books, error) {
	if path, ok := b.Store.path(); ok {
		return naive.OpenSQLite(ctx, bench.NaivePath(path))
	}
	return naive.OpenServer(ctx, string(b.Store))
}
