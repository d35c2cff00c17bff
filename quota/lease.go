package quota

import (
	"context"
	"time"
)

// Registration announces a new incarnation.
type Registration struct {
	Incarnation string // 32 hex digits, random, never reused (R8)
	Node        string // name for people
	Address     string // where clients reach it; may be ""
	Lanes       []LaneID
	Guest       LaneID
	Lease       time.Duration // L
	Hold        time.Duration // M0 + g: hold_until = issue_until + Hold (R31)
}

// LeaseGrant is the answer to a registration or renewal.
type LeaseGrant struct {
	Sequence   int64
	Now        int64 // the database's transaction time
	IssueUntil int64
}

// Renewal renews a lease by compare-and-set (R8). The nonce tells a renewal sent again after
// an unknown outcome from one by a clone of this process.
type Renewal struct {
	Incarnation string
	Sequence    int64
	Nonce       int64
	Lease, Hold time.Duration
}

// PollRequest asks for what changed.
type PollRequest struct {
	Incarnation string
	Since       int64 // revision seen so far
	Acked       int64 // revision in force here; stored when it is news (R32)
	Lanes       []LaneID
	Forget      []Note // notes taken in, to be deleted
	// Wishes are the pots of which the others are to give back what they can spare (protocol §3.2),
	// at most MaxWishes; stored when they are news. A wallet is the pot "".
	Wishes []PotRef
}

// MaxWishes is how many wishes a node may have at once.
const MaxWishes = 256

// ChangeKind says what a change row is about.
type ChangeKind uint8

// Change kinds.
const (
	ChangeCatalogue ChangeKind = iota + 1
	ChangeAccount
	ChangeKey
	ChangeMACKeys
)

// Change names something admin calls changed.
type Change struct {
	Revision int64
	Kind     ChangeKind
	ID       string // account or key id; "" for the catalogue
}

// PollResult is what a node has to take in (R32, R27).
type PollResult struct {
	Now       int64
	Revision  int64
	Changes   []Change
	Truncated bool // more changes than one poll returns: drop all caches
	Notes     []Note
	LiveNodes int
	Wishes    []PotRef // of the other live nodes
}

// LeaseStore keeps incarnations. All its times are the database's (R44).
type LeaseStore interface {
	// Register inserts the incarnation with its lanes, LIVE. May be sent again.
	Register(ctx context.Context, r Registration) (LeaseGrant, error)
	// Renew extends the lease: issue_until = max(issue_until, now + L), hold_until likewise
	// (R6, R31). FENCED if the compare-and-set fails or the incarnation is not LIVE.
	Renew(ctx context.Context, r Renewal) (LeaseGrant, error)
	// Poll reads what changed. One round trip.
	Poll(ctx context.Context, p PollRequest) (PollResult, error)
	// Drain ends a LIVE incarnation: DRAINED, its lanes may be closed from holdUntil (R49).
	Drain(ctx context.Context, incarnation string, holdUntil int64) error
	// Unacked counts the LIVE incarnations that have not acknowledged revision and whose lease
	// still runs (Suspend(sync), R32).
	Unacked(ctx context.Context, revision int64) (int, error)
}

// ReaperStore buries the dead. Any node may call it; every step is a compare-and-set.
type ReaperStore interface {
	// MarkDead marks LIVE incarnations whose issue_until + 2*skew has passed (R10), except
	// self. Only a node that was not blind may call it (R30).
	MarkDead(ctx context.Context, self string, skew time.Duration) (int, error)
	// BuryPredecessors marks every LIVE incarnation but self DEAD at once and writes
	// close_after = now + hold where it is not yet written, or more if the dead one promised
	// more (R31). Only the holder of the embedded store's file lock may call it (R29).
	BuryPredecessors(ctx context.Context, self string, hold time.Duration) error
	// Closable lists lanes of DEAD or DRAINED incarnations whose time has come and that are
	// not CLOSED, with 2*skew on top (0 for the embedded store and for DRAINED).
	Closable(ctx context.Context, skew time.Duration, limit int) ([]LaneID, error)
	// Fence moves a lane OPEN -> CLOSING; from then on nothing is settled in it (R22).
	Fence(ctx context.Context, lane LaneID) error
	// CloseLane closes up to limit allotments of a CLOSING lane, each by R22 and R14, and the
	// lane itself when none is left; done reports that.
	CloseLane(ctx context.Context, lane LaneID, now int64, limit int) (done bool, err error)
	// ExpireGrants moves what is available of grants that expired before now to expired (R14).
	ExpireGrants(ctx context.Context, now int64, limit int) (int, error)
	// NextClose is the earliest time at which something escrowed by a dead incarnation of the
	// payer comes back; 0 if nothing is expected. It makes retry_after honest (R29).
	NextClose(ctx context.Context, payer string) (int64, error)
}

// RestoreStore is what a store needs after it was restored from a backup. Nodes that wrote to it
// before hold amounts and have issued tokens that it does not know of.
type RestoreStore interface {
	// FenceAll declares every incarnation dead and fences every lane, in one transaction. Nothing
	// of theirs is settled from an allotment afterwards: a commit that still comes is LATE, and so
	// charged once (R15, R26); what they had set aside returns as soon as a node runs.
	//
	// Unless force is set it refuses with RESOURCE_IN_USE, naming nodes, while a lease runs: a
	// node that goes on issuing would spend what has returned (I1). It may be repeated.
	FenceAll(ctx context.Context, force bool) (Fenced, error)
}

// Fenced is what FenceAll did.
type Fenced struct {
	Incarnations, Lanes int // that were alive, that were open
}
