package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/load"
	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

// CurveOptions are what to measure along.
type CurveOptions struct {
	Accounts []int // that ask at random, of the engine alone
	Budgets  []int // that match a request besides the wallet, of the engine alone
	Nodes    []int // on one database; none without Scratch
	Scratch  func(context.Context) (*Scratch, error)
	Launch   func(store string) *exec.Cmd // a node, with nothing beside it
	Shared   int                          // accounts that the nodes share
	InFlight int                          // pairs, to each node
	Rounds   int
	Round    time.Duration
	Progress func(step, steps int, what string)
}

// RunCurves measures how the engine grows with accounts and budgets, and a cluster with nodes.
func RunCurves(ctx context.Context, o CurveOptions) (*report.Curves, error) {
	r := &report.Curves{Machine: report.ThisMachine(), Rounds: o.Rounds, RoundMillis: o.Round.Milliseconds()}
	c := curves{CurveOptions: o}
	for _, n := range [][]int{o.Accounts, o.Budgets, o.Nodes} {
		c.steps += len(n)
	}
	if len(o.Accounts) > 0 {
		found, err := c.alone(ctx, "the engine alone: accounts", "accounts that ask at random, each with a wallet", o.Accounts,
			func(n int) (*engine, error) { return newEngine(n, 0) })
		if err != nil {
			return nil, err
		}
		r.Curves = append(r.Curves, found)
	}
	if len(o.Budgets) > 0 {
		found, err := c.alone(ctx, "the engine alone: budgets", "budgets that match a request, besides the wallet; one account", o.Budgets,
			func(n int) (*engine, error) { return newEngine(1, n) })
		if err != nil {
			return nil, err
		}
		r.Curves = append(r.Curves, found)
	}
	if len(o.Nodes) > 0 {
		found, err := c.cluster(ctx, r)
		if err != nil {
			return nil, err
		}
		r.Curves = append(r.Curves, found)
	}
	return r, nil
}

type curves struct {
	CurveOptions
	step, steps int
}

func (c *curves) say(format string, args ...any) {
	c.step++
	if c.Progress != nil {
		c.Progress(c.step, c.steps, fmt.Sprintf(format, args...))
	}
}

// alone is a curve of the engine without anything around it.
func (c *curves) alone(ctx context.Context, name, along string, at []int, build func(n int) (*engine, error)) (report.Curve, error) {
	curve := report.Curve{Name: name, Along: along, Measures: []report.Measure{
		{Name: "a reservation, signed", Unit: "ns"}, {Name: "allocations in a reservation"}}}
	for _, n := range at {
		c.say("%s: %d", name, n)
		e, err := build(n)
		if err != nil {
			return curve, err
		}
		point := curve.Add(n)
		for range c.Rounds {
			if err := ctx.Err(); err != nil {
				return curve, err
			}
			p, err := e.measure(c.Round)
			if err != nil {
				return curve, err
			}
			point(p.nanos, p.allocations)
		}
	}
	return curve, nil
}

// cluster is the curve of nodes that share a database, a fresh one for each point.
func (c *curves) cluster(ctx context.Context, r *report.Curves) (report.Curve, error) {
	curve := report.Curve{Name: "nodes on one database",
		Along: fmt.Sprintf("nodes; %d accounts, each at home on one of them; %d pairs in flight to each", c.Shared, c.InFlight),
		Measures: []report.Measure{{Name: "pairs of reserve and durable commit", Unit: "/s"}, {Name: "CPU of all nodes for a pair", Unit: "us"},
			{Name: "transactions for 1 000 pairs"}}}
	for _, n := range c.Nodes {
		c.say("%s: %d", curve.Name, n)
		store, err := c.Scratch(ctx)
		if err != nil {
			return curve, err
		}
		r.Store = store.Version
		err = errors.Join(c.point(ctx, store, n, curve.Add(n)), store.Drop(ctx))
		if err != nil {
			return curve, err
		}
	}
	return curve, nil
}

