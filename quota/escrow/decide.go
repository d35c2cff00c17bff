package escrow

import (
	"slices"
	"sync/atomic"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/token"
)

// Claim is one pot kind that a candidate has to hold. Claims stand in decision order: quotas,
// budgets from the outermost level, the wallet last (design §4.8).
type Claim struct {
	Kind   quota.PotKind
	Window quota.WindowPot // unless the wallet; Cap is Never if the limit is soft
	Label  string          // key of the budget's selector, "" if it has none
	Meter  int             // index of the meter counted; -1 = credits
	Limit  int64           // the limit as written, soft or hard; 0 = none to warn about
	WarnAt int64           // warn when more than this is used; 0 = never
}

// unit names what the claim counts.
func (c *Claim) unit(meters []string) string {
	if c.Meter < 0 {
		return quota.UnitCredits
	}
	return meters[c.Meter]
}

// Candidate is a feature the request would take, priced.
type Candidate struct {
	Feature      string
	PriceVersion int64
	Meters       []string
	Rates        []pricing.Rate
	Want, Min    []int64
	Flexible     []bool
	Limits       []Limit // rates, then concurrency
	Claims       []Claim
}

// amount is what quantities q ask of claim c.
func (k *Candidate) amount(c *Claim, q []int64) (int64, bool) {
	if c.Meter >= 0 {
		return q[c.Meter], true
	}
	return pricing.Total(k.Rates, q)
}

// asked is what quantities ask of a candidate's claims: those on credits all ask the same.
type asked struct {
	q       []int64
	credits int64
	counted bool // credits can be said
}

func (k *Candidate) asked(q []int64) asked {
	credits, ok := pricing.Total(k.Rates, q)
	return asked{q, credits, ok}
}

// of is what they ask of claim c.
func (a *asked) of(c *Claim) (int64, bool) {
	if c.Meter >= 0 {
		return a.q[c.Meter], true
	}
	return a.credits, a.counted
}

// Request is a reservation to be decided: everything the engine needs of accounts, plans and
// prices is in it.
type Request struct {
	Account, Payer, Principal string
	Epochs                    []quota.AccountEpoch
	HasKey                    bool
	Key, Content              KeyHash
	TTL                       int64 // ns, at most MaxTTL
	Labels                    label.Set
	Candidates                []Candidate
	Asked                     int           // meters the request names: the first of every candidate's
	Counter                   *atomic.Int64 // live reservations of the principal; may be nil
	// Settle for what is here: draws were tried often enough.
	Final bool
}

// Status is what became of a request.
type Status uint8

// Statuses of Reserve.
const (
	Granted   Status = iota + 1
	Replayed         // Replay gives the answer as it was
	KeyReused        // the key stands for another request
	Denied
	Short      // draw first: BeginDraw, then Reserve again
	Overloaded // a bound of R53
)

// Result is what Reserve found. It is reused; slices in it are valid until its next use.
type Result struct {
	Candidate int
	Quantity  []int64 // granted per meter of the candidate
	Held      int64   // micros
	Partial   bool
	Exhausted bool
	Token     token.Token // to be encoded
	Warnings  []quota.Warning
	Remaining []quota.Remaining
	Denial    quota.Denial

	payer   *payer
	lacking []lack
	fits    []fit
	try     []int64
	limits  []*limiter // of the candidate; nil = nothing was taken of it yet
	have    []int64    // what an extended reservation has taken of each limit before
	want    []int64    // what the rates allow of what is wanted
	allowed []int64
	next    next
}

type lack struct {
	pool   *pool
	amount int64
	least  int64 // what would do
}

// fit is what was found for one claim of the candidate under decision.
type fit struct {
	pool *pool
	// usable is what the reservation can have of it in all: what it holds, and what is free.
	usable int64
	// undrawn is what the pot had when last seen, beyond usable: a pot that cannot serve a
	// request is not drawn for it, but counts in what the denial says.
	undrawn int64
	need    int64 // to be taken, beyond what is held
	holding       // of an extension; nothing otherwise
}

