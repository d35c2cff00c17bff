// Package load makes calls and measures how long they take: as many as possible with so many
// in flight (a closed loop), or at a given rate whatever the server does (an open loop).
package load

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Bounds of what is recorded, in nanoseconds, with two significant figures: a histogram has
// some 30 KB, so that every worker can have its own.
const (
	shortest = int64(time.Microsecond)
	longest  = int64(time.Minute)
	figures  = 2
)

// NewHistogram makes a histogram of nanoseconds.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(shortest, longest, figures) }

// Record takes in a duration; what is out of the histogram's bounds counts as the bound.
func Record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), shortest), longest)) // within bounds now
}

// Clock tells the time and waits. Tests have their own.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or when ctx ends.
	Sleep(ctx context.Context, d time.Duration)
}

// System is the machine's clock.
type System struct{}

// Now implements Clock.
func (System) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (System) Sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Call makes one call. worker tells which of the goroutines asks, from 0: what belongs to a
// worker needs no lock.
type Call func(ctx context.Context, worker int) error

// Closed has workers make calls one after the other for the time given. It returns how many
// calls ended well and how long that really took; calls under way at the end are finished and
// count. The first error ends it.
func Closed(ctx context.Context, clock Clock, workers int, span time.Duration, call Call) (calls int64, took time.Duration, err error) {
	var over atomic.Bool
	var total atomic.Int64
	start := clock.Now()
	timer, cancel := context.WithCancel(ctx)
	go func() {
		clock.Sleep(timer, span)
		over.Store(true)
	}()
	defer cancel()
	err = each(workers, func(w int) error {
		n := int64(0)
		defer func() { total.Add(n) }()
		for !over.Load() {
			if err := call(ctx, w); err != nil {
				over.Store(true)
				return err
			}
			n++
		}
		return nil
	})
	return total.Load(), clock.Now().Sub(start), errors.Join(err, ctx.Err())
}

// Open makes calls at a rate per second for the time given, whatever the answers take, and
// returns how long each took since the instant at which it was due. A call that had to wait
// for a worker because earlier ones were slow is slow as well: what a stall does to those who
// would have come meanwhile is not left out (coordinated omission).
//
// Each worker has a fixed part of the schedule: worker w of n makes calls w, w+n, w+2n, ...
// workers should be well above rate times the usual latency.
func Open(ctx context.Context, clock Clock, workers int, rate float64, span time.Duration, call Call) (*hdrhistogram.Histogram, error) {
	total := int64(rate * span.Seconds())
	interval := float64(time.Second) / rate
	parts := make([]*hdrhistogram.Histogram, workers)
	start := clock.Now()
	err := each(workers, func(w int) error {
		parts[w] = NewHistogram()
		for i := int64(w); i < total; i += int64(workers) {
			due := start.Add(time.Duration(float64(i) * interval))
			if wait := due.Sub(clock.Now()); wait > 0 {
				clock.Sleep(ctx, wait)
			}
			if err := errors.Join(ctx.Err(), call(ctx, w)); err != nil {
				return err
			}
			Record(parts[w], clock.Now().Sub(due))
		}
		return nil
	})
	return Merge(parts), err
}

// Merge adds histograms up.
func Merge(parts []*hdrhistogram.Histogram) *hdrhistogram.Histogram {
	sum := NewHistogram()
	for _, p := range parts {
		sum.Merge(p)
	}
	return sum
}

// each runs fn in n goroutines and returns the first error.
func each(n int, fn func(i int) error) error {
	var running sync.WaitGroup
	var once sync.Once
	var first error
	for i := range n {
		running.Go(func() {
			if err := fn(i); err != nil {
				once.Do(func() { first = err })
			}
		})
	}
	running.Wait()
	return first
}
