package quotatest

import (
	"fmt"
	"slices"
	"sort"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// Issued is a token as the oracle remembers it, with all that was said about it since. The
// token is the newest of the reservation.
type Issued struct {
	token.Token
	Key     quota.EntryKey
	Held    map[quota.AllotmentNo]int64
	Older   []token.Token // generations before it: some client may have missed the newest
	Granted []int64       // totals granted, by meter

	Released  bool  // somebody asked to release it
	Reported  int64 // the most that one report said was used, interim or final, in micros
	Floor     int64 // interim usage that was acknowledged
	Delivered bool  // somebody insisted on delivered usage (Settle.Delivered)
	no        bool  // a definite negative answer to a commit was given
	terminal  *quota.Entry
	late      *quota.Entry
	acks      []ack
}

type ack struct {
	kind    quota.SettleKind
	late    bool
	charged int64
}

// Settled reports whether a terminal entry exists.
func (i *Issued) Settled() bool { return i.terminal != nil }

// Closed reports that no settlement of the kind, unless of delivered usage, can have an effect any
// more.
func (i *Issued) Closed(k quota.SettleKind) bool {
	return i.terminal != nil && (k != quota.Committed || i.terminal.Kind != quota.Expired || i.late != nil)
}

// checkInterim asserts R23: nobody is charged for two reports of one usage; and at rest, what was
// acknowledged of a reservation that expired is charged.
func (o *Oracle) checkInterim(rest bool) {
	for _, i := range o.order {
		var charged int64
		ended := i.terminal == nil && i.late != nil // a final report, though late
		for _, e := range [2]*quota.Entry{i.terminal, i.late} {
			if e != nil {
				charged += e.Charged
				ended = ended || e.Phase == quota.PhaseTerminal && e.Kind != quota.Expired
			}
		}
		if i.Reported > 0 && charged > i.Reported {
			o.Violate("R23: %v is charged %d, no report said more than %d", i.Key, charged, i.Reported)
		}
		if rest && !ended && charged < i.Floor {
			o.Violate("R23: %v is charged %d, acknowledged were %d", i.Key, charged, i.Floor)
		}
	}
}

// Answered reports whether anybody was told for certain how the reservation ended.
func (i *Issued) Answered() bool { return i.no || len(i.acks) > 0 }

// Oracle remembers promises and answers (the ghost variables of protocol §2.4) and judges
// states of the database by them. It takes no part in any decision.
type Oracle struct {
	db      *DB
	MaxHold int64 // M0
	Grace   int64 // g
	Skew    int64 // eps: by how much a node's estimate of the time may be wrong

	tokens     map[quota.EntryKey]*Issued
	order      []*Issued
	caps       map[limitKey]capSeen
	suspended  map[string]bool // accounts for which Suspend(sync) returned
	violations []string
}

type limitKey struct{ account, limit string }

// capSeen is a cap in force, and the largest there was in its history.
type capSeen struct{ now, most int64 }

func newOracle(db *DB) *Oracle {
	return &Oracle{db: db, tokens: make(map[quota.EntryKey]*Issued), caps: make(map[limitKey]capSeen),
		suspended: make(map[string]bool)}
}

// violate notes a violation found while something happened.
func (o *Oracle) violate(what string) { o.violations = append(o.violations, what) }

// Violate notes a violation that the test itself found.
func (o *Oracle) Violate(format string, args ...any) { o.violate(fmt.Sprintf(format, args...)) }

// Tokens lists what was issued, oldest first.
func (o *Oracle) Tokens() []*Issued { return o.order }

// Token finds what was issued under a key; nil if nothing was.
func (o *Oracle) Token(k quota.EntryKey) *Issued { return o.tokens[k] }

// Issue notes a token issued now by an incarnation, and the totals granted by meter.
func (o *Oracle) Issue(incarnation string, t *token.Token, granted []int64) {
	i := &Issued{Token: copyToken(t), Key: quota.EntryKey{Lane: quota.LaneID(t.Lane), Sequence: t.Sequence},
		Held: heldBy(t), Granted: slices.Clone(granted)}
	if o.tokens[i.Key] != nil {
		o.Violate("I5: reservation %v was issued twice", i.Key)
	}
	set(&o.tokens, i.Key, i)
	o.order = append(o.order, i)
	for no := range i.Held {
		if a := o.db.lanes[i.Key.Lane].allotments[no]; a != nil && t.IssuedAt >= a.notAfter {
			o.Violate("R34: %v was issued from allotment %d, whose time is over", i.Key, no)
		}
	}
	o.issued(incarnation, t)
}

// Extend notes a further generation of a token (R35): granted are its totals, of which asked
// were wanted. What was promised before is promised still.
func (o *Oracle) Extend(incarnation string, t *token.Token, asked, granted []int64) {
	i := o.tokens[quota.EntryKey{Lane: quota.LaneID(t.Lane), Sequence: t.Sequence}]
	held := heldBy(t)
	for no, amount := range i.Held {
		if held[no] < amount {
			o.Violate("I3: an extension of %v holds %d on allotment %d, before it were %d", i.Key, held[no], no, amount)
		}
	}
	if t.Expires < i.Expires {
		o.Violate("I8: an extension of %v took time off it", i.Key)
	}
	for m := range granted {
		before := int64(0)
		if m < len(i.Granted) {
			before = i.Granted[m]
		}
		if granted[m] < before || granted[m] > max(before, asked[m]) {
			o.Violate("R35: %v was granted %d of meter %d, asked for a total of %d and having %d", i.Key, granted[m], m, asked[m], before)
		}
	}
	i.Older = append(i.Older, i.Token)
	i.Token, i.Held, i.Granted = copyToken(t), held, slices.Clone(granted)
	o.issued(incarnation, t)
}

// issued asserts what holds whenever a token is handed out.
func (o *Oracle) issued(incarnation string, t *token.Token) {
	lane := quota.LaneID(t.Lane)
	inc := o.db.incarnations[incarnation]
	if inc.state != quota.IncarnationLive || o.db.Now > inc.issueUntil {
		o.Violate("I6: a token was issued after the lease had ended in the database")
	}
	if t.Expires > inc.issueUntil+o.MaxHold+o.Skew {
		o.Violate("I6: a token promises more than the lease covers")
	}
	if o.db.lanes[lane].state != quota.LaneOpen {
		o.Violate("I6: a token was issued from a lane that is not open")
	}
	for _, id := range o.db.accounts[t.Account].chain {
		if o.suspended[id] {
			o.Violate("I13: a token was issued for %q, which had been suspended", id)
		}
	}
}

// heldBy sums what a token says is held, by allotment.
func heldBy(t *token.Token) map[quota.AllotmentNo]int64 {
	held := make(map[quota.AllotmentNo]int64)
	for _, s := range t.Slots {
		for _, p := range s.Parts {
			held[quota.AllotmentNo(p.Allotment)] += p.Amount
		}
	}
	return held
}

func copyToken(t *token.Token) token.Token {
	c := *t
	c.Slots = append([]token.Slot(nil), t.Slots...)
	for i := range c.Slots {
		c.Slots[i].Parts = append([]token.Part(nil), t.Slots[i].Parts...)
	}
	return c
}

// Suspended notes that Suspend(sync) returned; Resumed that the account may be used again.
func (o *Oracle) Suspended(account string) { set(&o.suspended, account, true) }

// Resumed see Suspended.
func (o *Oracle) Resumed(account string) { delete(o.suspended, account) }

// Acknowledged notes that a settlement was answered with what stands in entry. received is
// when the settler took the call in.
func (o *Oracle) Acknowledged(k quota.EntryKey, entry *quota.Entry) {
	i := o.tokens[k]
	late := entry.Phase == quota.PhaseLate
	i.acks = append(i.acks, ack{kind: entry.Kind, late: late, charged: entry.Charged})
	if late && !i.Released && o.db.Now <= i.Expires {
		o.Violate("I8: a commit answered before the promised time was LATE")
	}
}

// Refused notes a definite negative answer to a commit.
func (o *Oracle) Refused(k quota.EntryKey) {
	i := o.tokens[k]
	i.no = true
	if !i.Released && o.db.Now <= i.Expires {
		o.Violate("I8: a commit of %v was refused before its promised time", k)
	}
}

// capped notes a cap in force.
func (o *Oracle) capped(b *quota.Budget) {
	k := limitKey{b.Account, b.ID}
	set(&o.caps, k, capSeen{now: b.Cap, most: max(o.caps[k].most, b.Cap)})
}

// drew is told of every draw on a window that is carried out.
func (o *Oracle) drew(w *quota.WindowPot) {
	if c := o.caps[limitKey{w.Account, w.Limit}]; w.Cap != c.now {
		o.Violate("I12: a draw was made with a cap of %d on %s/%s, in force is %d", w.Cap, w.Account, w.Limit, c.now)
	}
}

// fenced is told before a lane becomes CLOSING.
func (o *Oracle) fenced(l *lane) {
	for _, i := range o.order {
		if i.Key.Lane == l.id && i.terminal == nil && o.db.Now < i.Expires+o.Grace-o.Skew {
			o.Violate("I7: lane %d was closed while %v was promised", l.id, i.Key)
		}
	}
}

// Check returns what is broken in the present state, sorted; nil if nothing is.
func (o *Oracle) Check() []string {
	o.checkPots()
	o.checkAllotments()
	o.checkTokens()
	o.checkClaims()
	o.checkInterim(false)
	out := o.violations
	o.violations = nil
	sort.Strings(out)
	return out
}

// checkPots asserts conservation: each pot against itself and against its allotments.
func (o *Oracle) checkPots() {
	type sums struct{ open, spent int64 }
	of := make(map[quota.PotRef]sums, len(o.db.potOrder))
	for _, l := range o.db.laneOrder {
		for _, a := range l.allotments {
			s := of[a.PotRef]
			if a.Closed {
				s.spent += a.Spent
			} else {
				s.open += a.Amount
			}
			of[a.PotRef] = s
		}
	}
	for _, p := range o.db.potOrder {
		s := of[quota.PotRef{Payer: p.Payer, Pot: p.ID}]
		if p.Escrowed != s.open || p.Spent != s.spent {
			o.Violate("I1: pot %s has escrowed %d and spent %d, its allotments %d and %d", p.ID, p.Escrowed, p.Spent, s.open, s.spent)
		}
		if min(p.Available, p.Escrowed, p.Spent, p.Expired, p.Refunded, p.Direct) < 0 {
			o.Violate("I1: pot %s has a negative part", p.ID)
		}
		if p.Kind == quota.PotWallet && !p.Balanced() {
			o.Violate("I1: grant %s does not balance", p.ID)
		}
	}
}

// checkAllotments asserts that no allotment settles, or has promised, more than its amount,
// and that the windows' caps hold of what was promised and settled.
func (o *Oracle) checkAllotments() {
	charged, promised := make(map[quota.AllotmentRef]int64), make(map[quota.AllotmentRef]int64)
	for _, i := range o.order {
		if i.terminal != nil {
			for _, p := range i.terminal.Parts {
				charged[quota.AllotmentRef{Lane: i.Key.Lane, Number: quota.AllotmentNo(p.Allotment)}] += p.Amount
			}
		} else if o.db.lanes[i.Key.Lane].state == quota.LaneOpen {
			for no, amount := range i.Held {
				promised[quota.AllotmentRef{Lane: i.Key.Lane, Number: no}] += amount
			}
		}
	}
	used := make(map[quota.PotRef]int64)
	for _, l := range o.db.laneOrder {
		for no, a := range l.allotments {
			c, p := charged[a.AllotmentRef], promised[a.AllotmentRef]
			used[a.PotRef] += c + p
			delete(charged, a.AllotmentRef)
			delete(promised, a.AllotmentRef)
			if c > a.Amount || a.Closed && c != a.Spent {
				o.Violate("I2: allotment %d of %d: entries charge %d, spent is %d", no, a.Amount, c, a.Spent)
			}
			if c+p > a.Amount {
				o.Violate("I4: allotment %d of %d: %d charged and %d promised", no, a.Amount, c, p)
			}
		}
	}
	if len(charged)+len(promised) > 0 {
		o.Violate("I2: an allotment that does not exist is charged or promised")
	}
	for _, p := range o.db.potOrder {
		most := o.caps[limitKey{p.Account, p.Limit}].most
		if p.Kind != quota.PotWallet && max(used[quota.PotRef{Payer: p.Payer, Pot: p.ID}], p.Escrowed+p.Spent) > most {
			o.Violate("I12: window %s holds and has spent more than its cap of %d", p.ID, most)
		}
	}
}

// checkTokens asserts what was answered about each reservation.
func (o *Oracle) checkTokens() {
	for _, i := range o.order {
		l := o.db.lanes[i.Key.Lane]
		for phase, mine := range [2]*quota.Entry{i.terminal, i.late} {
			e := l.entry(i.Key.Sequence, uint8(phase))
			if (e == nil) != (mine == nil) || e != nil && (e.Kind != mine.Kind || e.Charged != mine.Charged) {
				o.Violate("I5: the entry of %v changed or vanished", i.Key)
			}
		}
		committed := i.terminal != nil && i.terminal.Kind == quota.Committed
		if committed && i.late != nil {
			o.Violate("I5: %v is charged twice", i.Key)
		}
		if i.no && !i.Delivered && (committed || i.late != nil) {
			o.Violate("I11: %v was said not to be committed, and is", i.Key)
		}
		for _, a := range i.acks {
			e := i.terminal
			if a.late {
				e = i.late
			}
			if e == nil || e.Kind != a.kind || e.Charged != a.charged {
				o.Violate("I10: the acknowledged settlement of %v is lost", i.Key)
			}
		}
	}
}

// checkClaims asserts that what was projected as uncovered was debited exactly once (R25).
func (o *Oracle) checkClaims() {
	uncovered, windows := make(map[string]int64), int64(0)
	for _, l := range o.db.laneOrder {
		for no := int64(1); no <= l.cursor; no++ {
			for i := range l.batches[no] {
				r := &l.batches[no][i]
				for _, s := range r.Slots {
					if s.Kind == quota.PotWallet {
						uncovered[r.Payer] += s.Uncovered
					} else {
						windows += s.Uncovered
					}
				}
			}
		}
	}
	direct := make(map[string]int64)
	for _, p := range o.db.potOrder {
		if p.Kind == quota.PotWallet {
			direct[p.Payer] += p.Direct
		} else {
			windows -= p.Direct
		}
	}
	for _, p := range o.db.potOrder {
		if u, d := uncovered[p.Payer], direct[p.Payer]+o.db.debts[p.Payer]; u != d {
			o.Violate("I5: %d were projected as uncovered for %s, debited are %d", u, p.Payer, d)
		}
	}
	if windows != 0 {
		o.Violate("I5: windows were debited otherwise than projected, by %d", -windows)
	}
}

// CheckQuiet asserts I15 once clients and faults have stopped and everything had time to come
// home: nothing is escrowed, and what is spent or debited is what the projector counted.
func (o *Oracle) CheckQuiet() []string {
	for _, p := range o.db.potOrder {
		if p.Escrowed != 0 {
			o.Violate("I15: %d of pot %s did not come home", p.Escrowed, p.ID)
		}
		if counted := o.db.spent[quota.PotRef{Payer: p.Payer, Pot: p.ID}]; counted != p.Spent+p.Direct {
			o.Violate("I15: pot %s has spent %d and debited %d, the projector counted %d", p.ID, p.Spent, p.Direct, counted)
		}
	}
	o.checkInterim(true)
	events := make(map[quota.EntryKey]int)
	for i := range o.db.events {
		events[o.db.events[i].Key]++
	}
	for _, i := range o.order {
		for _, e := range [2]*quota.Entry{i.terminal, i.late} {
			if e == nil {
				continue
			}
			want := 0
			if e.Kind == quota.Committed || e.Used != nil {
				want = 1
			}
			if events[e.EntryKey] != want {
				o.Violate("I15: %v has %d usage events", e.EntryKey, events[e.EntryKey])
			}
		}
	}
	return o.Check()
}

// Quiet reports whether nothing is escrowed and everything is projected.
func (o *Oracle) Quiet() bool {
	for _, p := range o.db.potOrder {
		if p.Escrowed != 0 {
			return false
		}
	}
	for _, l := range o.db.laneOrder {
		if _, more := l.batches[l.cursor+1]; more {
			return false
		}
	}
	return true
}

// Use sums what tokens without a terminal entry promise of each allotment of a lane, and what
// entries charge to it.
func (o *Oracle) Use(lane quota.LaneID) map[quota.AllotmentNo]int64 {
	use := make(map[quota.AllotmentNo]int64)
	for _, i := range o.order {
		switch {
		case i.Key.Lane != lane:
		case i.terminal != nil:
			for _, p := range i.terminal.Parts {
				use[quota.AllotmentNo(p.Allotment)] += p.Amount
			}
		default:
			for no, amount := range i.Held {
				use[no] += amount
			}
		}
	}
	return use
}