// begin empties the result, for a decision about the payer's pots.
func (out *Result) begin(p *payer) {
	out.payer = p
	out.Warnings, out.Remaining, out.lacking = out.Warnings[:0], out.Remaining[:0], out.lacking[:0]
	out.Denial = quota.Denial{}
}

// Reserve decides over all pots of the request in one step, all or none (R18, R24). Nothing
// is drawn: Short says what is lacking.
func (s *Shard) Reserve(now int64, r *Request, out *Result) Status {
	if r.HasKey {
		if known, ok := s.answers.find(r.Key); ok {
			if known.content() != r.Content {
				return KeyReused
			}
			return Replayed
		}
	}
	if s.cfg.Room.full(r.HasKey) {
		return Overloaded // R53
	}
	out.begin(s.payerOf(r.Payer))
	out.payer.epochs = r.Epochs
	for i := range r.Candidates {
		st := s.try(now, r, i, false, out)
		if st != Denied {
			return st
		}
	}
	return Denied
}

// Quote decides as Reserve would, on what is free here plus what the pots had when last seen;
// it holds, draws and creates nothing (R39).
func (s *Shard) Quote(now int64, r *Request, out *Result) Status {
	out.begin(s.payerOf(r.Payer))
	for i := range r.Candidates {
		if s.try(now, r, i, true, out) == Granted {
			return Granted
		}
	}
	return Denied
}

// try decides about one candidate.
func (s *Shard) try(now int64, r *Request, index int, quote bool, out *Result) Status {
	k := &r.Candidates[index]
	out.Candidate = index
	s.measure(now, k, quote, out)
	if st := s.within(now, k, nil, quote, out); st != Granted {
		return st
	}
	if !quote && !r.Final && s.lacks(now, k, out) {
		return Short
	}
	failed := s.shrink(k, out)
	if failed >= 0 {
		if out.Denial.Reason == 0 { // the reason of the first choice stands
			s.deny(now, k, failed, out)
			s.warn(k, out)
		}
		return Denied
	}
	out.Warnings = out.Warnings[:0]
	out.Denial = quota.Denial{}
	s.remark(now, k, out)
	if !quote {
		s.hold(now, r, k, out)
	}
	return Granted
}

// measure looks up the pools of a candidate and what they can give.
func (s *Shard) measure(now int64, k *Candidate, quote bool, out *Result) {
	out.fits = out.fits[:0]
	parts := max(quota.MaxParts/len(k.Claims), 1)
	p := out.payer.wallet
	for i := range k.Claims {
		p = s.poolOf(p, &k.Claims[i])
		usable := p.usable(now, parts)
		f := fit{pool: p, usable: usable}
		if quote {
			f.usable += p.left()
		} else {
			p.lastUse = now
			f.undrawn = p.left()
		}
		out.fits = append(out.fits, f)
	}
}

// lacks notes which pools have less than is wanted and may have more to give.
func (s *Shard) lacks(now int64, k *Candidate, out *Result) bool {
	out.lacking = out.lacking[:0]
	wanted := k.asked(out.want)
	for i := range out.fits {
		f := &out.fits[i]
		need, ok := wanted.of(&k.Claims[i])
		if !ok {
			need = quota.Never
		}
		if need <= f.usable || now < f.pool.dryUntil {
			continue
		}
		least := max(k.least(&k.Claims[i], out)-f.usable, 0)
		if f.pool.seen.at != 0 && now-f.pool.seen.at < s.cfg.DryFor && least > f.pool.left() {
			continue // the pot was just seen to have less than would do
		}
		out.lacking = append(out.lacking, lack{f.pool, need - f.usable, least})
	}
	return len(out.lacking) > 0
}

