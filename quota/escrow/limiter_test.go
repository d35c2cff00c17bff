package escrow

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// passes asks a bucket of so much burst for need at now, as a rate of one node does.
func (b *bucket) passes(now, burst, need int64) (ok bool, wait int64) {
	seen := b.seen(now)
	room := max(burst-need, 0)
	return seen.level() <= room, seen.wait(now, room)
}

func TestBucket(t *testing.T) {
	const s = second
	for _, c := range []struct {
		name                 string
		limit, per, burst    int64
		asks                 []int64 // pairs: at, need
		want                 []bool
		waits                []int64 // of those refused
		levelAfter, atTheEnd int64
	}{
		{"burst, then one each interval", 10, s, 3, []int64{0, 1, 0, 1, 0, 1, 0, 1, s / 10, 1, s / 10, 1},
			[]bool{true, true, true, false, true, false}, []int64{s / 10, s / 10}, 3, s / 10},
		{"an interval that is no whole number of ns", 3, s, 1, []int64{0, 1, 333_333_333, 1, 333_333_334, 1, 666_666_667, 1, 666_666_668, 1},
			[]bool{true, false, true, false, true}, []int64{1, 1}, 1, 666_666_668},
		{"requests of any size", 1000, 60 * s, 1000, []int64{0, 700, 0, 301, 0, 300, 30 * s, 501, 30 * s, 500},
			[]bool{true, false, true, false, true}, []int64{60 * s / 1000, 60 * s / 1000}, 1000, 30 * s},
		{"more than one unit each ns", 1 << 53, s, 1 << 53, []int64{0, 1 << 53, 1, 9_007_199, 1, 1, 2, 9_007_199},
			[]bool{true, true, false, true}, []int64{1}, 1 << 53, 2},
		{"rests for years", 1, 3600 * s, 5, []int64{0, 5, 0, 1, math.MaxInt64 / 2, 5},
			[]bool{true, false, true}, []int64{3600 * s}, 5, math.MaxInt64 / 2},
		{"time that stands back", 1, s, 1, []int64{5 * s, 1, 4 * s, 1, 6 * s, 1},
			[]bool{true, false, true}, []int64{2 * s}, 1, 6 * s},
	} {
		b := bucket{at: c.asks[0], limit: c.limit, per: c.per}
		var waits []int64
		for i := 0; i < len(c.asks); i += 2 {
			at, need := c.asks[i], c.asks[i+1]
			ok, wait := b.passes(at, c.burst, need)
			if ok != c.want[i/2] {
				t.Fatalf("%s: ask %d: %v with level %d, want %v", c.name, i/2, ok, b.seen(at).level(), c.want[i/2])
			}
			if !ok {
				waits = append(waits, wait)
				continue
			}
			b = b.seen(at)
			b.take(need)
		}
		if len(waits) != len(c.waits) {
			t.Fatalf("%s: %d were refused, want %d", c.name, len(waits), len(c.waits))
		}
		for i := range waits {
			if waits[i] != c.waits[i] {
				t.Errorf("%s: refusal %d waits %d ns, want %d", c.name, i, waits[i], c.waits[i])
			}
		}
		if got := b.seen(c.atTheEnd).level(); got != c.levelAfter {
			t.Errorf("%s: level %d at the end, want %d", c.name, got, c.levelAfter)
		}
	}
}

// queued is a reservation of the reference below.
type queued struct {
	at, taken, used int64
	position        int64
	open            bool
}

// excess runs what was really used through a leaky bucket by the book, in units of 1/per, and
// returns by how much it was ever above burst when somebody was let in. It is the definition:
// no window sees more than burst + rate x its length.
func excess(all []queued, limit, per, burst int64) float64 {
	level, at, worst := 0.0, int64(0), 0.0
	for _, q := range all {
		level = max(level-float64(limit)/float64(per)*float64(q.at-at), 0)
		at = q.at
		level += float64(q.used)
		worst = max(worst, level-float64(burst))
	}
	return worst
}

