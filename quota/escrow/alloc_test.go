//go:build !race

// The race detector makes a sync.Pool drop things on purpose, so allocations are counted
// without it only.

package escrow

import (
	"testing"

	"github.com/purser-io/purser/quota/token"
)

// TestReserveDoesNotAllocate: a warm decision with its token costs no allocation.
func TestReserveDoesNotAllocate(t *testing.T) {
	for _, budgets := range []int{0, 2} {
		r, q, codec := warm(t, budgets)
		buf := make([]byte, 0, token.MaxSize)
		again := func() {
			buf = r.round(q, codec, buf)
			r.db.Now += second / 100 // the wheels turn
			r.s.Tick(r.db.Now)
		}
		for range 5000 { // until every slot of the wheel has been used
			again()
		}
		if len(buf) > 256 {
			t.Errorf("the token has %d bytes", len(buf))
		}
		if n := testing.AllocsPerRun(2000, again); n != 0 {
			t.Errorf("with %d budgets: %v allocations", budgets, n)
		}
	}
}
