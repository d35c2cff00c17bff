package escrow

import (
	"fmt"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/quotatest"
)

// actions is all that may happen, by name. Each does nothing if it does not apply.
func (w *world) actions() map[string]func() {
	each := func(do func(*proc)) func() {
		return func() {
			if p := w.anyProc(); p != nil {
				do(p)
			}
		}
	}
	engines := func(do func(*engine)) func() {
		return each(func(p *proc) { do(p.engines[w.pick(len(p.engines), "engine")]) })
	}
	return map[string]func(){
		"reserve":     each((*proc).reserve),
		"reserve two": each(func(p *proc) { p.reserve(); p.reserve() }),
		"extend":      each((*proc).extend),
		"extend two":  each(func(p *proc) { p.extend(); p.extend() }),
		"interim":     each((*proc).interim),
		"commit":      w.commit,
		"commit at":   w.commit,
		"release":     w.release,
		"time":        w.pass,
		"time flies":  func() { w.pass(); w.pass() },
		"time runs":   func() { w.pass(); w.pass(); w.pass() },
		"time goes":   w.pass,
		"tick":        engines((*engine).tick),
		"draw":        engines((*engine).sendDraws),
		"return":      engines(func(e *engine) { e.giveBack(w.pick(2, "all") == 1) }),
		"flush":       engines(func(e *engine) { e.flushInterims(); e.flush() }),
		"guest flush": engines((*engine).flushGuest),
		"poll":        each((*proc).poll),
		"renew":       each(func(p *proc) { p.current().renew() }),
		"woken up":    each(func(p *proc) { p.current().renew(); p.reserve(); p.reserve() }),
		"project":     each((*proc).project),
		"reap":        each((*proc).reap),
		"pause":       each((*proc).pause),
		"crash":       each((*proc).crash),
		"drain":       each((*proc).drain),
		"clock jump":  each(func(p *proc) { p.wall += int64(w.pick(7, "jump")-3) * 5 * second }),
		"suspend":     w.suspend,
		"suspend two": func() { w.suspend(); w.suspend() },
		"policy":      w.policy,
		"plan":        func() { w.plan = w.pick(3, "plan") },
		"grant":       w.credits,
		"collect":     func() { w.db.Collect(w.db.Now - int64(w.pick(3, "age"))*10*second) },
	}
}

// anyProc is a process that is awake; nil if the one chosen is not.
func (w *world) anyProc() *proc {
	if p := w.procs[w.pick(len(w.procs), "process")]; p.awake() {
		return p
	}
	return nil
}

// pass lets time pass, and everybody do what that asks for.
func (w *world) pass() {
	steps := []int64{second / 100, second / 10, second / 2, second, 2 * second, 4 * second}
	w.db.Now += steps[w.pick(len(steps), "time")]
	for _, p := range w.procs {
		if p.awake() {
			p.background(true)
		}
	}
}

// reserve asks for a reservation, as the authority does: after a draw once more.
func (p *proc) reserve() {
	w := p.w
	accounts := []string{"org", "team", "team", "solo"}
	account := accounts[w.pick(len(accounts), "account")]
	want, low := int64(w.pick(40, "tokens")), int64(w.pick(10, "least"))
	flexible, ttl := w.pick(2, "flexible") == 1, second*int64(1+w.pick(int(maxHold/second), "ttl"))
	features := [][]string{{"large"}, {"small"}, {"large", "small"}}[w.pick(3, "features")]
	for try := range 3 {
		e := p.current()
		if e.lost || !e.lease.MayIssue(p.instant()) {
			return
		}
		profile := p.profiles[account]
		if profile == nil {
			profile = w.db.Profile(account)
			p.profiles[account] = profile
		}
		if _, suspended := profile.Suspended(); suspended {
			return
		}
		r := request(e.now(), profile, features, want, min(low, want), flexible)
		r.TTL, r.Final = ttl, try == 2
		w.limit(r)
		if !e.decide(r) {
			return
		}
	}
}

// request resolves what is asked: claims in decision order.
func request(now int64, profile *quota.Profile, features []string, want, low int64, flexible bool) *Request {
	r := &Request{Account: profile.Account().ID, Payer: profile.Payer().ID, Principal: "someone", Epochs: profile.Epochs(), Asked: 1}
	for _, f := range features {
		rate := pricing.Rate{PriceMicros: 3, Per: 1}
		if f == "small" {
			rate = pricing.Rate{PriceMicros: 1, Per: 2}
		}
		k := Candidate{Feature: f, PriceVersion: 1, Meters: []string{"tokens", "requests"},
			Rates: []pricing.Rate{rate, {PriceMicros: 1, Per: 1}}, Want: []int64{want, 1}, Min: []int64{low, 1},
			Flexible: []bool{flexible, false}}
		for level := len(profile.Chain) - 1; level >= 0; level-- {
			for i := range profile.Budgets[level] {
				k.Claims = append(k.Claims, claimOf(now, &profile.Budgets[level][i]))
			}
		}
		k.Claims = append(k.Claims, Claim{Kind: quota.PotWallet, Meter: -1})
		r.Candidates = append(r.Candidates, k)
	}
	return r
}

