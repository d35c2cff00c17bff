package audit

import "github.com/purser-io/purser/quota"

// readInterims is R23: usage that was acknowledged in between is charged by whoever ends the
// reservation without its client's last word.
func (a *auditor) readInterims() error {
	return a.r.Interims(func(row quota.InterimRow) error {
		a.report.Interims++
		r := &row.Record
		name := entryName(quota.EntryKey{Lane: row.Lane, Sequence: row.Sequence}, r.Nonce)
		l := a.lanes[row.Lane]
		switch t := row.Terminal; {
		case r.Lane != row.Lane || r.Sequence != row.Sequence || r.Kind != quota.Expired || row.Number < 1:
			a.find("R23", name, "its interim usage number %d is of %s, %s", row.Number, entryName(r.EntryKey, r.Nonce), r.Kind)
		case l == nil || l.Guest:
			a.find("R23", name, "it has interim usage in a lane that owns no reservations")
		case t != nil && t.Nonce != r.Nonce:
			a.find("R23", name, "it ended with nonce %d", t.Nonce)
		case t != nil && t.Kind == quota.Expired:
			a.checkFloor(name, t, r)
		case t == nil && row.Late == nil && l.State == quota.LaneClosed:
			a.find("R23", name, "its lane is closed, and %d micros that it had used are not charged", r.Charged())
		}
		a.checkSlots(r)
		return nil
	})
}

// checkFloor holds an EXPIRED entry against the usage noted, unit by unit.
func (a *auditor) checkFloor(name string, e *quota.Entry, r *quota.Record) {
	if e.Charged < r.Charged() {
		a.find("R23", name, "it expired with a charge of %d micros, noted were %d", e.Charged, r.Charged())
	}
	for _, u := range r.Usage {
		if got := e.Cost(u.Meter); got < u.Quantity {
			a.find("R23", name, "it expired with %d of %s, noted were %d", got, u.Meter, u.Quantity)
		}
	}
}
