package quotatest

import (
	"fmt"
	"slices"

	"github.com/purser-io/purser/quota"
)

// Op names an operation to [DB.Inject].
type Op uint8

// Operations that may meet a fault.
const (
	OpDraw Op = iota + 1
	OpReturn
	OpAppend
	OpInterim
	OpSettle
	OpLease // register, renew, drain
	OpPoll
	OpReap
	OpProject
)

// Fault is what happens to one operation.
type Fault uint8

// Faults.
const (
	None     Fault = iota
	Failed         // not applied, and the answer says so
	Lost           // applied, the answer is OUTCOME_UNKNOWN
	Vanished       // not applied, the answer is OUTCOME_UNKNOWN
	Zombie         // the answer is OUTCOME_UNKNOWN, the write lands some steps later
)

// Break switches off one of the rules the database has to keep, to prove that a test notices.
type Break struct {
	NoFence           bool // Append does not look at the lane's state (R3)
	CloseEarly        bool // lanes of the dead close without waiting for hold_until (R31)
	LateTwice         bool // a LATE charge does not look for an earlier one (R15)
	CloseByProjection bool // closing believes what was projected (R22)
	EpochFirst        bool // a draw that landed before is refused for its epoch when sent again (R11)
	NoTrace           bool // a draw that gave nothing cannot be recognised when it lands again (R11)
	NoShrinkSequence  bool // a shrink is applied as often as it is sent (R19)
	NoHalf            bool // draws take all that they want (R28): no invariant needs the half rule
	NoKey             bool // Append does not look for entries with the same key (R2)
	LateFromHold      bool // a LATE charge takes from the closed allotments (R26)
	InterimForgotten  bool // closing a lane does not look at interim usage (R23)
	InterimBesideLate bool // closing a lane charges interim usage beside a LATE charge (R23)
	InterimTwice      bool // a LATE charge does not look at what the expiry charged (R23)
	CursorUnchecked   bool // Project writes wherever the cursor stands (R20)
	// Judge decides in place of quota.Judge; nil = that one does.
	Judge func(open bool, terminal, late *quota.Entry, r *quota.Record) (s quota.Settlement, apply, isLate bool)
}

// DB is the database.
type DB struct {
	Now    int64                 // its transaction time
	Inject func(Op) (Fault, int) // nil: no faults; the number is a zombie's delay in steps
	Break  Break
	Oracle *Oracle

	steps    int
	zombies  []zombie
	revision int64
	changes  []quota.Change

	accounts     map[string]*account
	pots         map[quota.PotRef]*quota.Pot
	potOrder     []*quota.Pot
	debts        map[string]int64
	spent        map[quota.PotRef]int64
	incarnations map[string]*incarnation
	lanes        map[quota.LaneID]*lane
	laneOrder    []*lane
	events       []quota.UsageEvent
	claimed      map[string]int64 // wallet claims applied, by payer
}

type zombie struct {
	due   int
	apply func() error
}

type account struct {
	quota.Account
	chain   []string
	budgets []quota.Budget
}

type incarnation struct {
	id                    string
	state                 quota.IncarnationState
	sequence, nonce       int64
	issueUntil, holdUntil int64
	closeAfter            int64
	acked                 int64
	wishes                []quota.PotRef // replaced whole
}

type entryKey struct {
	sequence uint64
	phase    uint8
}

type lane struct {
	id         quota.LaneID
	owner      *incarnation
	guest      bool
	state      quota.LaneState
	gcBefore   int64
	batches    map[int64][]quota.Record
	entries    map[entryKey]quota.Entry
	notes      []quota.Note
	interim    map[uint64]quota.Interim // by sequence
	allotments map[quota.AllotmentNo]*allotment
	numbers    []quota.AllotmentNo // in order
	cursor     int64
	finished   bool
}

type allotment struct {
	quota.AllotmentRow
	notAfter int64
	shrinks  int64
}