// TestBucketAdmitsNoMore: whatever is taken, given back and charged when, what was really used
// of what was let in never exceeds burst + rate x time in any window; who is refused waits
// exactly as long as it must.
func TestBucketAdmitsNoMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit, per := rapid.Int64Range(1, 50).Draw(t, "limit"), rapid.Int64Range(1, 40).Draw(t, "per")
		burst := rapid.Int64Range(1, 60).Draw(t, "burst")
		b := bucket{limit: limit, per: per}
		var all []queued
		now := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 0, 1, 1, 2, 7, 30}).Draw(t, "time")
			if rapid.IntRange(0, 2).Draw(t, "settle") == 0 && len(all) > 0 {
				q := &all[rapid.IntRange(0, len(all)-1).Draw(t, "which")]
				if q.open {
					q.open, q.used = false, rapid.Int64Range(0, q.taken).Draw(t, "used")
					b = b.seen(now)
					b.giveBack(q.position, q.taken-q.used)
				}
				continue
			}
			need := rapid.Int64Range(0, burst).Draw(t, "need")
			ok, wait := b.passes(now, burst, need)
			if !ok {
				if early, _ := b.passes(now+wait-1, burst, need); wait < 1 || early {
					t.Fatalf("passes before the %d ns it was told to wait", wait)
				}
				if late, _ := b.passes(now+wait, burst, need); !late {
					t.Fatalf("does not pass after the %d ns it was told to wait", wait)
				}
				continue
			}
			b = b.seen(now)
			all = append(all, queued{at: now, taken: need, used: need, position: b.take(need), open: true})
		}
		if x := excess(all, limit, per, burst); x > 1e-6 {
			t.Fatalf("%v more than burst %d + %d/%d ns was let in: %+v", x, burst, limit, per, all)
		}
		if seen := b.seen(now); seen.level() < 0 || seen.part < 0 || seen.part >= per {
			t.Fatalf("level %d and part %d of %d", seen.level(), seen.part, per)
		}
	})
}

// FuzzBucket: no number makes the arithmetic overflow, a level negative, or a wait wrong.
func FuzzBucket(f *testing.F) {
	f.Add(int64(10), int64(second), int64(5), int64(5), int64(3), int64(100))
	f.Add(int64(1)<<53, int64(1), int64(1)<<53, int64(1)<<53, int64(1)<<53, int64(1)<<62)
	f.Add(int64(1), 3600*second, int64(1)<<53, int64(1)<<53, int64(1), int64(0))
	f.Fuzz(func(t *testing.T, limit, per, burst, first, need, elapsed int64) {
		const most = int64(1) << 53
		clamp := func(v, least, most int64) int64 { return min(max(v, least), most) }
		limit, per, burst = clamp(limit, 1, most), clamp(per, 1, 3600*second), clamp(burst, 1, most)
		first, need, elapsed = clamp(first, 0, most), clamp(need, 0, burst), clamp(elapsed, 0, math.MaxInt64/4)
		b := bucket{limit: limit, per: per}
		b.take(first)
		b = b.seen(elapsed)
		if b.level() < 0 || b.level() > first || b.part < 0 || b.part >= per {
			t.Fatalf("level %d of %d, part %d of %d", b.level(), first, b.part, per)
		}
		ok, wait := b.passes(elapsed, burst, need)
		if ok != (wait == 0) || wait < 0 {
			t.Fatalf("passes %v with a wait of %d", ok, wait)
		}
		if ok || wait >= plenty {
			return
		}
		if early, _ := b.passes(elapsed+wait-1, burst, need); early {
			t.Fatalf("passes a ns before the wait of %d is over", wait)
		}
		if late, _ := b.passes(elapsed+wait, burst, need); !late {
			t.Fatalf("does not pass after the wait of %d", wait)
		}
	})
}
