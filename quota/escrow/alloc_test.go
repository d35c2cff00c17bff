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

// TestExtendDoesNotAllocate: neither does a warm extension, to more or only longer.
func TestExtendDoesNotAllocate(t *testing.T) {
	r, q, codec := warm(t, 2)
	q.Asked = 1
	more := *q
	more.Candidates = []Candidate{q.Candidates[0]}
	k := &more.Candidates[0]
	k.Want, k.Min = append([]int64(nil), k.Want...), append([]int64(nil), k.Min...)
	buf := make([]byte, 0, token.MaxSize)
	again := func() {
		if st := r.s.Reserve(r.db.Now, q, &r.out); st != Granted {
			t.Fatalf("status %d, denial %+v", st, r.out.Denial)
		}
		sequence, nonce := r.out.Token.Sequence, r.out.Token.Nonce
		for _, total := range []int64{700, 0} {
			k.Want[0], k.Min[0] = total, total
			more.TTL = q.TTL + 1000 - total // the heartbeat is for longer
			if st := r.s.Extend(r.db.Now, sequence, nonce, &more, &r.out); st != Granted {
				t.Fatalf("extend to %d: status %d, denial %+v", total, st, r.out.Denial)
			}
			r.s.Extended(r.db.Now, &more, &r.out)
			buf, _ = codec.Append(buf[:0], &r.out.Token)
		}
		r.free(sequence)
		r.db.Now += second / 100
		r.s.Tick(r.db.Now)
	}
	for range 5000 {
		again()
	}
	if n := testing.AllocsPerRun(2000, again); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
