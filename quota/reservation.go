package quota

import (
	"time"

	"github.com/purser-io/purser/quota/label"
)

// Bounds of a reservation request.
const (
	MaxCandidates = 8
	MaxMeters     = 16
	MaxKeyBytes   = 128
	MaxParts      = 64 // of a hold; what would need more counts as not available (R24)
	DefaultTTL    = 30 * time.Second
	MinTTL        = time.Second
)

// Estimate is what a request expects to use of a meter.
type Estimate struct {
	Meter    string
	Quantity int64
	// Min makes the meter flexible: anything from Min up to Quantity will do (R42).
	Min      int64
	Flexible bool
}

// Request asks whether an account may use a feature and can pay for it.
type Request struct {
	Account    string
	Key        string   // idempotency key, "" = none
	Candidates []string // features in order of preference
	Estimates  []Estimate
	TTL        time.Duration // 0 = DefaultTTL, or M0 if that is less
	Labels     label.Set     // as sent; the key's are merged over them
}

// Extension asks for more of, or more time for, a reservation. It states totals since the
// reservation was made, never increments, so the same extension twice is one (R35).
type Extension struct {
	Token     []byte        // of any generation
	Estimates []Estimate    // totals; a meter left out keeps what it was granted
	TTL       time.Duration // from now, never shortens; 0 = as in a Request
}

// DenialReason says why not: the first of the decision order (design §4.8) that fails.
type DenialReason uint8

// Denial reasons, in decision order.
const (
	DeniedAccountUnknown DenialReason = iota + 1
	DeniedAccountSuspended
	DeniedFeatureUnknown
	DeniedNotEntitled
	DeniedNoPrice
	DeniedRate
	DeniedConcurrency
	DeniedQuota
	DeniedBudget
	DeniedCredits
)

// String is the reason's name on the wire, without its prefix.
func (r DenialReason) String() string {
	names := [...]string{"", "ACCOUNT_UNKNOWN", "ACCOUNT_SUSPENDED", "FEATURE_UNKNOWN", "FEATURE_NOT_ENTITLED", "NO_PRICE",
		"RATE", "CONCURRENCY", "QUOTA", "BUDGET", "CREDITS"}
	if int(r) < len(names) {
		return names[r]
	}
	return ""
}

// Level names the limit that a denial, warning or remainder is about.
type Level struct {
	Kind     PotKind // 0 = no pot: the account itself, or a rate or concurrency limit
	Account  string  // whose limit
	Limit    string  // budget, quota or limit id; "" = the wallet
	LabelKey string  // whose values are counted by themselves
	Selector string  // label value
	Unit     string  // UnitCredits or a meter
}

// Denial is a normal answer that says no.
type Denial struct {
	Reason    DenialReason
	Transient bool // the amount exists, but is held or allotted elsewhere (R51), or a limit comes free
	Level     Level
	Shortfall int64         // in Level.Unit
	RetryIn   time.Duration // 0 = no advice; always set if Transient
	Subject   string        // what is unknown or not entitled: account, feature or meter
	Detail    string        // why an account is suspended, as the admin said it
	// Affordable is what would be allowed now of the flexible meters; nil if nothing.
	Affordable []Quantity
}

// Warning says that a soft limit is passed or a warning threshold reached.
type Warning struct {
	Level Level
	Used  int64 // estimate, in Level.Unit
	Cap   int64
}

// Remaining is an estimate, from memory, of what is left of a limiting pot.
type Remaining struct {
	Level  Level
	Amount int64
}

// Decision is the answer to a Request.
type Decision struct {
	Allowed      bool
	Replayed     bool
	Token        []byte // of a reservation; nil in a quote
	Lane         LaneID
	Sequence     uint64
	Nonce        uint64
	Feature      string
	Granted      []Quantity
	Held         int64 // micros
	ExpiresAt    int64
	PriceVersion int64
	Partial      bool // less than the estimate
	Exhausted    bool // and nothing more will come (R42)
	Remaining    []Remaining
	Warnings     []Warning
	Denial       Denial // unless Allowed
	AsOf         int64  // quotes: how old the figures are
}

// Settle is a commit or release as a caller states it.
type Settle struct {
	Token     []byte
	Usage     []Quantity // commit: cumulative per meter
	Outcome   Outcome
	Labels    label.Set // learnt late, attribution only
	Delivered bool      // commit even if it was released: the usage is real
}

// Receipt is what a settlement came to.
type Receipt struct {
	State     SettleKind
	Late      bool
	Replayed  bool
	Charged   int64 // micros
	Covered   int64 // micros, from allotments
	Overage   int64 // micros charged beyond the hold
	Uncovered int64 // micros no allotment covered: debited from grants, then debt
}

// Balance is what an account's payer has (R40).
type Balance struct {
	Account   string
	Payer     string
	Total     int64 // granted - charged - expired - refunded, as of the projector
	Available int64 // in pots, and free on this node: a lower bound
	Elsewhere int64 // escrowed on other nodes
	Held      int64 // by live reservations of this node
	Debt      int64
	Grants    []Pot
	Windows   []Pot
	AsOf      int64
}
