package audit

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/purser-io/purser/quota"
)

func (a *auditor) readEntries() error {
	var last *quota.Entry
	var enc encoder
	return a.r.Entries(func(e quota.Entry) error {
		a.report.Entries++
		var terminal *quota.Entry
		if last != nil && last.Lane == e.Lane && last.Sequence == e.Sequence {
			if last.Phase >= e.Phase {
				a.find("I5", entryName(e.EntryKey, e.Nonce), "it is settled twice in phase %d", e.Phase)
			}
			if last.Phase == quota.PhaseTerminal {
				terminal = last
			}
		}
		a.checkEntry(&e)
		a.checkPhase(&e, terminal)
		a.countParts(&e)
		a.acks.saw(a, &e)
		a.add(&a.report.Charged, e.Charged, "all charges")
		a.journal.left(e.BatchLane, enc.entry(&e))
		last = &e
		return nil
	})
}

// checkEntry looks at an entry by itself: nothing is charged without a commit or interim usage,
// and nothing negative.
func (a *auditor) checkEntry(e *quota.Entry) {
	name := entryName(e.EntryKey, e.Nonce)
	if a.lanes[e.Lane] == nil {
		a.find("I5", name, "its lane does not exist")
	}
	if e.Kind < quota.Committed || e.Kind > quota.Expired {
		a.find("I5", name, "its kind is %d", e.Kind)
	}
	if e.Charged < 0 || e.Uncovered < 0 || e.Held < 0 || e.Uncovered > e.Charged {
		a.find("I5", name, "charged %d, uncovered %d, held %d micros cannot be", e.Charged, e.Uncovered, e.Held)
	}
	used := e.Kind == quota.Committed || e.Kind == quota.Expired && e.Used != nil // R23
	if !used && (e.Charged != 0 || e.Uncovered != 0 || len(e.Parts) != 0) {
		a.find("I5", name, "it is %s and yet charged %d micros on %d parts", e.Kind, e.Charged, len(e.Parts))
	}
}

// checkPhase is I5 and R15: a LATE charge stands behind EXPIRED, behind a release of what was
// delivered, or behind nothing if the owner's lane is closed.
func (a *auditor) checkPhase(e, terminal *quota.Entry) {
	name := entryName(e.EntryKey, e.Nonce)
	switch {
	case e.Phase == quota.PhaseTerminal:
	case e.Phase != quota.PhaseLate:
		a.find("I5", name, "there is no phase %d", e.Phase)
	case e.Kind != quota.Committed:
		a.find("I5", name, "its LATE entry is %s, not a charge", e.Kind)
	case terminal == nil:
		if l := a.lanes[e.Lane]; l != nil && l.State == quota.LaneOpen {
			a.find("I5", name, "it is charged LATE with nothing before it, though its lane is open")
		}
	case terminal.Nonce != e.Nonce:
		a.find("I5", name, "its two phases have different nonces, %d and %d", terminal.Nonce, e.Nonce)
	case terminal.Kind == quota.Committed:
		a.find("I5", name, "it is charged twice: COMMITTED for %d micros and LATE for %d", terminal.Charged, e.Charged)
	case terminal.Kind == quota.Released:
		a.delivery[e.EntryKey] = e.Nonce
	}
}

func (a *auditor) countParts(e *quota.Entry) {
	for _, p := range e.Parts {
		ref := quota.AllotmentRef{Lane: e.Lane, Number: quota.AllotmentNo(p.Allotment)}
		if p.Amount <= 0 {
			a.find("I2", entryName(e.EntryKey, e.Nonce), "its part on %s is %d", allotmentName(ref), p.Amount)
		}
		sum := a.spent[ref]
		if sum == nil {
			sum = &parts{}
			a.spent[ref] = sum
		}
		a.add(&sum.all, p.Amount, allotmentName(ref))
		if a.projected(e.BatchLane, e.BatchNo) {
			a.add(&sum.projected, p.Amount, allotmentName(ref))
		}
	}
}

