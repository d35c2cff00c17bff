package escrow

import (
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// Foreign fills in the slots of a settlement that is made away from the reservation's owner,
// from what the token says is held. What that does not cover is uncovered: the settler has no
// allotments in the owner's lane (R25, R27). Of the windows of one limit the older take what
// they hold, the newest the rest, as at the owner (R34).
func Foreign(t *token.Token, rec *quota.Record) {
	rec.Held, rec.Slots = 0, make([]quota.Slot, len(t.Slots))
	rest := int64(0)
	for i := range t.Slots {
		from, out := &t.Slots[i], &rec.Slots[i]
		out.Kind, out.Unit, out.Pot, out.Continues = quota.PotKind(from.Kind), from.Unit, from.PotID, from.Continues
		if !from.Continues {
			rest = rec.Cost(from.Unit)
		}
		if len(from.Parts) > 0 {
			out.Anchor = quota.AllotmentNo(from.Parts[0].Allotment)
		}
		owed := rest
		for _, p := range from.Parts {
			if out.Kind == quota.PotWallet {
				rec.Held += p.Amount
			}
			used := min(rest, p.Amount)
			rest -= used
			out.Parts = addPart(out.Parts, quota.AllotmentNo(p.Allotment), used)
		}
		out.Charge = owed
		if i+1 < len(t.Slots) && t.Slots[i+1].Continues {
			out.Charge -= rest
			continue
		}
		out.Uncovered = rest
	}
}
