package escrow

import (
	"context"
	"errors"
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
	"github.com/purser-io/purser/quota/token"
)

// call is a client's commit or release.
type call struct {
	p       *proc
	token   *quotatest.Issued
	sent    token.Token // the generation that the client has
	rec     quota.Record
	foreign bool
	joined  []*call
}

// settle brings a call to a journal: the owner's if that is here, else the guest lane.
func (c *call) settle() {
	if e := c.p.owner(c.rec.Lane); e != nil && !c.foreign {
		s := e.shards[ShardOf(c.rec.Sequence)]
		if h := s.holds[c.rec.Sequence]; h != nil && c.p.w.mutant.unusedFirst {
			h.unusedFirst()
		}
		status, x := s.Settle(c.rec.SettledAt, c.rec, c)
		switch {
		case status == Enqueue:
			c.p.w.settledHere(s, c.rec.SettledAt, x)
			if c.p.w.mutant.newestFirst {
				newestFirst(x.Record.Slots)
			}
			e.own.Push(x)
			if c.p.w.mutant.freeEarly {
				x.Fate.Verdict = quota.VerdictApplied
				s.Settled(x)
			}
			return
		case status == Underway && x.Reply != nil:
			x.Reply.(*call).joined = append(x.Reply.(*call).joined, c)
			return
		}
	}
	rec := c.rec
	Foreign(&c.sent, &rec)
	if c.p.w.mutant.newestFirst {
		newestFirst(rec.Slots)
	}
	c.p.toGuest(&Pending{Record: rec, Reply: c})
}

// unusedFirst makes it look as if nothing of what the hold took from its rates had leaked.
func (h *hold) unusedFirst() {
	for i := range h.uses {
		h.uses[i].position = h.uses[i].l.bucket.arrived
	}
}

// owner is the engine of this process whose lane it is, while that can be written to.
func (p *proc) owner(l quota.LaneID) *engine {
	for _, e := range p.engines {
		if e.lane == l && !e.own.Closed() {
			return e
		}
	}
	return nil
}

func (p *proc) toGuest(x *Pending) {
	if g := p.current().guest; !g.Closed() {
		g.Push(x)
		return
	}
	p.orphans = append(p.orphans, x)
}

func records(batch []*Pending) []quota.Record {
	out := make([]quota.Record, len(batch))
	for i, x := range batch {
		out[i] = x.Record
	}
	return out
}

// flush sends the own lane's batch.
func (e *engine) flush() {
	if e.own.Closed() {
		return
	}
	no, batch := e.own.Batch()
	if len(batch) == 0 {
		return
	}
	res, err := e.p.w.db.Append(context.Background(), e.lane, no, records(batch))
	var done []*Pending
	switch {
	case errors.Is(err, quota.ReasonInvariantViolated):
		e.p.w.db.Oracle.Violate("%s", err.(*quota.Error).Message)
	case unknown(err) && e.p.w.mutant.unknownIsFailure:
		e.fail()
	case err != nil: // the same batch again (R5)
	case res.Applied:
		done = e.own.Applied()
	case res.Fenced:
		e.stranded(e.own.Fenced())
	default:
		done = e.own.Refused(res.Winners)
	}
	for _, x := range done {
		e.finish(x)
	}
}

// fail is what R5 forbids: it takes an unknown outcome for "not applied".
func (e *engine) fail() {
	for _, x := range e.own.land() {
		x.Fate.Verdict = quota.VerdictSettled
		e.shards[ShardOf(x.Record.Sequence)].Settled(x)
		if c, ok := x.Reply.(*call); ok && c.rec.Kind == quota.Committed {
			e.p.w.db.Oracle.Refused(c.token.Key)
		}
	}
}

// flushGuest sends the guest lane's batch.
func (e *engine) flushGuest() {
	if e.guest.Closed() {
		return
	}
	no, batch := e.guest.Batch()
	if len(batch) == 0 {
		return
	}
	fates, used, err := e.p.w.db.Settle(context.Background(), e.stray, no, records(batch))
	switch {
	case fencedOff(err):
		e.stranded(e.guest.Fenced())
	case err == nil:
		for _, x := range e.guest.Judged(fates, used) {
			e.finish(x)
		}
	case !unknown(err):
		e.guest.Halve()
	}
}

// stranded settles what a fenced lane left over (R26).
func (e *engine) stranded(rest []*Pending) {
	e.lose()
	for _, x := range rest {
		x.Detach()
		if x.Record.Kind == quota.Committed {
			e.p.toGuest(x)
			continue
		}
		x.Fate = quota.Settlement{Verdict: quota.VerdictDropped}
		e.finish(x)
	}
}

// finish tells the shard and the callers what became of a settlement.
func (e *engine) finish(x *Pending) {
	fate := x.Fate
	fate.Entry.Parts = slices.Clone(fate.Entry.Parts)
	if x.Local() {
		e.shards[ShardOf(x.Record.Sequence)].Settled(x)
	}
	if c, ok := x.Reply.(*call); ok {
		c.conclude(fate)
		for _, j := range c.joined {
			j.conclude(fate)
		}
		c.joined = nil
	}
}

// conclude answers one client.
func (c *call) conclude(fate quota.Settlement) {
	o, e := c.p.w.db.Oracle, &fate.Entry
	switch {
	case fate.Verdict == quota.VerdictDropped, fate.Verdict == quota.VerdictTooOld:
		// nothing was done by this call, and nothing is said of others
	case e.Kind == quota.Committed, c.rec.Kind == quota.Released:
		o.Acknowledged(c.token.Key, e)
	case e.Kind == quota.Expired, c.rec.Delivered:
		c.foreign = true
		c.settle()
	default:
		o.Refused(c.token.Key)
	}
}
