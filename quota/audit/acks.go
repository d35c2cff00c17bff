package audit

import (
	"fmt"
	"iter"

	"github.com/purser-io/purser/quota"
)

// acks are the settlements that clients saw acknowledged, with what the store has of each.
type acks struct {
	order []ackKey
	by    map[ackKey]*ack
	twice []string // acknowledgements that contradict one another
	same  int64    // listed again
}

type ackKey struct {
	lane     quota.LaneID
	sequence uint64
}

type ack struct {
	Acknowledged
	charges  int              // charging entries seen
	charged  int64            // micros
	terminal quota.SettleKind // phase 0, 0 = none seen
}

func loadAcks(list iter.Seq2[Acknowledged, error]) (*acks, error) {
	all := &acks{by: map[ackKey]*ack{}}
	if list == nil {
		return all, nil
	}
	for a, err := range list {
		if err != nil {
			return nil, err
		}
		if a.Kind != quota.Committed && a.Kind != quota.Released {
			return nil, fmt.Errorf("lane %d, sequence %d: kind is %d, want COMMITTED or RELEASED", a.Lane, a.Sequence, a.Kind)
		}
		all.add(a)
	}
	return all, nil
}

func (all *acks) add(a Acknowledged) {
	key := ackKey{a.Lane, a.Sequence}
	had := all.by[key]
	switch {
	case had == nil:
		all.by[key] = &ack{Acknowledged: a}
		all.order = append(all.order, key)
	case had.Acknowledged == a:
		all.same++
	case had.Nonce == a.Nonce && had.Kind == quota.Released:
		had.Acknowledged = a // Released, then charged as delivered: the charge must be there.
	case had.Nonce == a.Nonce && a.Kind == quota.Released:
	default:
		all.twice = append(all.twice, fmt.Sprintf("%s: acknowledged for %d micros (nonce %d) and for %d micros (nonce %d)",
			entryName(quota.EntryKey{Lane: a.Lane, Sequence: a.Sequence}, a.Nonce), had.Charged, had.Nonce, a.Charged, a.Nonce))
	}
}

// reset forgets what was seen of the store: it may be read again.
func (all *acks) reset() {
	for _, a := range all.by {
		a.charges, a.charged, a.terminal = 0, 0, 0
	}
}

func (all *acks) saw(a *auditor, e *quota.Entry) {
	known := all.by[ackKey{e.Lane, e.Sequence}]
	if known == nil {
		return
	}
	if known.Nonce != e.Nonce {
		a.find("I10", entryName(e.EntryKey, e.Nonce), "it was acknowledged with nonce %d", known.Nonce)
	}
	if e.Phase == quota.PhaseTerminal {
		known.terminal = e.Kind
	}
	if e.Kind == quota.Committed {
		known.charges++
		a.add(&known.charged, e.Charged, entryName(e.EntryKey, e.Nonce))
	}
}

// checkAcks is I10 and I11: what was acknowledged is there, and nothing else became of it.
func (a *auditor) checkAcks() {
	a.report.Acknowledged, a.report.DuplicateAcks = int64(len(a.acks.order)), a.acks.same
	for _, text := range a.acks.twice {
		a.find("I5", "acknowledgements", "%s", text)
	}
	for _, key := range a.acks.order {
		k := a.acks.by[key]
		name := entryName(quota.EntryKey{Lane: k.Lane, Sequence: k.Sequence}, k.Nonce)
		switch {
		case k.Kind == quota.Committed && k.charges == 0:
			a.find("I10", name, "a charge of %d micros was acknowledged, but is not in the store (it is %s there)", k.Charged, k.terminal)
		case k.Kind == quota.Committed && k.charged != k.Charged:
			a.find("I10", name, "a charge of %d micros was acknowledged, the store has %d in %d entries", k.Charged, k.charged, k.charges)
		case k.Kind == quota.Released && k.charges != 0:
			a.find("I11", name, "its release was acknowledged, and yet it was charged %d micros", k.charged)
		case k.Kind == quota.Released && k.terminal == 0 && a.open(k.Lane):
			a.find("I10", name, "its release was acknowledged, but is not in the store")
		}
	}
}

// open reports whether settlements of the lane may still be written: behind a closed one a
// release needs no record.
func (a *auditor) open(id quota.LaneID) bool {
	l := a.lanes[id]
	return l == nil || l.State == quota.LaneOpen
}
