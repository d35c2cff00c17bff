package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

// MemoryOptions are what to fill a node with.
type MemoryOptions struct {
	Options
	Reservations int
	Keys         bool // each reservation with an idempotency key, which the node remembers
}

// floors of memory, in MiB for a million reservations and for 100 000 accounts.
const (
	reservationsMiB = 600
	accountsMiB     = 300
)

// RunMemory measures what a node keeps in memory for warm accounts and live reservations.
func RunMemory(ctx context.Context, o MemoryOptions) (_ *report.Memory, err error) {
	b := &bench{Options: o.Options, work: work(), steps: 5}
	b.work.Keyless = true // remembered answers are weighed with the reservations
	if b.child, err = host.Start(o.Launch(o.Store.URL)); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	m := &report.Memory{Machine: report.ThisMachine(), Store: o.Store.Version, Pots: o.Pots, Keys: o.Keys}
	b.say("setting up the store")
	if b.purser, err = drive.Dial(b.child.Purser, b.child.Key, o.Connections); err != nil {
		return nil, err
	}
	if err := applyTo(b.purser.Context(ctx), b.purser, catalogue(o.Pots)); err != nil {
		return nil, fmt.Errorf("set up the catalogue: %w", err)
	}
	begin, _, err := b.weigh(ctx) // before there are accounts: they are read ahead of need
	if err != nil {
		return nil, err
	}
	m.Empty = begin
	accounts, err := b.accounts(ctx, "many-", o.Accounts)
	if err != nil {
		return nil, err
	}

	b.say(fmt.Sprintf("the first draw of %d accounts", o.Accounts))
	calls := drive.NewCalls(b.purser, b.work, accounts, o.Concurrency)
	if err := errors.Join(calls.Each(calls.Context(ctx)), calls.Release(calls.Context(ctx))); err != nil {
		return nil, err
	}
	warm, _, err := b.weigh(ctx)
	if err != nil {
		return nil, err
	}
	m.Accounts = report.NewWeight("warm accounts", o.Accounts, begin, warm, accountsMiB, 100_000)

	b.say(fmt.Sprintf("%d reservations", o.Reservations))
	// Over some of the accounts, which draw less often so: all have to be made within their TTL.
	if _, err := b.child.Do(ctx, host.Order{Do: host.Fill, Prefix: "many-", Accounts: max(o.Accounts/100, 1), Count: o.Reservations, Keys: o.Keys}); err != nil {
		return nil, err
	}
	full, n, err := b.weigh(ctx)
	if err != nil {
		return nil, err
	}
	m.Reservations = report.NewWeight("live reservations", n.Reservations, warm, full, reservationsMiB, 1_000_000)
	return m, nil
}

// weigh says how much memory the host has: after a collection, and when the heap has grown
// again as it does under load.
func (b *bench) weigh(ctx context.Context) (report.Memories, *host.Used, error) {
	b.say("weighing")
	if _, err := b.child.Do(ctx, host.Order{Do: host.Settle}); err != nil {
		return report.Memories{}, nil, err
	}
	collected, err := b.child.Do(ctx, host.Order{Do: host.Collect})
	if err != nil {
		return report.Memories{}, nil, err
	}
	running, err := b.child.Do(ctx, host.Order{Do: host.Churn})
	if err != nil {
		return report.Memories{}, nil, err
	}
	return report.Memories{RSS: running.Usage.RSS, Heap: collected.Usage.Heap}, collected.Usage, nil
}