// New makes an empty database whose clock stands at now.
func New(now int64) *DB {
	db := &DB{Now: now,
		accounts: make(map[string]*account), pots: make(map[quota.PotRef]*quota.Pot),
		debts: make(map[string]int64), spent: make(map[quota.PotRef]int64),
		incarnations: make(map[string]*incarnation), lanes: make(map[quota.LaneID]*lane),
		claimed: make(map[string]int64)}
	db.Oracle = newOracle(db)
	return db
}

// do runs one operation through the faults. apply changes nothing if it fails.
func (db *DB) do(op Op, apply func() error) error {
	fault, delay := None, 0
	if db.Inject != nil {
		fault, delay = db.Inject(op)
	}
	switch fault {
	case Failed:
		return &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true}
	case Lost:
		_ = apply()
	case Zombie:
		db.zombies = append(db.zombies, zombie{due: db.steps + delay, apply: apply})
	case Vanished:
	default:
		return apply()
	}
	return quota.Errorf(quota.ReasonOutcomeUnknown, "the connection broke")
}

// Step lets one step pass: zombies that are due land.
func (db *DB) Step() {
	db.steps++
	db.land(func(z zombie) bool { return z.due <= db.steps })
}

// Land lets every zombie land now.
func (db *DB) Land() { db.land(func(zombie) bool { return true }) }

func (db *DB) land(due func(zombie) bool) {
	all := db.zombies
	db.zombies = nil
	for _, z := range all {
		if due(z) {
			_ = z.apply() // nobody listens
		} else {
			db.zombies = append(db.zombies, z)
		}
	}
}

// violated is the error of a write that breaks the books; the oracle hears of it even if
// nobody else does.
func (db *DB) violated(format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	db.Oracle.violate(what)
	return quota.Errorf(quota.ReasonInvariantViolated, what)
}

func fenced(message string) error {
	return &quota.Error{Reason: quota.ReasonFenced, Message: message, NotApplied: true}
}

func (db *DB) bump(kind quota.ChangeKind, id string) int64 {
	db.revision++
	db.changes = append(db.changes, quota.Change{Revision: db.revision, Kind: kind, ID: id})
	return db.revision
}

// addPot makes a pot.
func (db *DB) addPot(p quota.Pot) *quota.Pot {
	db.pots[quota.PotRef{Payer: p.Payer, Pot: p.ID}] = &p
	db.potOrder = append(db.potOrder, &p)
	return &p
}

// openGrants are those a draw or claim at now may take from, in burn order.
func (db *DB) openGrants(payer string, now int64) []*quota.Pot {
	var out []*quota.Pot
	for _, p := range db.potOrder {
		if p.Payer == payer && p.Kind == quota.PotWallet && !p.Voided && p.Start <= now && now < p.End {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *quota.Pot) int {
		if a.Before(b) {
			return -1
		}
		return 1
	})
	return out
}

// payDebt pays what the payer owes from at most amount of what grant p has available (R50).
func (db *DB) payDebt(p *quota.Pot, amount int64) {
	paid := min(db.debts[p.Payer], amount)
	if paid == 0 {
		return
	}
	db.debts[p.Payer] -= paid
	db.count(p, paid)
	p.Available -= paid
	p.Direct += paid
}

// count adds to the projector's figure of a pot.
func (db *DB) count(p *quota.Pot, amount int64) {
	ref := quota.PotRef{Payer: p.Payer, Pot: p.ID}
	set(&db.spent, ref, db.spent[ref]+amount)
}

// comeHome gives amount, which is escrowed, back to its pot (R14, R50).
func (db *DB) comeHome(p *quota.Pot, amount, now int64) {
	p.Escrowed -= amount
	switch {
	case p.Kind != quota.PotWallet:
	case p.Voided:
		p.Refunded += amount
	case p.End <= now:
		p.Expired += amount
	default:
		p.Available += amount
		db.payDebt(p, amount)
	}
}
