//go:build !race

// The race detector makes a sync.Pool drop things on purpose, so allocations are counted
// without it only.

package authority_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
)

// TestNothingIsRecordedOfWhatIsNotSampled: neither a span, nor an allocation more than without
// any tracer.
func TestNothingIsRecordedOfWhatIsNotSampled(t *testing.T) {
	r := record()
	allocations := func(tracer trace.Tracer) float64 {
		n := worldTraced(t, tracer)
		n.catalogue()
		request := n.customers(1)[0]
		ctx := caller(t, 9, 0)
		var d quota.Decision
		again := func() {
			if err := n.Reserve(ctx, gateway, request, &d); err != nil || !d.Allowed {
				t.Fatalf("reserve: %v, %+v", err, d.Denial)
			}
		}
		// The engine's loops and the store allocate beside the requests now and then; the least of
		// several rounds is without them.
		least := testing.AllocsPerRun(300, again)
		for range 10 {
			least = min(least, testing.AllocsPerRun(300, again))
		}
		if _, err := n.Commit(ctx, gateway, &quota.Settle{Token: d.Token, Usage: usage(1, 1)}); err != nil {
			t.Fatal(err)
		}
		return least
	}
	without, with := allocations(nil), allocations(r.tracer())
	if with > without {
		t.Errorf("%v allocations with a tracer, %v without", with, without)
	}
	t.Logf("%v allocations a reserve", with)
	if spans := r.Ended(); len(spans) > 0 {
		t.Errorf("%d spans, the first is %s", len(spans), spans[0].Name())
	}
}
