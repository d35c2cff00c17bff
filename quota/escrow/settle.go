package escrow

import (
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// Pending is a settlement on its way to durability.
type Pending struct {
	Record quota.Record
	// Fate is set when the journal is done with it.
	Fate quota.Settlement
	// Reply is the shell's: who waits for the fate.
	Reply any

	hold   *hold
	extras *[]part // see beyond
}

// beyond is what was taken from free amounts beyond the hold (R25). Most settlements take nothing.
func (p *Pending) beyond() []part {
	if p.extras == nil {
		return nil
	}
	return *p.extras
}

// Local reports whether the settlement is of a hold of this process, to be told to its shard.
func (p *Pending) Local() bool { return p.hold != nil }

// SettleStatus says where a settlement stands.
type SettleStatus uint8

// Statuses of Settle.
const (
	// NotHeld: nothing is held under that id here; the database decides (guest lane).
	NotHeld SettleStatus = iota + 1
	// Enqueue: the Pending is new and must go to the lane's journal.
	Enqueue
	// Underway: a settlement of the reservation is being made durable: wait for its fate.
	Underway
)

// Settle turns a hold into a settlement. rec is the record without Slots. What its usage costs
// beyond the hold is taken from free amounts of the same pot here, as an Extend made and
// settled in one step; the rest is uncovered (R25). Which generation of the token the caller
// has does not matter: the hold counts (race 13). Amounts stay out of reach until Settled (R1).
func (s *Shard) Settle(now int64, rec quota.Record, reply any) (SettleStatus, *Pending) {
	h, ok := s.holds[rec.Sequence]
	if !ok || h.nonce != rec.Nonce {
		return NotHeld, nil
	}
	if h.settling != nil {
		return Underway, h.settling
	}
	p := &Pending{Record: rec, Reply: reply, hold: h}
	p.Record.ReservedAt, p.Record.ExpiresAt = h.reserved, h.expires
	p.charge(now)
	h.settling = p
	s.leaveLimits(now, h, &p.Record)
	return Enqueue, p
}

// charge splits what the usage costs over the hold's parts and then over free amounts. Of the
// windows of one limit the older take what they hold, the newest the rest (R34).
func (p *Pending) charge(now int64) {
	h, rec := p.hold, &p.Record
	rec.Slots = make([]quota.Slot, len(h.slots))
	next, rest := 0, int64(0)
	for i := range h.slots {
		from, out := &h.slots[i], &rec.Slots[i]
		parts := h.parts[next : next+int(from.parts)]
		next += int(from.parts)
		out.Kind, out.Unit, out.Continues = from.pool.kind(), from.unit, from.continues
		if !from.continues {
			rest = rec.Cost(from.unit)
		}
		if len(parts) > 0 {
			out.Anchor = parts[0].a.number
		} else if out.Kind != quota.PotWallet {
			out.Pot = from.pool.window.ID()
		}
		owed := rest
		for j := range parts {
			parts[j].used = min(rest, parts[j].amount)
			rest -= parts[j].used
			out.Parts = addPart(out.Parts, parts[j].a.number, parts[j].used)
			if out.Kind == quota.PotWallet {
				rec.Held += parts[j].amount
			}
		}
		if i+1 < len(h.slots) && h.slots[i+1].continues {
			out.Charge = owed - rest
			continue
		}
		out.Charge, out.Uncovered = owed, p.extra(now, from.pool, rest, out)
	}
}

// extra takes rest from free amounts of the pool and returns what is left uncovered.
func (p *Pending) extra(now int64, pl *pool, rest int64, out *quota.Slot) int64 {
	for _, a := range pl.allotments {
		if rest == 0 || len(out.Parts) >= quota.MaxParts {
			break
		}
		if a.free == 0 || now >= a.notAfter {
			continue
		}
		x := min(rest, a.free)
		a.free -= x
		a.held += x
		rest -= x
		if p.extras == nil {
			p.extras = new([]part)
		}
		*p.extras = append(*p.extras, part{a: a, amount: x, used: x})
		out.Parts = addPart(out.Parts, a.number, x)
	}
	return rest
}

// addPart adds an amount of an allotment, merging it with one that is there.
func addPart(parts []token.Part, no quota.AllotmentNo, amount int64) []token.Part {
	if amount == 0 {
		return parts
	}
	for i := range parts {
		if parts[i].Allotment == uint32(no) {
			parts[i].Amount += amount
			return parts
		}
	}
	return append(parts, token.Part{Allotment: uint32(no), Amount: amount})
}

// Settled takes in the fate of a settlement, durable and known: the only place where held
// amounts become free (R1). The hold is forgotten.
func (s *Shard) Settled(p *Pending) {
	h := p.hold
	check(h != nil && h.settling == p, "R2: a settlement ended twice")
	p.hold = nil
	if p.Fate.Verdict == quota.VerdictApplied {
		for _, parts := range [2][]part{h.parts, p.beyond()} {
			for i := range parts {
				parts[i].place(parts[i].used)
			}
		}
		s.drop(h)
		return
	}
	for _, extra := range p.beyond() {
		extra.place(0)
	}
	s.foreign(h, &p.Fate.Entry)
}

// foreign places a hold as somebody else settled it; entry is the winner.
func (s *Shard) foreign(h *hold, entry *quota.Entry) {
	left := entry.Parts
	for i := range h.parts {
		p := &h.parts[i]
		used := int64(0)
		for j := range left {
			if left[j].Allotment == uint32(p.a.number) {
				used = min(left[j].Amount, p.amount)
				left[j].Amount -= used
			}
		}
		p.place(used)
	}
	s.drop(h)
}

// place ends a part: used of it is spent, the rest is free again.
func (p *part) place(used int64) {
	a := p.a
	a.held -= p.amount
	a.spent += used
	a.free += p.amount - used
	a.pool.used -= p.amount - used
	check(a.balanced(), "I4 after a settlement")
}

// Noted takes in that another node settled a reservation of this lane (R27). A settlement
// under way here will meet the winner by itself.
func (s *Shard) Noted(e *quota.Entry) {
	h, ok := s.holds[e.Sequence]
	if !ok || e.Phase != quota.PhaseTerminal || h.settling != nil {
		return
	}
	entry := *e
	entry.Parts = append([]token.Part(nil), e.Parts...)
	s.leaveLimitsTo(h, e)
	s.foreign(h, &entry)
}

// Tick does what time asks for: it forgets old keys, smooths rates, and returns EXPIRED
// settlements of holds that ended more than g ago, to be put in the journal.
func (s *Shard) Tick(now int64) []*Pending {
	s.forgetKeys(now)
	if elapsed := now - s.ticked; elapsed >= int64(500e6) {
		for _, p := range s.order {
			p.tick(elapsed)
		}
		s.ticked = now
		s.dropEmpty(now)
	}
	s.forgetLimiters(now, s.cfg.IdleReturn, 1024)
	var out []*Pending
	s.scratch = collect(&s.expiry, now, s.scratch[:0])
	for _, id := range s.scratch {
		h, ok := s.holds[id]
		if !ok || h.settling != nil {
			continue
		}
		if due := h.expires + s.cfg.Grace; now < due {
			add(&s.expiry, due, id)
			continue
		}
		out = append(out, s.expire(now, h))
	}
	return out
}

// expire records that a hold ended unsettled, and charges what was reported in between (R23),
// whether or not that is durable yet.
func (s *Shard) expire(now int64, h *hold) *Pending {
	who := h.who
	rec := quota.Record{
		EntryKey: quota.EntryKey{Lane: s.lane, Sequence: h.sequence}, Nonce: h.nonce, Kind: quota.Expired,
		Account: who.account, Payer: who.payer, Principal: who.principal, Feature: who.feature,
		PriceVersion: who.priceVersion,
	}
	if x := s.interims[h.sequence]; x != nil {
		rec = x.Record
		rec.Held = 0
	}
	rec.SettledAt = now
	_, p := s.Settle(now, rec, nil)
	return p
}

// dropEmpty forgets pools that hold nothing and were not used for a while, so that ended
// windows and gone accounts do not pile up.
func (s *Shard) dropEmpty(now int64) {
	kept := s.order[:0]
	for _, p := range s.order {
		if len(p.allotments) > 0 || p.payer.drawing || p == p.payer.wallet && len(p.payer.pools) > 1 ||
			now-p.lastUse <= s.cfg.IdleReturn+2*(s.cfg.MaxTTL+s.cfg.Grace) {
			kept = append(kept, p)
			continue
		}
		p.payer.remove(p)
		if p.window != nil {
			delete(s.pools, p.key())
		}
		if len(p.payer.pools) == 0 {
			delete(s.payers, p.payer.id)
		}
	}
	clear(s.order[len(kept):])
	s.order = kept
}

func (p *payer) remove(pl *pool) {
	p.pools = slices.DeleteFunc(p.pools, func(q *pool) bool { return q == pl })
	for _, q := range p.pools {
		if q.next == pl {
			q.next = nil
		}
	}
}

// LastExpiry is the latest end of a live hold, for the promise a draining node leaves (R49).
func (s *Shard) LastExpiry() int64 {
	var last int64
	for _, h := range s.holds { // a maximum: the order does not matter
		last = max(last, h.expires)
	}
	return last
}

// Detach cuts a settlement loose from its hold: the lane is fenced, the books of this shard
// no longer count.
func (p *Pending) Detach() { p.hold = nil }

// Abandon ends all holds without placing their amounts: the lane is closed, and its closing
// did that in the database. Only what counts them remains to be put right.
func (s *Shard) Abandon() {
	for _, h := range s.holds { // the order does not matter
		if h.counter != nil {
			h.counter.Add(-1)
		}
	}
	s.cfg.Room.holds.Add(-int64(len(s.holds)))
	s.cfg.Room.keys.Add(-int64(len(s.answers.at)))
	clear(s.holds)
	clear(s.interims)
	s.answers.clear()
}
