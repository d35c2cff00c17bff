package escrow

import (
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// grown is what fn leaves on the heap, divided by n.
func grown(n int, fn func()) float64 {
	var before, after runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&before)
	fn()
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n)
}

// BenchmarkSize tells what a live reservation takes, with everything that finds it: without
// and with an idempotency key, over one pot and three.
func BenchmarkSize(b *testing.B) {
	const holds = 200_000
	for _, budgets := range []int{0, 2} {
		for _, keyed := range []bool{false, true} {
			b.Run(fmt.Sprintf("pots=%d/key=%t", budgets+1, keyed), func(b *testing.B) {
				for range b.N {
					r, q, codec := warm(b, budgets)
					r.s.cfg.Room = NewRoom(holds + 1)
					b.ReportMetric(grown(holds, func() { fillWith(b, r, q, codec, holds, keyed) }), "B/hold")
					runtime.KeepAlive(r)
				}
			})
		}
	}
}

func fillWith(b *testing.B, r *rig, q *Request, codec *token.Codec, holds int, keyed bool) {
	feature := q.Candidates[0].Feature
	for i := range holds {
		q.Account, q.Candidates[0].Feature = strings.Clone(q.Account), strings.Clone(feature) // as decoded
		q.HasKey, q.Key = keyed, KeyHash([]byte(fmt.Sprintf("%016s", strconv.Itoa(i))))
		if st := r.s.Reserve(r.db.Now, q, &r.out); st != Granted {
			b.Fatalf("status %d", st)
		}
		if !keyed {
			continue
		}
		encoded, err := codec.Append(nil, &r.out.Token)
		if err != nil {
			b.Fatal(err)
		}
		r.s.Remember(r.db.Now, q, &quota.Decision{Token: encoded, Feature: q.Candidates[0].Feature,
			Granted: []quota.Quantity{{Meter: "a", Quantity: 1}, {Meter: "b", Quantity: 1}}, Remaining: r.out.Remaining})
	}
}