func claimOf(now int64, b *quota.Budget) Claim {
	c := Claim{Kind: quota.PotBudget, Meter: -1, Limit: b.Cap}
	switch b.Unit {
	case "tokens":
		c.Meter = 0
	case "requests":
		c.Meter, c.Kind = 1, quota.PotQuota
	}
	c.Window = quota.WindowPot{Kind: c.Kind, Account: b.Account, Limit: b.ID, Unit: b.Unit, Cap: b.Cap,
		Start: now - now%windowNs, End: now - now%windowNs + windowNs}
	return c
}

// decide runs one round of a reservation; again says that a draw ended.
func (e *engine) decide(r *Request) (again bool) {
	w := e.p.w
	s := e.shards[0]
	if r.Payer == "solo" {
		s = e.shards[len(e.shards)-1]
	}
	var out Result
	now := e.now()
	before := w.levels(s, now)
	status := s.Reserve(now, r, &out)
	w.decided(s, now, r, &out, status, before)
	switch status {
	case Granted:
		w.db.Oracle.Issue(e.id, &out.Token, out.Quantity[:r.Asked])
		for d := s.BeginAhead(e.now(), e.id); d != nil; d = s.BeginAhead(e.now(), e.id) {
			e.draws = append(e.draws, &flight{shard: s, draw: d})
		}
	case Denied:
		w.checkDenial(r, &out)
	case Short:
		return e.shortOf(s, r, &out)
	}
	return false
}

// shortOf draws what a request lacks; again says that it is worth another round.
func (e *engine) shortOf(s *Shard, r *Request, out *Result) (again bool) {
	if s.Drawing(r.Payer) {
		return false // waits for the draw under way; here it gives up
	}
	d := s.BeginDraw(e.now(), e.id, out)
	if d == nil {
		return true
	}
	f := &flight{shard: s, draw: d}
	if e.p.w.pick(8, "slow draw") == 0 || e.sendDraw(f) {
		e.draws = append(e.draws, f)
		return false
	}
	return !f.failed // else the caller hears of the failure, which is no denial
}

// commit settles some token with some usage, at its owner or elsewhere.
func (w *world) commit() {
	usage := int64(w.pick(60, "usage"))
	w.client(quota.Committed, usage, w.pick(10, "delivered") == 0)
}

// release gives some token back.
func (w *world) release() { w.client(quota.Released, 0, false) }

func (w *world) client(kind quota.SettleKind, usage int64, delivered bool) {
	tokens := w.db.Oracle.Tokens()
	p := w.anyProc()
	if len(tokens) == 0 || p == nil {
		return
	}
	t := tokens[len(tokens)-1-w.pick(min(len(tokens), 12), "token")] // mostly of the newest
	if p.current().guest.Full() {
		return
	}
	x := t.Token
	if len(t.Older) > 0 && w.pick(3, "missed an answer") == 0 { // race 13
		x = t.Older[w.pick(len(t.Older), "generation")]
	}
	c := w.callOf(p, t, kind)
	c.sent, c.rec.ReservedAt, c.rec.ExpiresAt, c.rec.Delivered = x, x.IssuedAt, x.Expires, delivered
	if kind == quota.Released {
		t.Released = true
	} else {
		t.Delivered = t.Delivered || delivered
		c.price(usage)
	}
	c.settle()
}

// callOf is a call about a reservation, with the newest token.
func (w *world) callOf(p *proc, t *quotatest.Issued, kind quota.SettleKind) *call {
	return &call{p: p, token: t, sent: t.Token, rec: quota.Record{EntryKey: t.Key, Nonce: t.Nonce, Kind: kind,
		Account: t.Account, Payer: t.Payer, Principal: t.Principal, Feature: t.Feature,
		PriceVersion: t.PriceVersion, ReservedAt: t.IssuedAt, ExpiresAt: t.Expires, SettledAt: p.current().now()}}
}

// price fills in usage and lines, and notes for the oracle what was reported.
func (c *call) price(usage int64) {
	rate := pricing.Rate{PriceMicros: 3, Per: 1}
	if c.rec.Feature == "small" {
		rate = pricing.Rate{PriceMicros: 1, Per: 2}
	}
	cost, _ := rate.Cost(usage)
	c.rec.Usage = []quota.Quantity{{Meter: "tokens", Quantity: usage}, {Meter: "requests", Quantity: 1}}
	c.rec.Lines = []int64{cost, 1}
	c.rec.Digest = uint64(usage) + 1
	c.token.Reported = max(c.token.Reported, c.rec.Charged())
}

