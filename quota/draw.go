package quota

import (
	"context"
	"sort"
)

// LaneID is a journal stream of an incarnation: random, never reused.
type LaneID int64

// AllotmentNo numbers an allotment within its lane, from 1.
type AllotmentNo uint32

// MaxWalletGrants is how many grants one draw may touch: the allotment numbers a wallet want
// reserves.
const MaxWalletGrants = 8

// Want asks for an amount of one pot kind: the payer's wallet, or one window pot.
type Want struct {
	Kind   PotKind
	Window WindowPot // unless Kind is PotWallet
	Amount int64     // desired, > 0
	// Floor may always be taken, if the pot has it (q of R28): what the waiting requests need.
	Floor int64
	// Least is what the most modest waiting request lacks at least. A pot that has less serves
	// nobody, and gives nothing: else a request that can never be paid would move all of it to
	// one node, out of the others' reach (R28).
	Least int64
	// First is the first allotment number reserved for this want; a wallet reserves
	// MaxWalletGrants, a window one. The node chose them, so the draw can be sent again (R11).
	First AllotmentNo
}

// Numbers is how many allotment numbers the want reserves.
func (w *Want) Numbers() AllotmentNo {
	if w.Kind == PotWallet {
		return MaxWalletGrants
	}
	return 1
}

// Draw moves amounts from pots into new allotments of one lane, for one payer.
type Draw struct {
	Incarnation string
	Lane        LaneID
	Payer       string
	Epochs      []AccountEpoch
	LiveNodes   int   // >= 1: a draw takes at most half of this node's even share
	Now         int64 // the node's estimate; decides which grants and windows are open (R44)
	// Again says that the outcome of an earlier sending is unknown. If nothing is drawn now, a
	// trace is left that keeps that one from landing later, when nobody would know of it.
	Again bool
	Wants []Want
}

// Allotment is a part of a pot handed to a lane.
type Allotment struct {
	Lane     LaneID
	Number   AllotmentNo
	Pot      string // pot id
	Amount   int64
	NotAfter int64 // window end or grant expiry: nothing is issued from it afterwards (R34)
}

// Drawn answers one want.
type Drawn struct {
	Allotments []Allotment // in burn order; none = nothing to be had
	Available  int64       // left in the pot, or in all open grants, after the draw
	Escrowed   int64       // out in allotments of any node, this draw included
	Taken      int64       // windows: escrowed + spent + direct, this draw included
	Debt       int64       // wallet: while > 0 nothing is drawn (R50)
}

// DrawResult answers one draw.
type DrawResult struct {
	Drawn []Drawn // by want
	// Err says why nothing was drawn: FENCED if the incarnation may not issue any more or the
	// lane is not open; POLICY_CHANGED if an account's epoch moved on or it is not active.
	Err error
}

// DrawStore is what the escrow shell needs from storage to fill and empty its allotments.
type DrawStore interface {
	// Draw serves draws, of any payers and lanes, in one serializable transaction: one round
	// to the database for all that waits for it. Pots are locked by payer, then id. It answers
	// them in their order, and each for itself: one that is refused takes nothing and leaves
	// the others as they are.
	//
	// If any of the allotment numbers of a draw exists already, an earlier sending of it landed:
	// it is answered as that stands, whatever changed since, so an ambiguous Draw is repaired
	// by sending it again (R11), in the same company or another. A want gets what DrawLimit
	// allows, which may be nothing; that is no error.
	//
	// Reasons, of none of which anything was drawn but for the first: OUTCOME_UNKNOWN if the
	// commit may have happened; CONTENTION, which fewer draws at once may escape;
	// STORE_UNAVAILABLE, STORE_FULL.
	Draw(ctx context.Context, draws []Draw) ([]DrawResult, error)

	// Return gives amounts of live allotments back to their pots, in one serializable
	// transaction in number order. Each shrink is applied once, by its sequence (R19).
	// Reasons as for Draw, and FENCED if the lane's incarnation may not issue any more.
	Return(ctx context.Context, lane LaneID, shrinks []Shrink) error
}

// Shrink takes amount off a live allotment (R19). With Close the rest of the allotment is
// spent and it is closed (R46).
type Shrink struct {
	Number   AllotmentNo
	Sequence int64 // 1, 2, ... of this allotment; applied iff it is the successor of the last
	Amount   int64 // >= 0
	Close    bool
}

// DrawLimit is the most that one draw may take of what a pot has: half of an even share
// among the live nodes, but always floor (R28), and never more than there is.
func DrawLimit(has, floor int64, liveNodes int) int64 {
	if has <= 0 {
		return 0
	}
	limit := has / (2 * int64(max(liveNodes, 1)))
	return min(has, max(limit, floor))
}

// Take is one grant's part of a wallet draw.
type Take struct {
	Pot    *Pot
	Amount int64
}

// TakeFromGrants splits a wallet want over the open grants in burn order, at most
// MaxWalletGrants of them. The half rule is on the wallet as a whole: on each grant alone it
// would leave the half of every grant that burns first for last.
func TakeFromGrants(grants []*Pot, w *Want, liveNodes int) []Take {
	sort.Slice(grants, func(i, j int) bool { return grants[i].Before(grants[j]) })
	var has int64
	for _, g := range grants {
		has += max(g.Available, 0)
	}
	if has < w.Least {
		return nil
	}
	left := min(w.Amount, DrawLimit(has, w.Floor, liveNodes))
	var takes []Take
	for _, g := range grants {
		if left == 0 || len(takes) == MaxWalletGrants {
			break
		}
		if amount := min(left, g.Available); amount > 0 {
			takes = append(takes, Take{Pot: g, Amount: amount})
			left -= amount
		}
	}
	return takes
}

// TakeFromWindow is a window want's part: what the cap leaves, under the half rule (R33).
func TakeFromWindow(taken int64, w *Want, liveNodes int) int64 {
	has := w.Window.Cap - taken
	if has < w.Least {
		return 0
	}
	return min(w.Amount, DrawLimit(has, w.Floor, liveNodes))
}
