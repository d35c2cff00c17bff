package escrow

import (
	"context"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// report is a client's interim usage (R23).
type report struct {
	token   *quotatest.Issued
	charged int64 // what a commit of it would cost
}

// interim reports what one of the process's own reservations has used so far. Reports may contradict
// one another.
func (p *proc) interim() {
	w, e := p.w, p.current()
	t := e.anyHeld()
	if t == nil {
		return
	}
	usage := int64(w.pick(60, "used so far"))
	s := e.shards[ShardOf(t.Sequence)]
	c := w.callOf(p, t, quota.Committed)
	c.price(usage)
	if x := s.interims[t.Sequence]; w.mutant.interimDeltas && x != nil {
		reported := t.Reported
		c.price(usage + x.Record.Usage[0].Quantity)
		t.Reported = reported
	}
	if status, _, x := s.Interim(c.rec, &report{t, c.rec.Charged()}); status == Enqueue {
		e.interims.Push(x)
	}
}

// flushInterims makes what was reported durable.
func (e *engine) flushInterims() {
	batch := e.interims.Batch()
	if len(batch) == 0 {
		return
	}
	send := make([]quota.Interim, len(batch))
	for i, x := range batch {
		send[i] = x.Interim
	}
	ended, err := e.p.w.db.Interim(context.Background(), e.lane, send)
	switch {
	case fencedOff(err):
		e.interims.Fenced()
		e.lose()
	case err == nil:
		over := make(map[uint64]bool)
		for i := range ended {
			over[ended[i].Sequence] = true
		}
		for _, x := range e.interims.Done() {
			if r := x.Reply.(*report); !over[x.Record.Sequence] {
				r.token.Floor = max(r.token.Floor, r.charged)
			}
		}
	}
}