// pause stops a process for a while, sometimes with its monotonic clock (a suspended machine).
func (p *proc) pause() {
	if p.w.pick(4, "pauses") >= p.w.pauses {
		return
	}
	d := []int64{second / 10, second / 2, leaseLen, 2 * leaseLen, 4 * leaseLen}[p.w.pick(5, "pause")]
	p.paused = p.w.db.Now + d
	if p.w.pick(3, "suspended") == 0 {
		p.slept += d
	}
}

// crash ends a process; another one comes up.
func (p *proc) crash() {
	if p.w.pick(6, "dies") < p.w.deaths {
		p.die()
	}
}

func (p *proc) die() {
	p.alive = false
	p.w.replace()
}

func (w *world) replace() {
	alive := w.procs[:0:0]
	for _, p := range w.procs {
		if p.alive {
			alive = append(alive, p)
		}
	}
	w.procs = alive // what the dead left is in the database
	if len(w.procs) < 1+w.pick(3, "processes") || len(w.procs) == 0 {
		w.start()
	}
}

// drain ends a process in an orderly way (R49), if it gets that far.
func (p *proc) drain() {
	if p.w.pick(6, "dies") >= p.w.deaths {
		return
	}
	e := p.current()
	e.lease.End()
	e.lost = true
	for range 3 {
		e.sendDraws()
		e.giveBack(true)
		e.flush()
		e.flushGuest()
	}
	if len(p.engines) == 1 && len(e.draws)+len(e.returning)+e.own.Len()+e.guest.Len()+len(p.orphans) == 0 {
		promise := e.now()
		for _, s := range e.shards {
			if last := s.LastExpiry(); last != 0 && !p.w.mutant.ownPromise {
				promise = max(promise, last+grace)
			}
		}
		_ = p.w.db.Drain(p.w.ctx(), e.id, promise)
	}
	p.die()
}

// suspend suspends an account, waiting for every node, or resumes one.
func (w *world) suspend() {
	account := []string{"org", "team", "solo"}[w.pick(3, "account")]
	if w.pick(2, "resume") == 0 {
		w.waits = append(w.waits, suspension{account, w.db.SetStatus(account, quota.AccountSuspended)})
		return
	}
	w.db.SetStatus(account, quota.AccountActive)
	w.db.Oracle.Resumed(account)
	var rest []suspension
	for _, s := range w.waits {
		if s.account != account {
			rest = append(rest, s)
		}
	}
	w.waits = rest
}

// policy changes a cap.
func (w *world) policy() {
	b := []quota.Budget{{Account: "org", ID: "cap", Unit: quota.UnitCredits, Cap: 600},
		{Account: "team", ID: "tokens", Unit: "tokens", Cap: 200}, {Account: "team", ID: "plan", Unit: "requests", Cap: 40},
		{Account: "solo", ID: "new", Unit: "tokens", Cap: 100}}[w.pick(4, "budget")]
	b.Cap = b.Cap * int64(1+w.pick(8, "cap")) / 8
	w.db.PutBudget(b)
}

// credits makes a grant or voids one.
func (w *world) credits() {
	payer := []string{"org", "solo"}[w.pick(2, "payer")]
	if ids := w.db.Grants(payer); w.pick(4, "void") == 0 {
		w.db.VoidGrant(payer, ids[w.pick(len(ids), "grant")])
		return
	}
	end := quota.Never
	if w.pick(2, "expires") == 0 {
		end = w.db.Now + int64(1+w.pick(40, "expiry"))*second
	}
	w.newGrant(payer, int64(20+w.pick(200, "amount")), end)
}

// checkDenial asserts I9 of a denial for want of credits: if it is FIRM, what the payer had
// not long ago, in its pots at one moment and free on nodes at another, was less than what
// was asked at least. The moments differ because a node remembers what it saw of the pots.
func (w *world) checkDenial(r *Request, out *Result) {
	d := &out.Denial
	if d.Transient || d.Reason != quota.DeniedCredits {
		return
	}
	k := &r.Candidates[0]
	floor := append([]int64(nil), k.Want...)
	if k.Flexible[0] {
		floor[0] = k.Min[0]
	}
	need, _ := pricing.Total(k.Rates, floor)
	pots, free := w.creditOf(r.Payer)
	for _, s := range w.credit[r.Payer] {
		pots, free = min(pots, s.pots), min(free, s.free)
	}
	if pots+free >= need {
		w.db.Oracle.Violate("I9: %s was firmly denied %d, it never had less than %d", r.Payer, need, pots+free)
	}
}