// point measures a cluster of n nodes.
func (c *curves) point(ctx context.Context, store *Scratch, n int, add func(...float64)) (err error) {
	var nodes []*member
	defer func() {
		for _, m := range nodes {
			err = errors.Join(err, m.close())
		}
	}()
	for i := range n {
		m := &member{}
		nodes = append(nodes, m)
		if err := m.start(ctx, c.Launch(store.URL)); err != nil {
			return err
		}
		if i == 0 {
			if err := m.found(ctx, c.Shared); err != nil {
				return err
			}
		}
	}
	for i, m := range nodes { // those who have a home here
		var at []string
		for a := i; a < c.Shared; a += n {
			at = append(at, host.Name(sharedPrefix, a))
		}
		m.calls = drive.NewCalls(m.target, work(), at, c.InFlight)
	}
	if err := each(nodes, func(m *member) error { return m.warm(ctx) }); err != nil {
		return err
	}
	for range c.Rounds {
		for _, m := range nodes {
			if err := m.begin(ctx); err != nil {
				return err
			}
		}
		if err := each(nodes, func(m *member) error { return m.run(ctx, c.Round) }); err != nil {
			return err
		}
		var perSecond, cpu, transactions, done float64
		for _, m := range nodes {
			if err := m.end(ctx); err != nil {
				return err
			}
			perSecond += float64(m.done) / m.took.Seconds()
			done, cpu, transactions = done+float64(m.done), cpu+m.used.CPUSeconds, transactions+float64(m.used.Transactions)
		}
		add(perSecond, cpu*1e6/done, transactions*1000/done)
	}
	return nil
}

func each(nodes []*member, do func(*member) error) error {
	var group errgroup.Group
	for _, m := range nodes {
		group.Go(func() error { return do(m) })
	}
	return group.Wait()
}

// sharedPrefix names the accounts of a cluster.
const sharedPrefix = "shared-"

// member is a node of a cluster, with those who call it.
type member struct {
	child  *host.Child
	target *drive.Target
	calls  *drive.Calls
	before host.Used
	used   host.Used // in the round
	done   int64
	took   time.Duration
}

func (m *member) start(_ context.Context, cmd *exec.Cmd) (err error) {
	if m.child, err = host.Start(cmd); err != nil {
		return err
	}
	m.target, err = drive.Dial(m.child.Purser, m.child.Key, 1)
	return err
}

func (m *member) close() (err error) {
	if m.target != nil {
		err = m.target.Close()
	}
	if m.child != nil {
		err = errors.Join(err, m.child.Stop())
	}
	return err
}

// found makes the catalogue and the accounts.
func (m *member) found(ctx context.Context, accounts int) error {
	if err := applyTo(m.target.Context(ctx), m.target, catalogue(1)); err != nil {
		return fmt.Errorf("set up the catalogue: %w", err)
	}
	_, err := m.child.Do(ctx, host.Order{Do: host.Accounts, Template: template, Prefix: sharedPrefix, Count: accounts})
	return err
}

// warm has every account draw, and code and connections warm up.
func (m *member) warm(ctx context.Context) error {
	keyed := m.calls.Context(ctx)
	if err := errors.Join(m.calls.Each(keyed), m.calls.Release(keyed)); err != nil {
		return err
	}
	return m.run(ctx, warmUp)
}

const warmUp = 500 * time.Millisecond

func (m *member) run(ctx context.Context, span time.Duration) (err error) {
	m.done, m.took, err = load.Closed(m.calls.Context(ctx), load.System{}, m.calls.Workers(), span, m.calls.Pair)
	return err
}

func (m *member) begin(ctx context.Context) error {
	r, err := m.child.Do(ctx, host.Order{Do: host.Usage})
	if err == nil {
		m.before = *r.Usage
	}
	return err
}

func (m *member) end(ctx context.Context) error {
	r, err := m.child.Do(ctx, host.Order{Do: host.Usage})
	if err == nil {
		m.used = host.Used{CPUSeconds: r.Usage.CPUSeconds - m.before.CPUSeconds, Transactions: r.Usage.Transactions - m.before.Transactions}
	}
	return err
}
