package quota

import "context"

// LaneState is whether a lane may be written to.
type LaneState uint8

// Lane states. CLOSING counts as closed for settlements (R22).
const (
	LaneOpen LaneState = iota + 1
	LaneClosing
	LaneClosed
)

// IncarnationState is where an incarnation is in its life.
type IncarnationState uint8

// Incarnation states. DEAD and DRAINED are final.
const (
	IncarnationLive IncarnationState = iota + 1
	IncarnationDead
	IncarnationDrained
)

// LaneRow is a lane as stored.
type LaneRow struct {
	Lane        LaneID
	Incarnation string
	State       LaneState
	Guest       bool
	Cursor      int64
	Node        string
	NodeState   IncarnationState
}

// AllotmentRow is an allotment as stored.
type AllotmentRow struct {
	AllotmentRef
	PotRef
	Amount int64
	Spent  int64 // once closed
	Closed bool
}

// SpentRow is a projected spent figure as stored.
type SpentRow struct {
	PotRef
	Amount int64
}

// InterimRow is interim usage as stored, and how the reservation ended; nil = it did not.
type InterimRow struct {
	Lane     LaneID
	Sequence uint64
	Interim
	Terminal, Late *Entry
}

// AuditStore lets the audit read the whole store.
type AuditStore interface {
	// Audit calls fn with a reader of one consistent, read-only state. It takes no lock that
	// a running server would wait for.
	Audit(ctx context.Context, fn func(AuditReader) error) error
}

// AuditReader streams rows in key order. A callback's error ends the walk and is returned.
type AuditReader interface {
	Pots(fn func(Pot) error) error
	Allotments(fn func(AllotmentRow) error) error
	Lanes(fn func(LaneRow) error) error
	Entries(fn func(Entry) error) error
	Batches(fn func(Batch) error) error
	Interims(fn func(InterimRow) error) error
	Debts(fn func(payer string, debt int64) error) error
	Spent(fn func(SpentRow) error) error
	UsageEvents(fn func(UsageEvent) error) error
}
