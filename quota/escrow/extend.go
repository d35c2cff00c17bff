package escrow

import (
	"slices"
	"strings"

	"github.com/purser-io/purser/quota"
)

// An extension (R35) states totals, so what it takes is a difference: what the totals cost
// less what is held for them, each pot kind on its own. Nothing is rounded twice that way, and
// the same extension twice is one. It takes from the pots that are open now (R34): behind a
// window's end the hold goes on in a slot for the new window, right behind that of the old one.
//
// I4: amounts go from free to held in one step, Extended, which takes no more than Extend saw
// free under the same lock; nothing goes back to free here (R1). I6, I7: the new end is at most
// M0 from an instant at which the incarnation may issue, which hold_until of its row covers
// (R31). I8: the end never moves back. I3, I12: what every generation of a token says is held
// is held, until the reservation ends.

// Statuses of Extend, beside Granted, Denied and Short.
const (
	Gone      Status = Overloaded + 1 + iota // nothing is held under that id here
	Ending                                   // it is being settled
	Unchanged                                // what is asked for is held and promised already
	Outdated                                 // the hold has meters that the request lacks: ask Holding again
)

// maxGeneration is the last generation counted.
const maxGeneration = 255

// holding is what an extended reservation has of a claim's limit.
type holding struct {
	held int64 // in all windows
	past int64 // in windows before the one that is open
	slot int   // the newest of the limit; -1 if the limit is new to the reservation
	room int   // parts it may get beyond those it has (R24)
}

// next is a hold as it will be, with what has to be taken for it.
type next struct {
	slots []slot
	parts []part
	taken []part
}

// Holding appends to dst what a reservation was granted of the meters it was asked for. ok is
// false if it is not held here; ending says that it is being settled, and as what.
func (s *Shard) Holding(sequence, nonce uint64, dst []quota.Quantity) (granted []quota.Quantity, ending quota.SettleKind, ok bool) {
	h, ok := s.holds[sequence]
	if !ok || h.nonce != nonce {
		return dst, 0, false
	}
	for i, q := range h.granted {
		dst = append(dst, quota.Quantity{Meter: (*h.names)[i], Quantity: q})
	}
	if h.settling != nil {
		ending = h.settling.Record.Kind
	}
	return dst, ending, true
}

// Extend decides about raising a reservation to the totals of r's only candidate, which names
// the meters of Holding first, and its end to r.TTL from now, all or none. Totals below what
// was granted leave that as it is. It changes nothing: if Granted, the token in out is what
// Extended will make of the hold; if Unchanged, what it is.
func (s *Shard) Extend(now int64, sequence, nonce uint64, r *Request, out *Result) Status {
	h, ok := s.holds[sequence]
	if !ok || h.nonce != nonce {
		return Gone
	}
	if h.settling != nil {
		return Ending
	}
	k := &r.Candidates[0]
	if !h.raise(k, r.Asked) {
		return Outdated
	}
	out.begin(s.payerOf(r.Payer))
	out.payer.epochs = r.Epochs
	out.Candidate = 0
	s.measureMore(now, h, r, out)
	if st := s.within(now, k, h.counts(k, r.Asked, out), false, out); st != Granted {
		return st
	}
	if !r.Final && s.lacks(now, k, out) {
		return Short
	}
	if failed := s.shrink(k, out); failed >= 0 {
		s.deny(now, k, failed, out)
		s.warn(k, out)
		return Denied
	}
	s.remark(now, k, out)
	changed := h.plan(now, r, out)
	s.fill(h, out.next.slots, out.next.parts, &out.Token)
	out.Token.Labels = r.Labels
	if end := now + r.TTL; end > h.expires { // never shortens
		out.Token.Expires, changed = end, true
	}
	if !changed {
		return Unchanged
	}
	out.Token.Generation = uint8(min(int(h.generation)+1, maxGeneration))
	return Granted
}