// least is what the request's minimums ask of claim c; Never if that cannot be counted.
func (k *Candidate) least(c *Claim, out *Result) int64 {
	floor := out.try[:0]
	for m := range k.Want {
		if k.Flexible[m] {
			floor = append(floor, k.Min[m])
		} else {
			floor = append(floor, k.Want[m])
		}
	}
	out.try = floor
	if need, ok := k.amount(c, floor); ok {
		return need
	}
	return quota.Never
}

// shrink finds the largest quantities that all pools can pay (R42): out.Quantity. It returns
// the first claim whose minimum does not fit, or -1.
func (s *Shard) shrink(k *Candidate, out *Result) int {
	out.Quantity = append(out.Quantity[:0], out.want...)
	out.try = append(out.try[:0], out.want...)
	out.Partial = !slices.Equal(out.want, k.Want)
	q := out.Quantity
	wanted := k.asked(q)
	for i := range out.fits {
		c, f := &k.Claims[i], &out.fits[i]
		need, ok := wanted.of(c)
		if ok && need <= f.usable {
			continue
		}
		out.Partial = true
		if c.Meter >= 0 {
			if !k.Flexible[c.Meter] || k.Min[c.Meter] > f.usable {
				return i
			}
			q[c.Meter] = f.usable
			wanted = k.asked(q)
			continue
		}
		if !pricing.Fit(k.Rates, q, k.Min, k.Flexible, f.usable, out.try) {
			return i
		}
		copy(q, out.try)
		wanted = k.asked(q)
	}
	for i := range out.fits {
		f := &out.fits[i]
		need, _ := wanted.of(&k.Claims[i])
		f.need = max(need-f.held, 0)
	}
	return -1
}

// deny says why claim i failed (R51).
func (s *Shard) deny(now int64, k *Candidate, i int, out *Result) {
	c, f := &k.Claims[i], &out.fits[i]
	need := k.least(c, out)
	d := &out.Denial
	d.Reason = quota.DeniedCredits
	switch c.Kind {
	case quota.PotBudget:
		d.Reason = quota.DeniedBudget
	case quota.PotQuota:
		d.Reason = quota.DeniedQuota
	}
	d.Level = level(c, k, out.payer.id)
	d.Shortfall = max(need-f.usable-f.undrawn, 0)
	unspent := f.pool.out() + f.pool.heldAll() + f.pool.freeAll() + f.pool.left()
	d.Transient = unspent >= need-f.past
	d.Affordable = affordable(k, c, out.want, f.usable+f.undrawn)
	if !d.Transient && c.Kind != quota.PotWallet && c.Window.End != quota.Never {
		d.RetryIn = durationUntil(now, c.Window.End)
	}
}

// affordable is what the flexible meters could have, their minimum put aside.
func affordable(k *Candidate, c *Claim, want []int64, usable int64) []quota.Quantity {
	if usable <= 0 {
		return nil
	}
	none, fits := make([]int64, len(want)), make([]int64, len(want))
	if c.Meter >= 0 {
		if !k.Flexible[c.Meter] {
			return nil
		}
		return []quota.Quantity{{Meter: k.Meters[c.Meter], Quantity: usable}}
	}
	if !pricing.Fit(k.Rates, want, none, k.Flexible, usable, fits) {
		return nil
	}
	var out []quota.Quantity
	for m := range fits {
		if k.Flexible[m] && fits[m] > 0 {
			out = append(out, quota.Quantity{Meter: k.Meters[m], Quantity: fits[m]})
		}
	}
	return out
}

func level(c *Claim, k *Candidate, payer string) quota.Level {
	if c.Kind == quota.PotWallet {
		return quota.Level{Kind: quota.PotWallet, Account: payer}
	}
	return quota.Level{Kind: c.Kind, Account: c.Window.Account, Limit: c.Window.Limit, LabelKey: c.Label,
		Selector: c.Window.Selector, Unit: c.unit(k.Meters)}
}

