package escrow

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"maps"
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// clone makes a second small model in the same state, for a move: a node that the move does not
// touch is shared.
func (w *small) clone(m move) *small {
	c := *w
	c.db = w.db.Clone()
	c.out = Result{}
	if w.flaw.bySequence {
		c.projected = maps.Clone(w.projected)
	}
	for i := range w.nodes {
		if m.verb <= polls && int(m.node) == i || m.verb == passes && w.flaw.rollsOver {
			c.nodes[i] = w.nodes[i].clone()
		}
	}
	return &c
}

func (n *smallNode) clone() smallNode {
	c := *n
	if !n.alive {
		return c
	}
	cp := copier{from: n.shard, to: n.shard.clone(), pending: make(map[*Pending]*Pending)}
	c.shard = cp.to
	cp.holds()
	c.own, c.guest = cp.journal(n.own), cp.journal(n.guest)
	if n.draw != nil {
		d := *n.draw
		d.payer, d.pools = cp.to.payers[n.draw.payer.id], make([]*pool, len(n.draw.pools))
		for i, p := range n.draw.pools {
			d.pools[i] = cp.pool(p)
		}
		c.draw = &d
	}
	return c
}

// clone copies a shard's pools and books; its holds are left to a copier.
func (s *Shard) clone() *Shard {
	c := *s
	random := *s.random
	c.random, c.cfg.Room = &random, NewRoom(100)
	c.cfg.Room.holds.Store(s.cfg.Room.holds.Load())
	c.payers, c.pools = make(map[string]*payer, len(s.payers)), make(map[poolKey]*pool, len(s.pools))
	c.byNo, c.holds = make(map[quota.AllotmentNo]*allotment, len(s.byNo)), make(map[uint64]*hold, len(s.holds))
	c.order, c.ahead, c.spare, c.scratch = nil, nil, nil, nil
	for id, p := range s.payers {
		payer := *p
		payer.pools, payer.wallet = nil, nil
		c.payers[id] = &payer
	}
	for _, p := range s.order {
		pool := *p
		pool.next = nil // found again
		pool.payer, pool.allotments = c.payers[p.payer.id], make([]*allotment, len(p.allotments))
		for i, a := range p.allotments {
			allotment := *a
			allotment.pool = &pool
			pool.allotments[i], c.byNo[a.number] = &allotment, &allotment
		}
		c.order, pool.payer.pools = append(c.order, &pool), append(pool.payer.pools, &pool)
		if p.window == nil {
			pool.payer.wallet = &pool
		} else {
			window := *p.window
			pool.window = &window
			c.pools[p.key()] = &pool
		}
	}
	c.names = slices.Clone(s.names)
	c.interims = maps.Clone(s.interims)
	c.expiry.slots = make([]numbers, len(s.expiry.slots))
	for i, slot := range s.expiry.slots {
		c.expiry.slots[i] = slices.Clone(slot)
	}
	return &c
}

// copier finds the copies of what points to one another.
type copier struct {
	from, to *Shard
	pending  map[*Pending]*Pending
}

func (c *copier) pool(p *pool) *pool { return c.to.order[slices.Index(c.from.order, p)] }

func (c *copier) parts(parts []part) []part {
	out := slices.Clone(parts)
	for i := range out {
		out[i].a = c.to.byNo[out[i].a.number]
	}
	return out
}

func (c *copier) holds() {
	for sequence, h := range c.from.holds {
		x := *h
		x.slots, x.parts, x.granted = slices.Clone(h.slots), c.parts(h.parts), slices.Clone(h.granted)
		for i := range x.slots {
			x.slots[i].pool = c.pool(x.slots[i].pool)
		}
		if p := h.settling; p != nil {
			settling := *p
			extras := c.parts(p.beyond())
			settling.extras = &extras
			if p.hold != nil { // else it was detached
				settling.hold = &x
			}
			x.settling, c.pending[p] = &settling, &settling
		}
		c.to.holds[sequence] = &x
	}
}

