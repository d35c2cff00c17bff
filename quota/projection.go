package quota

import "context"

// Batch is one batch of a lane's journal.
type Batch struct {
	Lane    LaneID
	No      int64
	Records []Record
}

// AllotmentRef names an allotment over all lanes.
type AllotmentRef struct {
	Lane   LaneID
	Number AllotmentNo
}

// PotRef names a pot over all payers.
type PotRef struct {
	Payer string
	Pot   string
}

// UsageEvent is a settlement for people and exports: one for each committed reservation, each
// that expired with interim usage (R23), and each LATE charge.
type UsageEvent struct {
	Key          EntryKey
	Nonce        uint64 // with lane and sequence the reservation's id
	Account      string
	Payer        string
	Principal    string
	Feature      string
	Labels       map[string]string
	PriceVersion int64
	Usage        []Quantity
	Lines        []int64 // micros of each usage line
	Charged      int64   // micros
	Covered      int64   // micros, from allotments
	Uncovered    int64   // micros, debited by the projector
	Grants       []GrantUse
	Outcome      Outcome
	Late         bool
	ReservedAt   int64
	SettledAt    int64
}

// GrantUse is what an event took from a grant through allotments.
type GrantUse struct {
	Grant  string
	Micros int64
}

// Rollup is usage by account, hour, feature and meter.
type Rollup struct {
	Account  string
	Hour     int64 // unix ns of its start, UTC
	Feature  string
	Meter    string
	Quantity int64
	Micros   int64
	Events   int64
}

// Claim is an uncovered amount, debited exactly once with the cursor (R25).
type Claim struct {
	Payer  string
	Kind   PotKind
	Pot    string // window pot id; "" for the wallet
	Amount int64
}

// SpentDelta adds to a pot's projected spent figure (R21).
type SpentDelta struct {
	PotRef
	Amount int64
}

// Projection is everything that some batches of one lane lead to.
type Projection struct {
	Lane     LaneID
	From, To int64 // cursor before and after: batches (From, To]
	Now      int64
	Events   []UsageEvent
	Rollups  []Rollup
	Claims   []Claim
	Spent    []SpentDelta
}

// ProjectionStore is what the projector needs.
type ProjectionStore interface {
	// Projectable lists lanes that may have batches behind their cursor: those of self, and of
	// incarnations that are no longer LIVE.
	Projectable(ctx context.Context, self string) ([]Cursor, error)
	// Batches reads consecutive batches behind the cursor, stopping at the first number that
	// is missing (R20), at most limit.
	Batches(ctx context.Context, c Cursor, limit int) ([]Batch, error)
	// PotsOf tells which pots allotments belong to.
	PotsOf(ctx context.Context, refs []AllotmentRef) (map[AllotmentRef]PotRef, error)
	// Project applies a projection and moves the cursor From -> To in one serializable
	// transaction; applied is false if another node had moved the cursor (then nothing was
	// written). Claims on a wallet debit open grants in burn order, then debt, and bump the
	// payer's epoch if debt was made; claims on a window add to what was taken (R25). It may
	// be sent again.
	Project(ctx context.Context, p *Projection) (applied bool, err error)
	// Finished marks a CLOSED lane as projected to its end, so that it is not listed again.
	Finished(ctx context.Context, c Cursor) error
}

// Cursor is how far a lane is projected.
type Cursor struct {
	Lane LaneID
	No   int64 // last batch projected; 0 = none
	// Closed lanes get no more batches.
	Closed bool
}
