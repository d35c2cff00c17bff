package main

import (
	"runtime/debug"
	"testing"
)

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
