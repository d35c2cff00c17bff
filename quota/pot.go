package quota

import (
	"strconv"

	"github.com/purser-io/purser/quota/window"
)

// PotKind says what a pot is drawn for.
type PotKind uint8

// Pot kinds. A wallet is not a pot but the grants of a payer; as the kind of a [Want] or a
// token's slot, PotWallet stands for all of them in burn order.
const (
	PotWallet PotKind = 1
	PotBudget PotKind = 2
	PotQuota  PotKind = 3
)

// GrantKind is the origin of a grant.
type GrantKind uint8

// Grant kinds. The first four are in default burn order (peers §5.1).
const (
	GrantPromotional GrantKind = iota + 1
	GrantPlan
	GrantRollover
	GrantPurchased
	GrantRefund
	GrantAdjustment
)

// Pot is what amounts are drawn from. A grant obeys I1:
//
//	Granted = Available + Escrowed + Spent + Expired + Refunded + Direct
//
// A window pot stores what was taken, Escrowed + Spent + Direct, and never what is left: the
// cap stands in its budget or quota (R33). Direct is what was debited without an allotment:
// uncovered and late usage, debt paid; for a window it may pass the cap (I12).
type Pot struct {
	Payer string
	ID    string
	Kind  PotKind
	Unit  string

	Granted   int64 // grants only
	Available int64 // grants only
	Escrowed  int64
	Spent     int64
	Expired   int64 // grants only
	Refunded  int64 // grants only
	Direct    int64
	// Projected is what the projector counted as spent or debited directly so far (R21). Only
	// AccountStore.Pots fills it in.
	Projected int64

	// Windows: [Start, End). Grants: effective and expiry (exclusive).
	Start, End int64

	// Windows.
	Account  string // whose budget or quota
	Limit    string // budget or quota id
	Selector string // label value, "" if none

	// Grants.
	GrantKind  GrantKind
	Priority   int // 0..1000, lower burns first
	CostBasis  string
	Note       string
	CreateTime int64
	Voided     bool
}

// Taken is what a window pot counts against its cap.
func (p *Pot) Taken() int64 { return p.Escrowed + p.Spent + p.Direct }

// Balanced reports I1 for a grant.
func (p *Pot) Balanced() bool {
	return p.Granted == p.Available+p.Escrowed+p.Spent+p.Expired+p.Refunded+p.Direct
}

// Before reports whether grant p burns before grant q: priority, expiry (none last), kind,
// effective time, id: a total order.
func (p *Pot) Before(q *Pot) bool {
	switch {
	case p.Priority != q.Priority:
		return p.Priority < q.Priority
	case p.End != q.End:
		return p.End < q.End
	case p.GrantKind != q.GrantKind:
		return p.GrantKind < q.GrantKind
	case p.Start != q.Start:
		return p.Start < q.Start
	}
	return p.ID < q.ID
}

// GrantPotID is the pot of a grant.
func GrantPotID(grant string) string { return "g/" + grant }

// WindowPot names one window of a budget or quota, with the cap in force.
type WindowPot struct {
	Kind       PotKind // PotBudget or PotQuota
	Account    string
	Limit      string
	Selector   string
	Unit       string
	Window     window.Kind
	Start, End int64
	Cap        int64 // Never = no cap (a soft budget counts, and never denies)
}

// ID is the pot's id: (kind, account, limit, selector, window start). The selector, the only
// part that may hold any character, stands last.
func (w *WindowPot) ID() string {
	kind := "b/"
	if w.Kind == PotQuota {
		kind = "q/"
	}
	return kind + w.Account + "/" + w.Limit + "/" + strconv.FormatInt(w.Start, 36) + "/" + w.Selector
}
