package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	"github.com/purser-io/purser/cmd/purser/internal/bench/host"
	"github.com/purser-io/purser/cmd/purser/internal/bench/load"
	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

// Names of what is timed.
const (
	latencyReserve = "reserve, at a steady rate"
	latencyEcho    = "echo, bare, at the same rate"
	commitAck      = "commit"
	rowInsert      = "one-row insert"
)

// openWorkers make the calls of an open loop: well above rate times latency.
const openWorkers = 256

// addTimes takes in a round.
func addTimes(l *report.Latency, h *hdrhistogram.Histogram) {
	us := func(percentile float64) float64 {
		return float64(h.ValueAtPercentile(percentile)) / float64(time.Microsecond)
	}
	l.P50, l.P99, l.P999 = append(l.P50, us(50)), append(l.P99, us(99)), append(l.P999, us(99.9))
	l.CallsTotal += h.TotalCount()
}

// HalfLoad is the load for which the design has a floor.
const HalfLoad = 0.5

// latencies runs the open loop: both servers at a share of the rate that reserve reached in the
// closed one.
func (b *bench) latencies(ctx context.Context) error {
	if !b.wants(Latency) {
		return nil
	}
	rate := report.Median(b.rate(reserveMany)) * b.Load
	echo := drive.NewCalls(b.bare, b.work, b.many, openWorkers)
	reserve := drive.NewCalls(b.purser, b.work, b.many, openWorkers)
	found := []report.Latency{
		{Name: latencyEcho, What: "timed from when the call was due", Rate: rate},
		{Name: latencyReserve, What: fmt.Sprintf("%.0f %% of its highest, %d accounts", 100*b.Load, b.Accounts), Rate: rate},
	}
	for round := range b.Rounds {
		for i, calls := range []*drive.Calls{echo, reserve} {
			b.say(fmt.Sprintf("round %d: %s", round+1, found[i].Name))
			do := calls.Echo
			if calls == reserve {
				do = calls.Reserve
			}
			var h *hdrhistogram.Histogram
			busy, err := b.busy(ctx, func() (err error) {
				h, err = load.Open(calls.Context(ctx), load.System{}, openWorkers, rate, 2*b.Round, do)
				return err
			})
			if err != nil {
				return fmt.Errorf("%s: %w", found[i].Name, err)
			}
			addTimes(&found[i], h)
			found[i].Busy = append(found[i].Busy, busy)
			if err := calls.Release(calls.Context(ctx)); err != nil {
				return err
			}
			if _, err := b.child.Do(ctx, host.Order{Do: host.Settle}); err != nil {
				return err
			}
		}
	}
	b.report.Latency = append(b.report.Latency, found...)
	return nil
}

// busy is how many CPUs server and client use together while something is done.
func (b *bench) busy(ctx context.Context, do func() error) (cpus float64, err error) {
	before, err := b.child.Do(ctx, host.Order{Do: host.Usage})
	if err != nil {
		return 0, err
	}
	mine, began := host.CPU(), time.Now()
	if err := do(); err != nil {
		return 0, err
	}
	mine, took := host.CPU()-mine, time.Since(began)
	after, err := b.child.Do(ctx, host.Order{Do: host.Usage})
	if err != nil {
		return 0, err
	}
	return (after.Usage.CPUSeconds - before.Usage.CPUSeconds + mine.Seconds()) / took.Seconds(), nil
}

// inserts is how many single rows are inserted in a round.
const inserts = 200

// commits times acknowledgements with b.Concurrency pairs in flight, and single-row inserts.
func (b *bench) commits(ctx context.Context) error {
	if !b.wants(Commit) {
		return nil
	}
	calls := drive.NewCalls(b.purser, b.work, b.hot, b.Concurrency)
	ack := report.Latency{Name: commitAck, What: "until it is durable, one account", InFlight: b.Concurrency}
	row := report.Latency{Name: rowInsert, What: "the store alone, in the server's process", InFlight: 1}
	for round := range b.Rounds {
		b.say(fmt.Sprintf("round %d: %s", round+1, ack.Name))
		r, err := b.child.Do(ctx, host.Order{Do: host.Insert, Count: inserts})
		if err != nil {
			return err
		}
		alone := load.NewHistogram()
		for _, ns := range r.InsertNanos {
			load.Record(alone, time.Duration(ns))
		}
		addTimes(&row, alone)
		if _, _, err := load.Closed(calls.Context(ctx), load.System{}, b.Concurrency, b.Round, calls.Pair); err != nil {
			return err
		}
		addTimes(&ack, calls.Acks())
		if _, err := b.child.Do(ctx, host.Order{Do: host.Settle}); err != nil {
			return err
		}
	}
	b.report.Latency = append(b.report.Latency, ack, row)
	return nil
}

// rate is a scenario's throughput by round.
func (b *bench) rate(name string) []float64 { return b.throughput(name).PerSecond }

func (b *bench) throughput(name string) *report.Throughput {
	i := slices.IndexFunc(b.report.Throughput, func(t report.Throughput) bool { return t.Name == name })
	return &b.report.Throughput[i]
}

func (b *bench) timed(name string) *report.Latency {
	i := slices.IndexFunc(b.report.Latency, func(t report.Latency) bool { return t.Name == name })
	return &b.report.Latency[i]
}