// warn collects the soft-limit warnings of a candidate, whatever is decided (design §4.8).
func (s *Shard) warn(k *Candidate, out *Result) {
	for i := range out.fits {
		c, f := &k.Claims[i], &out.fits[i]
		if c.WarnAt == 0 {
			continue
		}
		if used := f.pool.seen.taken - f.pool.freeAll() + f.need; used > c.WarnAt {
			out.Warnings = append(out.Warnings, quota.Warning{Level: level(c, k, out.payer.id), Used: used, Cap: c.Limit})
		}
	}
}

// remark notes what the wallet is asked for, what is left of limiting pots as far as this
// node has looked at them, and whether the grant is the last one (R42).
func (s *Shard) remark(now int64, k *Candidate, out *Result) {
	out.Exhausted, out.Held = false, 0
	wanted := k.asked(out.want)
	for i := range out.fits {
		c, f := &k.Claims[i], &out.fits[i]
		if c.Kind == quota.PotWallet {
			out.Held = f.held + f.need
		}
		want, ok := wanted.of(c)
		limiting := !ok || want > f.usable
		if limiting && f.pool.left() == 0 && f.pool.out() == 0 && f.pool.usable(now, -1) == f.usable-f.held { // else parts were short (R24)
			out.Exhausted = true
		}
		if (limiting || c.Kind == quota.PotWallet) && (f.pool.seen.at != 0 || len(f.pool.allotments) > 0) {
			out.Remaining = append(out.Remaining, quota.Remaining{Level: level(c, k, out.payer.id), Amount: f.pool.freeAll() - f.need + f.pool.left()})
		}
	}
	s.warn(k, out)
}

// hold takes the amounts and makes the reservation. After this point nothing can fail.
func (s *Shard) hold(now int64, r *Request, k *Candidate, out *Result) {
	h := s.newHold(len(out.fits), r.Asked)
	s.sequence++
	h.sequence, h.nonce = s.sequence<<shardBits|s.index, s.random.Uint64()
	h.reserved, h.expires = now, now+r.TTL
	h.counter = r.Counter
	h.who = out.payer.identityOf(identity{r.Account, r.Payer, r.Principal, k.Feature, k.PriceVersion})
	h.names, h.granted = s.namesOf(out.payer, k.Meters[:r.Asked]), append(h.granted, out.Quantity[:r.Asked]...)
	for i := range out.fits {
		f, c := &out.fits[i], &k.Claims[i]
		n := f.pool.take(now, f.need, h)
		h.slots = append(h.slots, slot{pool: f.pool, unit: c.unit(k.Meters), parts: n})
		s.noteTaken(now, out.payer, f)
	}
	s.takeLimits(now, k, h, out)
	if h.counter != nil {
		h.counter.Add(1)
	}
	s.holds[h.sequence] = h
	s.cfg.Room.holds.Add(1)
	add(&s.expiry, h.expires+s.cfg.Grace, h.sequence)
	s.fill(h, h.slots, h.parts, &out.Token)
	out.Token.Labels = r.Labels
}

// noteTaken counts what was taken of a pool, and asks for more before anyone has to wait.
func (s *Shard) noteTaken(now int64, p *payer, f *fit) {
	f.pool.note(now, f.need)
	if f.pool.freeAll() < f.pool.low && !p.drawing && now >= f.pool.dryUntil {
		s.askAhead(p, f.pool)
	}
}

// take holds need on the pool's allotments, oldest first, and returns the number of parts.
func (p *pool) take(now, need int64, h *hold) (n uint16) {
	for _, a := range p.allotments {
		if need == 0 {
			break
		}
		if a.free == 0 || now >= a.notAfter {
			continue
		}
		x := min(need, a.free)
		a.free -= x
		a.held += x
		need -= x
		h.parts = append(h.parts, part{a: a, amount: x})
		n++
	}
	check(need == 0, "I4: a hold was decided on more than is free")
	return n
}