// creditOf is what a payer has in its grants and free on nodes that may issue. What is out of
// a voided grant is nobody's credit any more.
func (w *world) creditOf(payer string) (pots, free int64) {
	pots = w.db.Wallet(payer, w.db.Now)
	for _, p := range w.procs {
		for _, e := range p.engines {
			for _, s := range e.shards {
				x := s.payers[payer]
				if x == nil || e.lost {
					continue
				}
				for _, a := range x.wallet.allotments {
					if w.db.Spendable(e.lane, a.number) {
						free += a.free
					}
				}
			}
		}
	}
	return pots, free
}

// observe keeps the credit figures of the last while.
func (w *world) observe() {
	const while = 20 * second // as long as a draw may be on its way
	for _, payer := range []string{"org", "solo"} {
		kept := w.credit[payer]
		for len(kept) > 0 && kept[0].at < w.db.Now-while {
			kept = kept[1:]
		}
		pots, free := w.creditOf(payer)
		w.credit[payer] = append(kept, sample{w.db.Now, pots, free})
	}
}

// checkMemory asserts I4 of every allotment in memory: its own books, and against all that
// was promised and charged of it.
func (w *world) checkMemory() {
	for _, p := range w.procs {
		for _, e := range p.engines {
			if !w.db.LaneOpen(e.lane) {
				continue
			}
			use := w.db.Oracle.Use(e.lane)
			for _, s := range e.shards {
				held := make(map[*allotment]int64)
				for _, h := range s.holds {
					all := [2][]part{h.parts}
					if h.settling != nil {
						all[1] = h.settling.beyond()
					}
					for _, parts := range all {
						for _, x := range parts {
							held[x.a] += x.amount
						}
					}
				}
				for _, a := range s.byNo {
					if bad := checkBooks(a, held[a], use[a.number]); bad != "" {
						w.db.Oracle.Violate("%s", bad)
					}
				}
			}
		}
	}
}

// checkBooks is I4 of one allotment: held is what holds have of it, use what was promised and
// charged; "" if nothing is wrong.
func checkBooks(a *allotment, held, use int64) string {
	switch {
	case !a.balanced() || a.held != held:
		return fmt.Sprintf("I4: allotment %d has %d free, %d held, %d returning and %d spent of %d; its holds are %d",
			a.number, a.free, a.held, a.returning, a.spent, a.amount, held)
	case a.free+a.returning+use > a.amount:
		return fmt.Sprintf("I4: allotment %d of %d has %d free, with %d promised and charged", a.number, a.amount, a.free+a.returning, use)
	}
	return ""
}

// step ends every action: zombies land, Suspend(sync) returns, and everything is checked.
func (w *world) step() []string {
	w.db.Now += 1000
	w.db.Step()
	var rest []suspension
	for _, s := range w.waits {
		if n, _ := w.db.Unacked(w.ctx(), s.revision); n == 0 {
			w.db.Oracle.Suspended(s.account)
		} else {
			rest = append(rest, s)
		}
	}
	w.waits = rest
	w.observe()
	w.checkMemory()
	w.checkLimits()
	return w.db.Oracle.Check()
}

// quiesce stops clients and faults and lets time pass until everything is home (I15).
func (w *world) quiesce() []string {
	w.quiet = true
	w.db.Land()
	for _, p := range w.procs {
		p.paused = 0
	}
	for range 90 {
		w.db.Now += second
		for _, p := range w.procs {
			p.background(false)
		}
		if bad := w.step(); bad != nil {
			return bad
		}
		if w.idle() && w.db.Oracle.Quiet() {
			break
		}
	}
	if !w.idle() {
		w.db.Oracle.Violate("I15: %s", w.unsettled())
	}
	w.checkLimitsQuiet()
	return w.db.Oracle.CheckQuiet()
}

// idle reports that no live process has anything left to do.
func (w *world) idle() bool { return w.unsettled() == "" }

func (w *world) unsettled() string {
	for _, p := range w.procs {
		if len(p.orphans) > 0 {
			return "settlements without a lane"
		}
		for _, e := range p.engines {
			if !e.own.Closed() && e.own.Len() > 0 || !e.guest.Closed() && e.guest.Len() > 0 {
				return fmt.Sprintf("settlements of %s were not answered", e.id)
			}
			if e.interims.Len() > 0 && !e.own.Closed() {
				return fmt.Sprintf("interim usage at %s was not answered", e.id)
			}
			for _, s := range e.shards {
				if s.Holds() > 0 && !e.own.Closed() && w.db.LaneOpen(e.lane) {
					return fmt.Sprintf("%d holds are left", s.Holds())
				}
			}
		}
	}
	return ""
}
