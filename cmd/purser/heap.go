package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// memoryShare is how much of a container's memory Go may use. The rest is for what is not Go's:
// SQLite's pages, the kernel's buffers of connections and files.
const memoryShare = 0.8

// limitMemory sets GOMEMLIMIT by the memory that the process may have, unless the environment says
// one: near the limit garbage is collected more often, instead of the process being killed.
func limitMemory(allowed memlimit.Provider) (stop func()) {
	before := debug.SetMemoryLimit(-1)
	// Where nobody can tell what is allowed, as outside of Linux, Go's default stays: no limit.
	_, _ = memlimit.Set(memlimit.WithProvider(allowed), memlimit.WithRatio(memoryShare))
	return func() { debug.SetMemoryLimit(before) }
}

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

// tuneMemory sets GOMEMLIMIT by what the container may have and GOGC by what is live, until stop is
// called. What the environment says of them stays.
func tuneMemory() (stop func()) {
	unlimit, untune := limitMemory(memlimit.FromCgroup), tuneHeap()
	return func() {
		untune()
		unlimit()
	}
}

// tuneHeap sets GOGC by what is live until stop is called, unless the environment says one.
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