// Extended carries out what Extend granted, in the same locked section. It cannot fail. The
// wheel has the old end; Tick puts it on.
func (s *Shard) Extended(now int64, r *Request, out *Result) {
	h := s.holds[out.Token.Sequence]
	for i := range out.next.taken {
		t := &out.next.taken[i]
		t.a.free -= t.amount
		t.a.held += t.amount
		check(t.a.balanced(), "I4: an extension was decided on more than is free")
	}
	k := &r.Candidates[0]
	s.takeMore(now, k, h, out)
	h.slots = append(h.slots[:0], out.next.slots...)
	h.parts = append(h.parts[:0], out.next.parts...)
	h.names = s.namesOf(out.payer, k.Meters[:r.Asked])
	h.granted = append(h.granted[:0], out.Quantity[:r.Asked]...)
	h.expires, h.generation = out.Token.Expires, out.Token.Generation
	for i := range out.fits {
		if f := &out.fits[i]; f.need > 0 {
			s.noteTaken(now, out.payer, f)
		}
	}
}

// raise lifts the totals asked for to those granted; false if a meter is missing.
func (h *hold) raise(k *Candidate, asked int) bool {
	if len(h.granted) > asked {
		return false
	}
	for i, q := range h.granted {
		if k.Meters[i] != (*h.names)[i] {
			return false
		}
		k.Want[i], k.Min[i] = max(k.Want[i], q), max(k.Min[i], q)
	}
	return true
}

// measureMore looks up the pools of an extension: what is held of each limit, and what the
// window that is open now can add.
func (s *Shard) measureMore(now int64, h *hold, r *Request, out *Result) {
	k := &r.Candidates[0]
	out.fits = out.fits[:0]
	growing := 0
	p := out.payer.wallet
	for i := range k.Claims {
		c := &k.Claims[i]
		p = s.poolOf(p, c)
		p.lastUse = now
		f := fit{pool: p, undrawn: p.left(), holding: h.of(c, p, c.unit(k.Meters))}
		want, ok := k.amount(c, k.Want)
		if f.slot < 0 && ok {
			if before, _ := k.amount(c, h.before(k, r.Asked, out)); before == want {
				f.held = want // a limit that is new counts from the first extension that asks more of it
			}
		}
		if !ok || want > f.held {
			growing++
		}
		out.fits = append(out.fits, f)
	}
	room := (quota.MaxParts - len(h.parts)) / max(growing, 1)
	for i := range out.fits {
		f := &out.fits[i]
		f.room = room
		f.usable = f.held + f.pool.spare(now, h.partsOf(f), room)
	}
}

// before is what was granted so far, by the candidate's meters.
func (h *hold) before(k *Candidate, asked int, out *Result) []int64 {
	out.try = append(out.try[:0], k.Want...)
	copy(out.try, h.granted)
	for i := len(h.granted); i < asked; i++ {
		out.try[i] = 0
	}
	return out.try
}

// of finds what the hold has of a claim's limit, whose open window is pool p.
func (h *hold) of(c *Claim, p *pool, unit string) holding {
	out := holding{slot: -1}
	next := 0
	for i := range h.slots {
		sl := &h.slots[i]
		parts := h.parts[next : next+int(sl.parts)]
		next += int(sl.parts)
		if !sl.pool.sameLimit(p) || sl.unit != unit {
			continue
		}
		out.slot = i
		for j := range parts {
			out.held += parts[j].amount
			if !sl.pool.sameWindow(p) {
				out.past += parts[j].amount
			}
		}
	}
	return out
}

// partsOf lists the parts that the hold has of the window that is open: more on their
// allotments needs no new part.
func (h *hold) partsOf(f *fit) []part {
	if f.slot < 0 || !h.slots[f.slot].pool.sameWindow(f.pool) {
		return nil
	}
	first := 0
	for i := range h.slots[:f.slot] {
		first += int(h.slots[i].parts)
	}
	return h.parts[first : first+int(h.slots[f.slot].parts)]
}

