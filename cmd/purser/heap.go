package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// headroom is how much garbage a small heap may collect before it is cleared away, in bytes.
// Go's default lets it grow by what is live, which with few accounts is a collection several
// times a second; docs/performance.md has what that costs.
const headroom = 128 << 20

// growth bounds by how many percent of what is live the heap may grow.
const (
	leastGrowth = 100 // Go's default
	mostGrowth  = 400 // what is live may be four times as much by the next look
)

// heapGrowth is the GOGC, in percent, for a heap of which live bytes are live.
func heapGrowth(live uint64) int {
	return int(min(max(headroom*100/max(live, 1), leastGrowth), mostGrowth))
}

// tuneHeap sets GOGC by what is live until stop is called. It leaves a GOGC alone that the
// environment says; GOMEMLIMIT holds in either case.
func tuneHeap() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	before := debug.SetGCPercent(mostGrowth)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(250 * time.Millisecond)
		defer t.Stop()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		for set := mostGrowth; ; {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			metrics.Read(live)
			// Setting it stops the world for a moment: not for every small change.
			if g := heapGrowth(live[0].Value.Uint64()); g != set && (g == leastGrowth || max(g, set)-min(g, set) > set/8) {
				set = g
				debug.SetGCPercent(g)
			}
		}
	}()
	return func() {
		cancel()
		<-ended
		debug.SetGCPercent(before)
	}
}
