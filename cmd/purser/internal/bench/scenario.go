package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/load"
	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

// scenario is something to do as fast as it goes.
type scenario struct {
	name, what, unit string
	purser           bool // the Purser node does it
	run              func(ctx context.Context, span time.Duration) (done int64, took time.Duration, err error)
	after            func(ctx context.Context) error // off the clock; may be nil
	found            report.Throughput
}

// Names of scenarios that ratios are made of.
const (
	echoBare, echoChain             = "echo, bare", "echo, interceptors"
	reserveHot, reserveMany         = "reserve, hot", "reserve, many"
	pairsHot, pairsMany             = "pairs, hot", "pairs, many"
	naiveHot, naiveMany             = "naive, hot", "naive, many"
	sessionNoop                     = "session, no-op"
	sessionHot, sessionMany         = "session reserve, hot", "session reserve, many"
	sessionPairsHot, sessionPairsMy = "session pairs, hot", "session pairs, many"
	pairsWide                       = "pairs, wide"
)

// closed is a scenario of single calls.
func (b *bench) closed(name, what, unit string, t *drive.Target, accounts []string, workers int, call func(*drive.Calls) load.Call) *scenario {
	calls := drive.NewCalls(t, b.work, accounts, workers)
	do := call(calls)
	return &scenario{name: name, what: what, unit: unit, purser: t == b.purser,
		run: func(ctx context.Context, span time.Duration) (int64, time.Duration, error) {
			return load.Closed(calls.Context(ctx), load.System{}, workers, span, do)
		},
		after: func(ctx context.Context) error { return calls.Release(calls.Context(ctx)) }}
}

func asEcho(c *drive.Calls) load.Call    { return c.Echo }
func asReserve(c *drive.Calls) load.Call { return c.Reserve }
func asPair(c *drive.Calls) load.Call    { return c.Pair }

// Session's shape: as many operations in a message as the design asks about, half of what a
// stream may leave unanswered.
const (
	sessionBatch   = 64
	sessionWindow  = 512
	sessionStreams = 2
)

func (b *bench) session(name, what, unit string, t *drive.Target, accounts []string, pairs bool) *scenario {
	s := &drive.Sessions{Target: t, Work: b.work, Accounts: accounts, Streams: min(sessionStreams, b.Connections),
		Batch: sessionBatch, Window: sessionWindow, Pairs: pairs, Keep: t == b.purser}
	return &scenario{name: name, what: what, unit: unit, purser: t == b.purser, run: s.Run, after: s.Release}
}

// scenarios are those of the closed loop, in the order of a round.
func (b *bench) scenarios() []*scenario {
	var all []*scenario
	add := func(s *scenario) { all = append(all, s) }
	n, many := b.Concurrency, fmt.Sprintf("%d accounts", b.Accounts)
	if b.wants(Reserve, Latency) {
		add(b.closed(echoBare, "gRPC that does nothing", "calls", b.bare, b.hot, n, asEcho))
		add(b.closed(echoChain, "the same behind Purser's interceptors", "calls", b.chain, b.hot, n, asEcho))
		add(b.closed(reserveHot, "one account", "calls", b.purser, b.hot, n, asReserve))
		add(b.closed(reserveMany, many, "calls", b.purser, b.many, n, asReserve))
	}
	if b.wants(Pairs, Session) {
		add(b.closed(naiveHot, "a transaction each, one account", "pairs", b.naive, b.hot, n, asPair))
		add(b.closed(naiveMany, "a transaction each, "+many, "pairs", b.naive, b.many, n, asPair))
	}
	if b.wants(Pairs) {
		add(b.closed(pairsHot, "reserve and durable commit, one account", "pairs", b.purser, b.hot, n, asPair))
		add(b.closed(pairsMany, "reserve and durable commit, "+many, "pairs", b.purser, b.many, n, asPair))
	}
	if b.wants(Session) {
		add(b.session(sessionNoop, "64 operations a message that do nothing", "operations", b.bare, b.hot, false))
		add(b.session(sessionHot, "64 a message, one account", "operations", b.purser, b.hot, false))
		add(b.session(sessionMany, "64 a message, "+many, "operations", b.purser, b.many, false))
		add(b.session(sessionPairsHot, "64 a message, one account", "pairs", b.purser, b.hot, true))
		add(b.session(sessionPairsMy, "64 a message, "+many, "pairs", b.purser, b.many, true))
	}
	if b.wants(Commit) {
		add(b.closed(pairsWide, fmt.Sprintf("%d in flight, one account", wide), "pairs", b.purser, b.hot, wide, asPair))
	}
	return all
}

