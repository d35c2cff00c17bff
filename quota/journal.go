package quota

import (
	"context"
	"slices"

	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// SettleKind is how a reservation ended.
type SettleKind uint8

// Settlement kinds.
const (
	Committed SettleKind = iota + 1
	Released
	Expired
)

// String is the kind's name as replies and usage events spell it.
func (k SettleKind) String() string {
	switch k {
	case Committed:
		return "COMMITTED"
	case Released:
		return "RELEASED"
	case Expired:
		return "EXPIRED"
	}
	return "HELD"
}

// Phases of a reservation's entries. Phase 0 is terminal and written once (I5); phase 1 is a
// LATE charge behind it.
const (
	PhaseTerminal uint8 = 0
	PhaseLate     uint8 = 1
)

// Outcome tags what became of the work a commit pays for.
type Outcome uint8

// Outcomes.
const (
	OutcomeSuccess Outcome = iota + 1
	OutcomeRefused
	OutcomeError
	OutcomeUserCancelled
)

// String is the outcome's name as usage events spell it.
func (o Outcome) String() string {
	switch o {
	case OutcomeSuccess:
		return "SUCCESS"
	case OutcomeRefused:
		return "REFUSED"
	case OutcomeError:
		return "ERROR"
	case OutcomeUserCancelled:
		return "USER_CANCELLED"
	}
	return ""
}

// Quantity is an amount of a meter.
type Quantity struct {
	Meter    string
	Quantity int64
}

// EntryKey names an entry: owner's lane, sequence of the reservation, phase.
type EntryKey struct {
	Lane     LaneID
	Sequence uint64
	Phase    uint8
}

// Slot is what one pot kind of a reservation was charged (R25: each on its own). A reservation
// that was extended after a window had ended holds on two windows of one limit; their slots
// follow one another, oldest first, and share what the usage asks of the limit (R34).
type Slot struct {
	Kind      PotKind
	Unit      string
	Pot       string       // names the pot of an uncovered amount if Anchor is 0 (windows)
	Anchor    AllotmentNo  // the slot's first allotment at reserve; tells the pot
	Parts     []token.Part // charged on allotments of the owner's lane, > 0 each
	Charge    int64        // what the usage costs of this kind, and window
	Uncovered int64        // Charge - sum of Parts: debited by the projector
	Continues bool         // a later window of the limit that the slot before it is about
}

// Record is the settlement of a reservation as the journal keeps it: all that usage events,
// rollups and claims are made of.
type Record struct {
	EntryKey
	Nonce        uint64
	Kind         SettleKind
	Outcome      Outcome
	Delivered    bool // usage was delivered though the reservation was released
	Account      string
	Payer        string
	Principal    string
	Feature      string
	PriceVersion int64
	Labels       label.Set
	Usage        []Quantity
	Lines        []int64 // micros of each usage line, as priced
	Held         int64   // micros held on the wallet
	Slots        []Slot
	Digest       uint64 // of the usage: same content or not
	ReservedAt   int64
	ExpiresAt    int64
	SettledAt    int64
}

// Charged is what the usage costs in micros.
func (r *Record) Charged() int64 {
	var sum int64
	for _, l := range r.Lines {
		sum += l
	}
	return sum
}

// Used reports whether the record is of usage, which leads to a usage event: a commit, or an
// expiry with interim usage (R23).
func (r *Record) Used() bool { return r.Kind == Committed || r.Kind == Expired && len(r.Usage) > 0 }

// Cost is what the usage asks of a pot kind that counts unit: micros, or a quantity of a meter.
func (r *Record) Cost(unit string) int64 {
	if unit == UnitCredits {
		return r.Charged()
	}
	return quantityOf(r.Usage, unit)
}

func quantityOf(usage []Quantity, meter string) int64 {
	for i := range usage {
		if usage[i].Meter == meter {
			return usage[i].Quantity
		}
	}
	return 0
}

// Uncovered is what of the charge in micros no allotment covered.
func (r *Record) Uncovered() int64 {
	for i := range r.Slots {
		if r.Slots[i].Kind == PotWallet {
			return r.Slots[i].Uncovered
		}
	}
	return 0
}

// Late turns a commit into the LATE charge of a reservation that ended without it: nothing
// from the allotments, which may have gone home, all of it uncovered (R26). If it ended with
// usage, behind is that EXPIRED, and the charge is of the rest (R23); else behind may be nil.
func (r Record) Late(behind *Entry) Record {
	r.Phase = PhaseLate
	r.Slots = slices.Clone(r.Slots)
	if behind != nil && behind.Used != nil {
		r.takeOff(behind)
	}
	for i := range r.Slots {
		s := &r.Slots[i]
		s.Parts, s.Uncovered = nil, s.Charge
	}
	return r
}

// takeOff leaves of a usage, and of what it costs of each limit, what e has not charged.
func (r *Record) takeOff(e *Entry) {
	r.Usage, r.Lines = slices.Clone(r.Usage), slices.Clone(r.Lines)
	rest := max(r.Charged()-e.Charged, 0)
	for i := range r.Usage {
		u := &r.Usage[i]
		u.Quantity = max(u.Quantity-e.Cost(u.Meter), 0)
		r.Lines[i] = max(r.Lines[i]-e.line(u.Meter), 0)
	}
	// A meter of which less was used than e charged makes up for others.
	over := r.Charged() - rest
	for i := range r.Lines {
		x := min(over, r.Lines[i])
		r.Lines[i] -= x
		over -= x
	}
	left := int64(0)
	for i := range r.Slots {
		s := &r.Slots[i]
		if !s.Continues {
			left = e.Cost(s.Unit)
		}
		x := min(left, s.Charge)
		s.Charge -= x
		left -= x
	}
}

// Entry is the small row behind a record: what closing, replay and audit need (R20).
type Entry struct {
	EntryKey
	Nonce     uint64
	Kind      SettleKind
	Digest    uint64
	Charged   int64
	Held      int64
	Uncovered int64
	Parts     []token.Part // of all slots
	BatchLane LaneID       // where the full record stands
	BatchNo   int64
	Used      *Used // of an EXPIRED that charges: a LATE charge behind it is of the rest (R23)
}

// Used is usage and what it costs, as in a record.
type Used struct {
	Usage []Quantity
	Lines []int64
}

// Cost is what an EXPIRED charged of unit: micros, or a quantity of a meter.
func (e *Entry) Cost(unit string) int64 {
	if unit == UnitCredits {
		return e.Charged
	}
	if e.Used == nil {
		return 0
	}
	return quantityOf(e.Used.Usage, unit)
}

// line is what an EXPIRED charged for a meter, in micros.
func (e *Entry) line(meter string) int64 {
	if e.Used == nil {
		return 0
	}
	for i, q := range e.Used.Usage {
		if q.Meter == meter && i < len(e.Used.Lines) {
			return e.Used.Lines[i]
		}
	}
	return 0
}

// Entry is the record's entry in batch no of lane.
func (r *Record) Entry(lane LaneID, no int64) Entry {
	e := Entry{EntryKey: r.EntryKey, Nonce: r.Nonce, Kind: r.Kind, Digest: r.Digest,
		Charged: r.Charged(), Held: r.Held, Uncovered: r.Uncovered(), BatchLane: lane, BatchNo: no}
	for i := range r.Slots {
		e.Parts = append(e.Parts, r.Slots[i].Parts...)
	}
	if r.Kind == Expired && len(r.Usage) > 0 {
		e.Used = &Used{r.Usage, r.Lines}
	}
	return e
}

// Interim is what a reservation has used so far, as its owner notes it (R23): a record of what
// it will be charged should it expire. Of several of one reservation the one with the highest
// number counts, in whatever order they land: the owner makes each of all that came before.
type Interim struct {
	Record Record // EXPIRED
	Number int64  // from 1
}

// Note tells a lane's owner what others settled of it (R27).
type Note struct {
	Lane    LaneID // the owner's
	Guest   LaneID
	BatchNo int64
	Entries []Entry
}

// Verdict is what became of a record handed to Settle.
type Verdict uint8

// Verdicts.
const (
	// VerdictApplied: the record, perhaps as LATE, is durable; Entry is its entry.
	VerdictApplied Verdict = iota + 1
	// VerdictSettled: the reservation had been settled before; Entry is the winner's.
	VerdictSettled
	// VerdictDropped: a release or expiry for a closed lane: nothing is held any more.
	VerdictDropped
	// VerdictTooOld: the journal no longer keeps what would decide (R16).
	VerdictTooOld
	// VerdictRetry: not decided in this batch; send it in the next.
	VerdictRetry
)

// Settlement is the fate of one record.
type Settlement struct {
	Verdict Verdict
	Entry   Entry
}

// Judge decides about a record from the owner's lane state and the entries that exist. If
// apply is true the record is to be written, as LATE if late is; else Settlement is its fate: a LATE
// entry is the last word, to a release as well. It is the table of protocol §2.3.
func Judge(open bool, terminal, lateEntry *Entry, r *Record) (s Settlement, apply, late bool) {
	switch {
	case terminal == nil && open:
		return s, true, false
	case lateEntry != nil:
		return Settlement{Verdict: VerdictSettled, Entry: *lateEntry}, false, false
	case terminal == nil && r.Kind != Committed:
		return Settlement{Verdict: VerdictDropped}, false, false
	case terminal != nil && !lateAllowed(terminal, r):
		return Settlement{Verdict: VerdictSettled, Entry: *terminal}, false, false
	}
	return s, true, true // R15
}

// lateAllowed: real usage behind an expiry, or behind a release when the caller insists.
func lateAllowed(terminal *Entry, r *Record) bool {
	if r.Kind != Committed {
		return false
	}
	return terminal.Kind == Expired || terminal.Kind == Released && r.Delivered
}

// AppendResult is the fate of a batch. Exactly one of its fields is set.
type AppendResult struct {
	Applied bool
	Fenced  bool    // the lane is closing: nothing was written, nothing will be
	Winners []Entry // keys of the batch settled by others: nothing was written, nothing will be
}

// Whereabouts is what the store knows of a reservation and of the incarnation that issued it.
type Whereabouts struct {
	Open     bool   // the lane: the reservation may be settled in it
	GCBefore int64  // entries of reservations that ended before may be gone (R16)
	Entry    *Entry // how it was settled, LATE before terminal; nil = it was not
	Node     string // the issuer's name for people
	Address  string // where clients reach it; "" = not said
	State    IncarnationState
}

// JournalStore makes settlements durable.
type JournalStore interface {
	// Append writes batch no of an own lane in one statement, fenced by the lane's state
	// (R3, R20). Sending the same batch again is harmless; a batch that is there already
	// counts as applied. It never returns "failed" for a batch that may land later: that is
	// OUTCOME_UNKNOWN (R5), which callers answer by sending the same batch again.
	Append(ctx context.Context, lane LaneID, no int64, records []Record) (AppendResult, error)

	// Settle writes batch no of a guest lane: records of reservations of other lanes, each
	// decided by Judge in the same serializable transaction (R27, R26), with one note for
	// each owner's lane. used reports whether the number is now taken. It may be sent again.
	Settle(ctx context.Context, guest LaneID, no int64, records []Record) (fates []Settlement, used bool, err error)

	// Interim makes interim usage of reservations of an own lane durable, in one serializable
	// transaction, fenced by the lane's state (R3, R23): reason FENCED if the lane is not open.
	// Reservations that have ended take none: their entries are returned, LATE before terminal.
	// It may be sent again, and land in any order.
	Interim(ctx context.Context, lane LaneID, interims []Interim) (ended []Entry, err error)

	// Whereabouts finds out about a reservation that is not held by who is asked, in one read
	// of one consistent state; known is false if the store knows no such lane.
	Whereabouts(ctx context.Context, lane LaneID, sequence uint64) (w Whereabouts, known bool, err error)
}
