// Package bench measures a Purser node from a second process, next to what it should be
// compared with: gRPC that does nothing, and a design with one transaction for each request.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/cmd/purser/internal/apply"
	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
	"github.com/purser-io/purser/cmd/purser/internal/manifest"
)

// Families of scenarios.
const (
	Reserve = "reserve" // next to bare gRPC
	Pairs   = "pairs"   // reserve and commit, next to naive
	Session = "session" // many operations in a message
	Latency = "latency" // at a rate below the highest
	Commit  = "commit"  // how long durability takes, and how many transactions
)

// Families lists them, in their order.
func Families() []string { return []string{Reserve, Pairs, Session, Latency, Commit} }

// Options are how to measure.
type Options struct {
	Store       *Scratch
	Launch      func(store string) *exec.Cmd // the host, with the store as it is to be opened
	Families    []string
	Concurrency int // calls in flight
	Connections int
	Rounds      int
	Round       time.Duration
	Accounts    int
	Pots        int // 1 = the wallet, 2 = and a budget, 3 = and one for each user
	// Load is the share of reserve's highest rate at which Latency is taken.
	Load float64
	// Profiles is the folder for a CPU profile of the server in each scenario, of its last round;
	// "" = none.
	Profiles string
	// Progress is told what begins; step counts from 1 to steps. nil = nobody is.
	Progress func(step, steps int, what string)
}

// bench is one run.
type bench struct {
	Options
	child                      *host.Child
	purser, bare, chain, naive *drive.Target
	work                       *drive.Work
	hot, many                  []string // accounts
	report                     *report.Report
	step, steps                int
}

// Run measures. The store is given back by the caller.
func Run(ctx context.Context, o Options) (_ *report.Report, err error) {
	b := &bench{Options: o, work: work(), report: &report.Report{Machine: report.ThisMachine(), Ratios: []report.Ratio{}}}
	if b.child, err = host.Start(o.Launch(o.Store.URL)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.setUp(ctx); err != nil {
		return nil, err
	}
	b.report.Settings.Store, b.report.Settings.Families = o.Store.Version, o.Families
	b.report.Settings.Concurrency, b.report.Settings.Connections = o.Concurrency, o.Connections
	b.report.Settings.Rounds, b.report.Settings.RoundMillis = o.Rounds, o.Round.Milliseconds()
	b.report.Settings.Accounts, b.report.Settings.Pots = o.Accounts, o.Pots
	if err := b.measure(ctx); err != nil {
		return nil, err
	}
	return b.report, nil
}

func (b *bench) close() error {
	var err error
	for _, t := range []*drive.Target{b.purser, b.bare, b.chain, b.naive} {
		if t != nil {
			err = errors.Join(err, t.Close())
		}
	}
	return errors.Join(err, b.child.Stop())
}

func (b *bench) wants(families ...string) bool {
	return slices.ContainsFunc(families, func(f string) bool { return slices.Contains(b.Families, f) })
}

// say tells what begins.
func (b *bench) say(what string) {
	b.step++
	if b.Progress != nil {
		b.Progress(b.step, max(b.steps, b.step), what)
	}
}

// The work: a chat request as a gateway sends it. Its price is 2.9 credits, 29 million of
// which nobody uses up.
const (
	feature      = "chat.bench"
	template     = "bench-template"
	inputTokens  = 1200
	outputTokens = 500
	ttl          = 30 * time.Second
)

// catalogue has one feature, one plan, and an account to make copies of.
func catalogue(pots int) string {
	text := fmt.Sprintf(`
features:
  - {id: %[1]s, kind: METERED, meters: [input_tokens, output_tokens]}
rate_cards:
  - id: bench
    effective_time: 2023-01-01T00:00:00Z
    prices:
      - {feature: %[1]s, meter: input_tokens, credits: 2, per: 1000}
      - {feature: %[1]s, meter: output_tokens, credits: 1, per: 1000}
plans:
  - {id: bench, rate_card: bench, entitlements: [{feature: %[1]s}]}
accounts:
  - id: %[2]s
    plan: bench
    grants:
      - {id: bench, credits: 1000000000, kind: PURCHASED}
`, feature, template)
	for i, budget := range []string{
		`      - {id: monthly, credits: 1000000000, window: MONTH}`,
		`      - {id: user-daily, credits: 1000000000, window: DAY, label: user}`,
	} {
		if pots == 1 {
			break
		}
		if i == 0 {
			text += "    budgets:\n"
		}
		if i+2 <= pots {
			text += budget + "\n"
		}
	}
	return text
}

// setUp makes catalogue and accounts and connects.
func (b *bench) setUp(ctx context.Context) error {
	b.say("setting up the store")
	var err error
	for _, t := range []struct {
		to      **drive.Target
		address string
	}{{&b.purser, b.child.Purser}, {&b.bare, b.child.Bare}, {&b.chain, b.child.Chain}, {&b.naive, b.child.Naive}} {
		if *t.to, err = drive.Dial(t.address, b.child.Key, b.Connections); err != nil {
			return err
		}
	}
	if err := applyTo(b.purser.Context(ctx), b.purser, catalogue(b.Pots)); err != nil {
		return fmt.Errorf("set up the catalogue: %w", err)
	}
	if b.hot, err = b.accounts(ctx, "hot-", 1); err != nil {
		return err
	}
	if b.many, err = b.accounts(ctx, "many-", b.Accounts); err != nil {
		return err
	}
	return b.warmUp(ctx)
}

func applyTo(ctx context.Context, t *drive.Target, text string) error {
	m, err := manifest.Parse("bench", []byte(text))
	if err != nil {
		return err
	}
	plan, err := apply.Connect(t.Conn(), time.Now()).Compare(ctx, m)
	if err != nil {
		return err
	}
	return plan.Do(ctx, func(*apply.Action) error { return nil })
}

func (b *bench) accounts(ctx context.Context, prefix string, n int) ([]string, error) {
	if _, err := b.child.Do(ctx, host.Order{Do: host.Accounts, Template: template, Prefix: prefix, Count: n}); err != nil {
		return nil, err
	}
	names := make([]string, n)
	for i := range names {
		names[i] = host.Name(prefix, i)
	}
	return names, nil
}

// warmUp has every account draw, and the echo learn what an answer looks like.
func (b *bench) warmUp(ctx context.Context) error {
	b.say(fmt.Sprintf("the first draw of %d accounts", b.Accounts))
	for _, accounts := range [][]string{b.hot, b.many} {
		calls := drive.NewCalls(b.purser, b.work, accounts, b.Concurrency)
		if err := errors.Join(calls.Each(calls.Context(ctx)), calls.Release(calls.Context(ctx))); err != nil {
			return err
		}
	}
	one := drive.NewCalls(b.purser, b.work, b.hot, 1)
	answer, err := one.One(one.Context(ctx))
	if err != nil {
		return err
	}
	encoded, err := proto.Marshal(answer)
	if err != nil {
		return err
	}
	b.report.Settings.Reply, b.report.Settings.Request = len(encoded), one.RequestBytes()
	_, err = b.child.Do(ctx, host.Order{Do: host.Echo, Answer: encoded})
	return err
}

// Check says what is wrong with families.
func Check(families []string) error {
	for _, f := range families {
		if !slices.Contains(Families(), f) {
			return fmt.Errorf("there is no scenario %q; there are %s", f, strings.Join(Families(), ", "))
		}
	}
	return nil
}
