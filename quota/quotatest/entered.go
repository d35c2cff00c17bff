package quotatest

import "github.com/purser-io/purser/quota"

// entered is told before an entry is written.
func (o *Oracle) entered(l *lane, e *quota.Entry, r *quota.Record) {
	i := o.tokens[quota.EntryKey{Lane: e.Lane, Sequence: e.Sequence}]
	if i == nil {
		o.Violate("I5: an entry for %v, which was never issued", e.EntryKey)
		return
	}
	if _, twice := l.entries[entryKey{e.Sequence, e.Phase}]; twice {
		o.Violate("I5: %v was settled twice", e.EntryKey)
	}
	if l.gcBefore > i.Expires {
		o.Violate("I14: an entry for %v behind the watermark", e.EntryKey)
	}
	o.checkParts(i, e)
	o.checkWindows(i, r)
	if l.state == quota.LaneOpen { // who closes a lane has the hold as it was when usage was noted (R23)
		o.checkCover(i, e, r)
	}
	if r.Charged() != e.Charged {
		o.Violate("I5: the entry of %v charges %d, its record %d", e.EntryKey, e.Charged, r.Charged())
	}
	entry := copyEntry(*e)
	if e.Phase == quota.PhaseTerminal {
		i.terminal = &entry
		if e.Kind == quota.Expired && o.db.Now < i.Expires {
			o.Violate("I8: %v expired before its promised time", e.EntryKey)
		}
		return
	}
	i.late = &entry
	switch t := i.terminal; {
	case t == nil && l.state == quota.LaneOpen:
		o.Violate("I5: a LATE charge of %v, which is live", e.EntryKey)
	case t != nil && t.Kind == quota.Committed, t != nil && t.Kind == quota.Released && !r.Delivered:
		o.Violate("I5: a LATE charge of %v behind %v", e.EntryKey, t.Kind)
	}
}

// checkParts holds an entry against the hold (I3): its own lane's owner may raise the hold at
// commit, anyone else may not; nothing but a commit charges.
func (o *Oracle) checkParts(i *Issued, e *quota.Entry) {
	var sum int64
	for _, p := range e.Parts {
		sum += p.Amount
		if p.Amount <= 0 {
			o.Violate("I3: a part of %d", p.Amount)
		}
		if e.BatchLane != e.Lane && p.Amount > i.Held[quota.AllotmentNo(p.Allotment)] {
			o.Violate("I3: %v is charged %d on allotment %d, held were %d", e.EntryKey, p.Amount, p.Allotment,
				i.Held[quota.AllotmentNo(p.Allotment)])
		}
	}
	interim := e.Kind == quota.Expired && i.Reported > 0 // R23
	if sum > 0 && (e.Kind != quota.Committed && !interim || e.Phase != quota.PhaseTerminal) {
		o.Violate("I3: %v of kind %v charges allotments", e.EntryKey, e.Kind)
	}
}

// checkWindows holds the windows of one limit against each other (R34): nothing is charged to a
// later one before the earlier is charged all that is held of it.
func (o *Oracle) checkWindows(i *Issued, r *quota.Record) {
	for n := 1; n < len(r.Slots); n++ {
		before, s := &r.Slots[n-1], &r.Slots[n]
		if !s.Continues || r.Phase != quota.PhaseTerminal {
			continue
		}
		var held int64
		for _, t := range i.Slots {
			if len(t.Parts) > 0 && t.Parts[0].Allotment == uint32(before.Anchor) {
				for _, p := range t.Parts {
					held += p.Amount
				}
			}
		}
		if before.Uncovered != 0 || s.Charge > 0 && before.Charge != held {
			o.Violate("R34: %v charges %d to a later window, and %d of %d to the one before it", r.EntryKey, s.Charge, before.Charge, held)
		}
	}
}

// checkCover asserts that the owner charges all that is held, of the newest generation, before it
// leaves anything uncovered (R25, race 13).
func (o *Oracle) checkCover(i *Issued, e *quota.Entry, r *quota.Record) {
	if e.BatchLane != e.Lane || e.Phase != quota.PhaseTerminal || len(r.Slots) != len(i.Slots) {
		return
	}
	var held, used int64
	for n := range r.Slots {
		if !r.Slots[n].Continues {
			held, used = 0, 0
		}
		for _, p := range i.Slots[n].Parts {
			held += p.Amount
		}
		for _, p := range r.Slots[n].Parts {
			used += p.Amount
		}
		if r.Slots[n].Uncovered > 0 && used < held {
			o.Violate("R25: %v leaves %d uncovered and charges %d of %d held", e.EntryKey, r.Slots[n].Uncovered, used, held)
		}
	}
}