// spare sums what the pool can add to a hold: on the allotments of its parts, and on so many
// others as there is room for (R24).
func (p *pool) spare(now int64, mine []part, room int) int64 {
	var sum int64
	for _, a := range p.allotments {
		if a.free == 0 || now >= a.notAfter { // R34
			continue
		}
		if partOn(mine, a) == nil {
			if room == 0 {
				continue
			}
			room--
		}
		sum += a.free
	}
	return sum
}

func partOn(parts []part, a *allotment) *part {
	for i := range parts {
		if parts[i].a == a {
			return &parts[i]
		}
	}
	return nil
}

// plan writes down the hold as it will be; changed reports that it differs in its amounts or
// in what was granted.
func (h *hold) plan(now int64, r *Request, out *Result) (changed bool) {
	n := &out.next
	n.slots, n.parts, n.taken = n.slots[:0], n.parts[:0], n.taken[:0]
	first := 0
	for i := range h.slots {
		sl, at := h.slots[i], len(n.parts)
		n.parts = append(n.parts, h.parts[first:first+int(sl.parts)]...)
		first += int(sl.parts)
		f := newestOf(out.fits, i)
		switch {
		case f == nil:
			n.slots = append(n.slots, sl)
		case f.pool.sameWindow(sl.pool):
			n.add(now, f, at)
			n.slots = append(n.slots, slot{pool: f.pool, unit: sl.unit, parts: uint16(len(n.parts) - at), continues: sl.continues})
		default: // the window of sl has ended
			at = len(n.parts)
			n.add(now, f, at)
			n.slots = append(n.slots, sl, slot{pool: f.pool, unit: sl.unit, parts: uint16(len(n.parts) - at), continues: true})
		}
	}
	k := &r.Candidates[0]
	for i := range out.fits {
		if f := &out.fits[i]; f.slot < 0 && f.need > 0 {
			at := len(n.parts)
			n.add(now, f, at)
			n.slots = append(n.slots, slot{pool: f.pool, unit: k.Claims[i].unit(k.Meters), parts: uint16(len(n.parts) - at)})
		}
	}
	return len(n.taken) > 0 || !slices.Equal(out.Quantity[:r.Asked], h.granted)
}

// newestOf finds the claim that needs more of the limit whose newest slot this is; nil if
// none does.
func newestOf(fits []fit, slot int) *fit {
	for i := range fits {
		if fits[i].slot == slot && fits[i].need > 0 {
			return &fits[i]
		}
	}
	return nil
}

// add takes what a claim needs from its pool's allotments, oldest first, for the slot whose
// parts begin at.
func (n *next) add(now int64, f *fit, at int) {
	need, room := f.need, f.room
	for _, a := range f.pool.allotments {
		if need == 0 {
			break
		}
		if a.free == 0 || now >= a.notAfter {
			continue
		}
		x := min(need, a.free)
		if p := partOn(n.parts[at:], a); p != nil {
			p.amount += x
		} else if room > 0 {
			n.parts = append(n.parts, part{a: a, amount: x})
			room--
		} else {
			continue
		}
		n.taken = append(n.taken, part{a: a, amount: x})
		need -= x
	}
	check(need == 0, "I4: an extension was decided on more than is free")
}

// maxNames bounds how many lists of meters a shard remembers: gateways send the same few.
const maxNames = 64

// namesOf finds the list with these names that holds share, or makes it.
func (s *Shard) namesOf(p *payer, meters []string) *[]string {
	if p.names != nil && slices.Equal(*p.names, meters) {
		return p.names
	}
	for _, known := range s.names {
		if slices.Equal(*known, meters) {
			p.names = known
			return known
		}
	}
	names := make([]string, len(meters))
	for i := range meters {
		names[i] = strings.Clone(meters[i]) // of a request, whose memory is not to be kept
	}
	if len(s.names) < maxNames {
		s.names = append(s.names, &names)
	} else { // holds keep the list that makes room
		s.names[s.nameNext%maxNames] = &names
		s.nameNext++
	}
	p.names = &names
	return &names
}