// wide is how many pairs are in flight for the count of transactions: a pair spends most of
// its time in commit, so that 1 024 commits are under way.
const wide = 1536

// measure runs everything.
func (b *bench) measure(ctx context.Context) error {
	scenarios := b.scenarios()
	perRound := len(scenarios)
	if b.wants(Latency) {
		perRound += 2
	}
	if b.wants(Commit) {
		perRound++
	}
	b.steps = b.step + len(scenarios) + b.Rounds*perRound
	for _, s := range scenarios { // warm code, caches, connections and draws
		b.say("warming up: " + s.name)
		if _, err := b.once(ctx, s, b.Round/4); err != nil {
			return err
		}
		s.found = report.Throughput{Name: s.name, What: s.what, Unit: s.unit}
	}
	for round := range b.Rounds {
		for _, s := range scenarios {
			b.say(fmt.Sprintf("round %d: %s", round+1, s.name))
			x, err := b.once(ctx, s, b.Round)
			if err != nil {
				return err
			}
			x.addTo(&s.found)
		}
	}
	for _, s := range scenarios {
		b.report.Throughput = append(b.report.Throughput, s.found)
	}
	if err := b.latencies(ctx); err != nil {
		return err
	}
	if err := b.commits(ctx); err != nil {
		return err
	}
	b.ratios()
	return nil
}

// figures are one round of a scenario.
type figures struct {
	perSecond, serverShare, clientShare, serverMicros, transactions float64
	purser                                                          bool
}

func (f *figures) addTo(t *report.Throughput) {
	t.PerSecond = append(t.PerSecond, f.perSecond)
	t.ServerShare, t.ClientShare = append(t.ServerShare, f.serverShare), append(t.ClientShare, f.clientShare)
	t.ServerMicros = append(t.ServerMicros, f.serverMicros)
	if f.purser {
		t.Transactions = append(t.Transactions, f.transactions)
	}
}

// profile is where a scenario's CPU profile is written, under dir.
func (s *scenario) profile(dir string) string {
	return filepath.Join(dir, strings.NewReplacer(", ", "-", " ", "-").Replace(s.name)+".pprof")
}

// profile begins the server's CPU profile, or completes it, if profiles are asked for.
func (b *bench) profile(ctx context.Context, path string) error {
	if b.Profiles == "" {
		return nil
	}
	_, err := b.child.Do(ctx, host.Order{Do: host.Profile, Path: path})
	return err
}

// once runs a scenario, and waits until what it left behind is done.
func (b *bench) once(ctx context.Context, s *scenario, span time.Duration) (f figures, err error) {
	before, err := b.child.Do(ctx, host.Order{Do: host.Usage})
	if err != nil {
		return f, err
	}
	if err := b.profile(ctx, s.profile(b.Profiles)); err != nil {
		return f, err
	}
	mine := host.CPU()
	done, took, err := s.run(ctx, span)
	mine = host.CPU() - mine
	if err != nil {
		return f, fmt.Errorf("%s: %w", s.name, err)
	}
	if err := b.profile(ctx, ""); err != nil {
		return f, err
	}
	after, err := b.child.Do(ctx, host.Order{Do: host.Usage})
	if err != nil {
		return f, err
	}
	cpu := after.Usage.CPUSeconds - before.Usage.CPUSeconds
	f = figures{perSecond: float64(done) / took.Seconds(), serverShare: cpu / took.Seconds(), clientShare: mine.Seconds() / took.Seconds(),
		serverMicros: cpu * 1e6 / float64(max(done, 1)), purser: s.purser,
		transactions: float64(after.Usage.Transactions-before.Usage.Transactions) * 1000 / float64(max(done, 1))}
	if s.after != nil {
		if err := s.after(ctx); err != nil {
			return f, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	_, err = b.child.Do(ctx, host.Order{Do: host.Settle})
	return f, err
}