func (a *auditor) readBatches() error {
	err := a.r.Batches(func(b quota.Batch) error {
		a.report.Batches++
		l := a.lanes[b.Lane]
		if l == nil {
			a.find("R20", laneName(b.Lane), "it has batches but does not exist")
			l = &lane{LaneRow: quota.LaneRow{Lane: b.Lane}}
			a.lanes[b.Lane] = l
		}
		if b.No != l.last+1 {
			a.find("R20", laneName(b.Lane), "batch %d follows batch %d: settlements between them are lost", b.No, l.last)
		}
		l.last = b.No
		for i := range b.Records {
			a.readRecord(l, b.No, &b.Records[i])
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range sortedKeys(a.delivery) {
		a.find("I5", entryName(key, a.delivery[key]), "it is charged LATE though it was released, and no record says that it was delivered")
	}
	a.checkCursors()
	return nil
}

func (a *auditor) readRecord(l *lane, no int64, r *quota.Record) {
	a.report.Records++
	var enc encoder
	if l.Guest == (r.Lane == l.Lane) {
		a.find("R27", entryName(r.EntryKey, r.Nonce), "it stands in %s, which is not where it belongs", laneName(l.Lane))
	}
	e := r.Entry(l.Lane, no)
	a.journal.right(l.Lane, enc.entry(&e))
	if r.Delivered {
		delete(a.delivery, r.EntryKey)
	}
	a.checkSlots(r)
	if no > l.Cursor {
		return
	}
	a.claim(r)
	if r.Used() {
		u := eventOf(r)
		a.events.left(r.Lane, enc.event(&u))
	}
}

// checkSlots is I5's total: what is charged is covered or uncovered, for every pot kind on
// its own (R25).
func (a *auditor) checkSlots(r *quota.Record) {
	name := entryName(r.EntryKey, r.Nonce)
	wallets := 0
	for i := range r.Slots {
		s := &r.Slots[i]
		covered := int64(0)
		for _, p := range s.Parts {
			a.add(&covered, p.Amount, name)
		}
		total := covered
		a.add(&total, s.Uncovered, name)
		if s.Uncovered < 0 || total != s.Charge {
			a.find("I5", name, "slot %d charges %d, but %d covered and %d uncovered make %d", i, s.Charge, covered, s.Uncovered, total)
		}
		if s.Kind == quota.PotWallet {
			wallets++
			if s.Charge != r.Charged() {
				a.find("I5", name, "its usage costs %d micros, its wallet is charged %d", r.Charged(), s.Charge)
			}
		}
	}
	if wallets > 1 || wallets == 0 && r.Charged() != 0 {
		a.find("I5", name, "it is charged %d micros in %d wallets", r.Charged(), wallets)
	}
	a.checkWindows(r)
}

// checkWindows is I5 and R34 for a limit whose usage was spread over several of its windows:
// together they are charged what the usage asks, and no rest was left to an older one. (A LATE
// charge is uncovered wherever it is.)
func (a *auditor) checkWindows(r *quota.Record) {
	name := entryName(r.EntryKey, r.Nonce)
	charged := int64(0)
	for i := range r.Slots {
		s := &r.Slots[i]
		if !s.Continues {
			charged = 0
		} else if i == 0 {
			a.find("R34", name, "its first slot continues none")
		} else if before := &r.Slots[i-1]; before.Uncovered != 0 && r.Phase == quota.PhaseTerminal {
			a.find("R34", name, "slot %d leaves %d uncovered in a window that slot %d continues", i-1, before.Uncovered, i)
		}
		a.add(&charged, s.Charge, name)
		if last := i+1 == len(r.Slots) || !r.Slots[i+1].Continues; last && s.Continues && charged != r.Cost(s.Unit) {
			a.find("I5", name, "its usage asks %d of a limit whose windows are charged %d", r.Cost(s.Unit), charged)
		}
	}
}

// claim counts what a projected record debits without an allotment (R25).
func (a *auditor) claim(r *quota.Record) {
	for i := range r.Slots {
		s := &r.Slots[i]
		switch {
		case s.Uncovered == 0:
		case s.Kind == quota.PotWallet:
			a.add(&a.wallet(r.Payer).uncovered, s.Uncovered, "wallet of "+r.Payer)
		case s.Anchor != 0:
			ref := quota.AllotmentRef{Lane: r.Lane, Number: s.Anchor}
			sum := a.anchors[ref]
			a.add(&sum, s.Uncovered, allotmentName(ref))
			a.anchors[ref] = sum
		default:
			ref := quota.PotRef{Payer: r.Payer, Pot: s.Pot}
			a.add(&a.pot(ref).uncovered, s.Uncovered, potName(ref))
		}
	}
}

func (a *auditor) checkCursors() {
	for _, id := range sortedLanes(a.lanes) {
		l := a.lanes[id]
		if l.Cursor > l.last {
			a.find("R20", laneName(id), "it is projected to batch %d, but its last is %d", l.Cursor, l.last)
		}
		if a.o.Quiescent && l.Cursor < l.last {
			a.find("I15", laneName(id), "it is projected to batch %d only; its last is %d", l.Cursor, l.last)
		}
	}
}

func sortedLanes[V any](m map[quota.LaneID]V) []quota.LaneID {
	out := make([]quota.LaneID, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.SortFunc(out, func(x, y quota.LaneID) int { return cmp.Compare(x, y) })
	return out
}

// explainJournal names the entries without record, and the records without entry.
func (a *auditor) explainJournal() error {
	wrong := a.journal.differing()
	if len(wrong) == 0 {
		return nil
	}
	entries := map[quota.EntryKey]*recorded{}
	err := a.r.Entries(func(e quota.Entry) error {
		if wrong[e.BatchLane] {
			entries[e.EntryKey] = &recorded{Entry: e}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := a.r.Batches(func(b quota.Batch) error {
		for i := range b.Records {
			if wrong[b.Lane] {
				rec := b.Records[i].Entry(b.Lane, b.No)
				a.explainRecord(&rec, entries)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, key := range sortedKeys(entries) {
		if e := entries[key]; !e.seen {
			a.find("I5", entryName(key, e.Nonce), "its entry (%s) has no record in that batch", entryText(&e.Entry))
		}
	}
	return nil
}

// recorded is an entry, and whether its own batch has the record.
type recorded struct {
	quota.Entry
	seen bool
}

func (a *auditor) explainRecord(record *quota.Entry, entries map[quota.EntryKey]*recorded) {
	var x, y encoder
	name := entryName(record.EntryKey, record.Nonce)
	e, ok := entries[record.EntryKey]
	switch {
	case !ok:
		a.find("I5", name, "its record (%s) has no entry", entryText(record))
	case e.BatchLane != record.BatchLane || e.BatchNo != record.BatchNo:
		a.find("I5", name, "it is recorded (%s), but its entry says %s", entryText(record), entryText(&e.Entry))
	case e.seen:
		a.find("I5", name, "it is recorded twice in that batch (%s)", entryText(record))
	default:
		e.seen = true
		if !bytes.Equal(x.entry(&e.Entry), y.entry(record)) {
			a.find("I5", name, "its record says %s, its entry says %s", entryText(record), entryText(&e.Entry))
		}
	}
}

func sortedKeys[V any](m map[quota.EntryKey]V) []quota.EntryKey {
	out := make([]quota.EntryKey, 0, len(m))
	for key := range m {
		out = append(out, key)
	}
	slices.SortFunc(out, func(x, y quota.EntryKey) int {
		return cmp.Or(cmp.Compare(x.Lane, y.Lane), cmp.Compare(x.Sequence, y.Sequence), cmp.Compare(x.Phase, y.Phase))
	})
	return out
}
