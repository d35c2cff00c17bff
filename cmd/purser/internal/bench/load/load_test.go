package load_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/bench/load"
)

// fake is a clock that moves when somebody sleeps.
type fake struct {
	mu  sync.Mutex
	now time.Time
}

func (f *fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

func (f *fake) Sleep(_ context.Context, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}

// TestOpenCountsWhoWouldHaveComeDuringAStall: 1 000 calls of 1 ms, one each 10 ms; the 100th
// stalls for 2 s. Timed from when it was sent, one call in a thousand would be slow; in truth
// everybody who came during the stall, and the queue behind it, waited: 200 and some.
func TestOpenCountsWhoWouldHaveComeDuringAStall(t *testing.T) {
	clock, calls := &fake{now: time.Unix(0, 0)}, 0
	h, err := load.Open(t.Context(), clock, 1, 100, 10*time.Second, func(ctx context.Context, _ int) error {
		took := time.Millisecond
		if calls++; calls == 100 {
			took = 2 * time.Second
		}
		clock.Sleep(ctx, took)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls != 1000 || h.TotalCount() != 1000 {
		t.Fatalf("%d calls, %d recorded, want 1000", calls, h.TotalCount())
	}
	near := func(percentile float64, want time.Duration) {
		t.Helper()
		if got := time.Duration(h.ValueAtPercentile(percentile)); got < want*95/100 || got > want*105/100 {
			t.Errorf("p%v = %v, want about %v", percentile, got, want)
		}
	}
	// A stall of 2 s delays 200 arrivals; the queue then shrinks by 9 ms with each call, so 222
	// calls are late, by 2 s falling to nothing.
	near(50, time.Millisecond)
	near(77, time.Millisecond)
	near(89, 2*time.Second/2)
	near(99.9, 2*time.Second)
}

func TestOpenKeepsToTheSchedule(t *testing.T) {
	clock := &fake{now: time.Unix(0, 0)}
	var at []time.Duration
	if _, err := load.Open(t.Context(), clock, 1, 4, time.Second, func(context.Context, int) error {
		at = append(at, clock.Now().Sub(time.Unix(0, 0)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond} {
		if i >= len(at) || at[i] != want {
			t.Fatalf("calls at %v", at)
		}
	}
}

func TestOpenSharesTheScheduleAmongWorkers(t *testing.T) {
	var calls atomic.Int64
	h, err := load.Open(t.Context(), load.System{}, 7, 10_000, 10*time.Millisecond, func(context.Context, int) error {
		calls.Add(1)
		return nil
	})
	if err != nil || calls.Load() != 100 || h.TotalCount() != 100 {
		t.Errorf("%d calls, %d recorded, %v; want 100", calls.Load(), h.TotalCount(), err)
	}
}

func TestClosedCountsWhatEndedWell(t *testing.T) {
	boom := errors.New("boom")
	var calls atomic.Int64
	n, _, err := load.Closed(t.Context(), load.System{}, 4, time.Hour, func(context.Context, int) error {
		if calls.Add(1) > 100 {
			return boom
		}
		return nil
	})
	if !errors.Is(err, boom) || n != 100 {
		t.Errorf("%d calls, %v", n, err)
	}
	n, took, err := load.Closed(t.Context(), load.System{}, 2, time.Nanosecond, func(context.Context, int) error { return nil })
	if err != nil || took <= 0 || n < 0 {
		t.Errorf("%d calls in %v, %v", n, took, err)
	}
}