func (c *copier) journal(j *Journal) *Journal {
	out := *j
	out.queue, out.flight = c.all(j.queue), c.all(j.flight)
	return &out
}

func (c *copier) all(ps []*Pending) []*Pending {
	out := make([]*Pending, len(ps))
	for i, p := range ps {
		if out[i] = c.pending[p]; out[i] == nil { // of no hold here
			x := *p
			out[i] = &x
		}
	}
	return out
}

// heldOn sums what holds have of an allotment.
func (s *Shard) heldOn(a *allotment) (sum int64) {
	for _, h := range s.holds {
		all := [2][]part{h.parts}
		if h.settling != nil {
			all[1] = h.settling.beyond()
		}
		for _, parts := range all {
			for i := range parts {
				if parts[i].a == a {
					sum += parts[i].amount
				}
			}
		}
	}
	return sum
}

// forgetExtension makes a hold what an older generation of its token says, which race 13 forbids.
func (s *Shard) forgetExtension(t *token.Token) {
	h := s.holds[t.Sequence]
	if h == nil {
		return
	}
	kept := h.parts[:0]
	for i := range t.Slots {
		h.slots[i].parts = uint16(len(t.Slots[i].Parts))
		for _, p := range t.Slots[i].Parts {
			kept = append(kept, part{a: s.byNo[quota.AllotmentNo(p.Allotment)], amount: p.Amount})
		}
	}
	h.slots, h.parts = h.slots[:len(t.Slots)], kept
}

// fingerprint tells states apart. Two seeds make it 128 bits: among 10^8 states the chance that
// any two are taken for one is below 10^-22.
type fingerprint [2]uint64

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// writer writes states down; its memory is used again.
type writer struct {
	all   []byte
	facts [][]byte
}

// fingerprint is of what the state is, up to the names of reservations: what is known of each is
// written down by itself and sorted, so states in which two of them changed places are one.
func (f *writer) fingerprint(w *small) fingerprint {
	f.all = w.appendState(f.all[:0])
	tokens := w.db.Oracle.Tokens()
	for len(f.facts) < len(tokens) {
		f.facts = append(f.facts, nil)
	}
	for r, t := range tokens {
		f.facts[r] = w.appendReservation(f.facts[r][:0], t.Key)
	}
	facts := f.facts[:len(tokens)]
	slices.SortFunc(facts, bytes.Compare)
	for _, b := range facts {
		f.all = append(binary.AppendUvarint(f.all, uint64(len(b))), b...)
	}
	return fingerprint{maphash.Bytes(seeds[0], f.all), maphash.Bytes(seeds[1], f.all)}
}

func (w *small) appendState(b []byte) []byte {
	b = w.db.AppendState(b, w.projects)
	b = appendInts(b, w.moment, w.crashes, w.late, len(w.letters))
	for i := range w.letters {
		l := &w.letters[i]
		b = appendInts(b, int(l.verb), int(l.lane), int(l.no-w.next(l.lane)), len(l.records))
		switch l.verb {
		case draws:
			b = appendInts(b, int(l.draw.Wants[0].First))
		case returns:
			for _, s := range l.shrinks {
				b = appendInts(b, int(s.Number), int(s.Sequence), int(s.Amount))
			}
		case projects:
			b = appendInts(b, int(l.projection.From))
		}
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		b = n.appendState(b)
		if n.alive { // a batch between the last number taken and the next is in flight, or lost
			b = appendInts(b, int(n.own.next-w.db.LastBatch(n.lane)), int(n.guest.next-w.db.LastBatch(n.stray)))
		}
	}
	return b
}

// next is the number of the batch that the owner of a lane is about to write, 0 if it is dead.
func (w *small) next(lane quota.LaneID) int64 {
	for i := range w.nodes {
		n := &w.nodes[i]
		switch {
		case !n.alive:
		case n.lane == lane:
			return n.own.next
		case n.stray == lane:
			return n.guest.next
		}
	}
	return 0
}

