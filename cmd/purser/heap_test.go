package main

import (
	"errors"
	"os"
	"runtime/debug"
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestLimitMemory(t *testing.T) {
	const none = 1<<63 - 1
	allowed := func(bytes uint64, err error) memlimit.Provider {
		return func() (uint64, error) { return bytes, err }
	}
	for _, c := range []struct {
		what string
		env  string
		from memlimit.Provider
		want int64
	}{
		{"a container of 1 GiB", "", allowed(1<<30, nil), 858993459},
		{"a container without a limit", "", allowed(0, memlimit.ErrNoLimit), none},
		{"no container", "", allowed(0, errors.New("no cgroup")), none},
		{"the environment says more", "1TiB", allowed(1<<30, nil), none},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", c.env)
			if c.env == "" {
				os.Unsetenv("GOMEMLIMIT")
			}
			stop := limitMemory(c.from)
			if got := debug.SetMemoryLimit(-1); got != c.want {
				t.Errorf("GOMEMLIMIT is %d, want %d", got, c.want)
			}
			stop()
			if got := debug.SetMemoryLimit(-1); got != none {
				t.Errorf("GOMEMLIMIT is %d afterwards", got)
			}
		})
	}
}

func TestHeapGrowth(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 400}, {1, 400}, {32 << 20, 400}, {64 << 20, 200}, {128 << 20, 100}, {1 << 40, 100},
	} {
		if got := heapGrowth(c.live); got != c.want {
			t.Errorf("%d bytes live: GOGC %d, want %d", c.live, got, c.want)
		}
	}
}

func TestTuneHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	stop := tuneHeap()
	if got := debug.SetGCPercent(300); got != 400 {
		t.Errorf("GOGC is %d at first, want 400", got)
	}
	stop()
	if got := debug.SetGCPercent(before); got != 100 {
		t.Errorf("GOGC is %d afterwards, want 100 as before", got)
	}
	t.Setenv("GOGC", "50")
	debug.SetGCPercent(50)
	tuneHeap()()
	if got := debug.SetGCPercent(before); got != 50 {
		t.Errorf("GOGC is %d, want 50 as the environment says", got)
	}
}