func (n *smallNode) appendState(b []byte) []byte {
	b = appendInts(b, number(n.alive))
	if !n.alive {
		return b
	}
	b = appendInts(b, number(n.lease.ended), number(n.own.closed), number(n.guest.closed),
		n.drawn, int(n.shard.block), number(n.draw != nil), len(n.returning))
	for _, s := range n.returning {
		b = appendInts(b, int(s.Number), int(s.Sequence), int(s.Amount))
	}
	for _, p := range n.shard.order {
		start := 0
		if p.window != nil {
			start = int(p.window.Start)
		}
		b = appendInts(b, int(p.kind()), start, len(p.allotments))
		for _, a := range p.allotments {
			b = appendInts(b, int(a.number), int(a.amount), int(a.free), int(a.held), int(a.returning), int(a.spent), int(a.shrinks), number(a.closing))
		}
	}
	return b
}

// appendReservation writes down what is known of one reservation. Of one that has ended, whom nobody
// has in hand any more, little can still be told.
func (w *small) appendReservation(b []byte, k quota.EntryKey) []byte {
	start := len(b)
	for i := range w.nodes {
		n := &w.nodes[i]
		if !n.alive {
			continue
		}
		if h := n.shard.holds[k.Sequence]; h != nil && n.lane == k.Lane {
			b = h.appendState(b)
			if x := n.shard.interims[k.Sequence]; x != nil {
				b = appendInts(b, int(x.Number), int(x.Record.Charged()))
			}
		}
		b = n.own.appendState(b, i+1, k)
		b = n.guest.appendState(b, i+3, k)
	}
	for i := range w.letters {
		b = w.letters[i].appendState(b, i+5, k)
	}
	over := len(b) == start && !w.projects
	b = append(b, 0)
	if len(w.scope.interims) > 0 { // else all that is charged is the only report
		b = appendInts(b, int(w.db.Oracle.Token(k).Reported))
	}
	if w.flaw.bySequence || w.flaw.database.CursorUnchecked {
		b = appendInts(b, int(k.Sequence), int(w.projected[k.Lane]))
		over = false
	}
	return w.db.AppendReservation(b, k, w.projects, over)
}

// appendState appends what a letter says of one reservation.
func (l *letter) appendState(b []byte, name int, k quota.EntryKey) []byte {
	for i := range l.records {
		if l.records[i].EntryKey != k {
			continue
		}
		b = appendInts(b, name, int(l.records[i].Kind), int(l.records[i].Digest))
		if l.verb == interims {
			b = appendInts(b, int(l.no), int(l.records[i].Charged()))
		}
		if l.decided != nil {
			b = appendInts(b, int(l.decided[i].Verdict), int(l.decided[i].Entry.Phase))
		}
	}
	return b
}

func (h *hold) appendState(b []byte) []byte {
	b = appendInts(b, int(h.expires), int(h.generation), number(h.settling != nil))
	for _, p := range h.parts {
		b = appendInts(b, int(p.a.number), int(p.amount), int(p.used))
	}
	b = append(b, 0)
	if h.settling != nil {
		for _, p := range h.settling.beyond() {
			b = appendInts(b, int(p.a.number), int(p.amount))
		}
		b = append(b, 0)
	}
	return b
}

// appendState appends what a journal has of one reservation. The place in the queue counts only if
// not all of it goes with the next batch.
func (j *Journal) appendState(b []byte, name int, k quota.EntryKey) []byte {
	for where, ps := range [2][]*Pending{j.flight, j.queue} {
		for i, p := range ps {
			if p.Record.EntryKey != k {
				continue
			}
			place := where + 1
			if where == 1 && len(j.queue) > j.rows {
				place += i
			}
			b = appendInts(b, name, place, int(p.Record.Kind), int(p.Record.Digest), number(p.hold != nil))
		}
	}
	return b
}

func appendInts(b []byte, ints ...int) []byte {
	for _, x := range ints {
		b = binary.AppendVarint(b, int64(x))
	}
	return b
}

func number(set bool) int {
	if set {
		return 1
	}
	return 0
}
