package escrow

import "github.com/purser-io/purser/quota"

// allotment is a part of a pot in this shard's hands. I4 in memory:
//
//	free + held + returning + spent = amount
//
// held includes what waits for a durable record (the quarantine of R1).
type allotment struct {
	number    quota.AllotmentNo
	pool      *pool
	amount    int64
	free      int64
	held      int64
	returning int64
	spent     int64
	notAfter  int64
	shrinks   int64 // sequence of the last shrink sent
	closing   bool  // a closing shrink is under way
}

// balanced reports I4.
func (a *allotment) balanced() bool {
	return a.free >= 0 && a.held >= 0 && a.returning >= 0 && a.spent >= 0 &&
		a.free+a.held+a.returning+a.spent == a.amount
}

// poolKey names a window pot. A wallet's pool is found by its payer.
type poolKey struct {
	kind                     quota.PotKind
	account, limit, selector string
	start                    int64
}

func keyOf(w *quota.WindowPot) poolKey {
	return poolKey{kind: w.Kind, account: w.Account, limit: w.Limit, selector: w.Selector, start: w.Start}
}

// seen is what the database said of a pot at the last draw or read.
type seen struct {
	available int64 // left in the pot
	escrowed  int64 // out in allotments, ours included
	taken     int64 // windows
	debt      int64
	at        int64 // 0 = never
}

// pool is one pot kind of one payer: its allotments here, and how fast they are used.
type pool struct {
	payer      *payer
	next       *pool            // of the claim that came behind its own the last time
	window     *quota.WindowPot // with the cap in force at the last request; nil of a wallet
	allotments []*allotment     // in the order drawn
	own        int64            // sum of amount over allotments: our part of the pot's escrowed
	seen       seen
	dryUntil   int64 // the pot gave less than was needed: do not ask again before
	least      int64 // what would do for the request that begins the next draw
	want       int64 // what waiting requests lack; input of the next draw

	burn      int64 // net amount per second, smoothed
	used      int64 // net amount since the last tick
	mean      int64 // of requests, smoothed
	peak      int64 // of requests, decaying
	size, low int64 // of the last draw: what it aimed at, and when to draw ahead
	lastUse   int64

	scarceUntil, wishUntil int64 // see scarce.go
}

// kind is what the pool is drawn for.
func (p *pool) kind() quota.PotKind {
	if p.window == nil {
		return quota.PotWallet
	}
	return p.window.Kind
}

// account is whose pot it is.
func (p *pool) account() string {
	if p.window == nil {
		return p.payer.id
	}
	return p.window.Account
}

// key is what a window's pool is found by.
func (p *pool) key() poolKey { return keyOf(p.window) }

// isOf reports whether the pool is of window w.
func (p *pool) isOf(w *quota.WindowPot) bool {
	v := p.window
	return v != nil && v.Start == w.Start && v.Kind == w.Kind && v.Limit == w.Limit && v.Selector == w.Selector && v.Account == w.Account
}

// sameLimit reports whether two pools of one payer are of one limit, or its wallet.
func (p *pool) sameLimit(q *pool) bool {
	if p.window == nil || q.window == nil {
		return p.window == q.window
	}
	v, w := p.window, q.window
	return v.Kind == w.Kind && v.Account == w.Account && v.Limit == w.Limit && v.Selector == w.Selector
}

// sameWindow reports whether two pools are of one limit and window, or wallet.
func (p *pool) sameWindow(q *pool) bool {
	return p.sameLimit(q) && (p.window == nil || p.window.Start == q.window.Start)
}

// payer groups what is decided under one lock and drawn in one transaction.
type payer struct {
	id      string
	wallet  *pool
	pools   []*pool // wallet first
	epochs  []quota.AccountEpoch
	drawing bool
	names   *[]string   // meters of its last reservation
	who     []*identity // of its last reservations, the latest found first
}

// usable sums what the first parts allotments can give now; a negative number means all.
func (p *pool) usable(now int64, parts int) int64 {
	var sum int64
	for _, a := range p.allotments {
		if a.free > 0 && now < a.notAfter { // R34
			sum += a.free
			if parts--; parts == 0 {
				break
			}
		}
	}
	return sum
}

// free is all that is free here, usable or not.
func (p *pool) freeAll() int64 {
	var sum int64
	for _, a := range p.allotments {
		sum += a.free
	}
	return sum
}

// held is what live reservations hold here.
func (p *pool) heldAll() int64 {
	var sum int64
	for _, a := range p.allotments {
		sum += a.held
	}
	return sum
}

// elsewhere is what other nodes have out, as last seen.
func (p *pool) elsewhere() int64 { return max(p.seen.escrowed-p.own, 0) }

// out is what is neither here nor in the pot, and may come back: on other nodes, or on its
// way home from this one.
func (p *pool) out() int64 {
	sum := p.elsewhere()
	for _, a := range p.allotments {
		sum += a.returning
	}
	return sum
}

// left is what the pot had, as last seen: credits, or what its cap leaves.
func (p *pool) left() int64 {
	if p.window == nil {
		if p.seen.debt > 0 { // R50
			return 0
		}
		return max(p.seen.available, 0)
	}
	return min(max(p.window.Cap-p.seen.taken, 0), plenty)
}

// endsWithin reports whether what is here and in the pot is used up in so many seconds at the
// present rate, as far as this node sees.
func (p *pool) endsWithin(seconds int64) bool {
	return p.burn > 0 && p.seen.at != 0 && (p.left()+p.freeAll())/p.burn < seconds
}

// plenty stands for "more than anybody asks for", with room to add.
const plenty = int64(1) << 60

// note takes a request of amount into the statistics that size draws (protocol §3.2).
func (p *pool) note(now, amount int64) {
	p.lastUse = now
	p.used += amount
	if p.mean == 0 {
		p.mean = amount
	}
	p.mean += (amount - p.mean) / 16
	p.peak = max(p.peak, amount)
}

// floor is q: a few requests' worth, which may always be drawn (R28). want is what waits: the
// only measure there is before the first request was granted.
func (p *pool) floor(want int64) int64 {
	if p.mean == 0 {
		return satMul(want, 8)
	}
	return max(satMul(p.peak, 4), satMul(p.mean, 8), want)
}

// aim is what a draw should bring the free amount up to: burn rate times a horizon that
// shrinks as the pot runs out, taking it that all who draw from it use as much. A draw that
// lasted less than the horizon was too small, whatever the smoothed rate says yet: up to four
// times as much then. The store caps it by the half rule.
func (p *pool) aim(now int64, live int) int64 {
	horizon := int64(10_000) // ms
	if p.burn > 0 && p.seen.at != 0 {
		exhaustion := satMul(p.left()+p.freeAll(), 1000) / satMul(p.burn, p.sharers(live)) // ms
		horizon = min(max(exhaustion/8, 250), horizon)
	}
	aim := satMul(p.burn, horizon) / 1000
	if lasted := (now - p.seen.at) / 1e6; p.size > 0 && lasted < horizon {
		aim = max(aim, satMul(p.size, min(horizon/max(lasted, 1), 4)))
	}
	return aim
}

// satMul multiplies amounts for sizing, where "very much" is as good as exact.
func satMul(a, b int64) int64 {
	if a > 0 && b > plenty/a {
		return plenty
	}
	return a * b
}

// tick smooths the burn rate over about five seconds and lets the peak decay.
func (p *pool) tick(elapsed int64) {
	const tau = int64(5_000) // ms
	ms := min(max(elapsed/1e6, 1), tau)
	rate := satMul(max(p.used, 0), 1000) / ms
	p.used = 0
	p.burn += (rate-p.burn)/tau*ms + (rate-p.burn)%tau*ms/tau
	p.peak = max(p.peak-p.peak/16, p.mean)
	if !p.payer.drawing {
		p.want = 0 // who waited has been served or has given up
	}
}

// forget removes a closed allotment.
func (p *pool) forget(a *allotment) {
	for i, b := range p.allotments {
		if a == b {
			p.allotments = append(p.allotments[:i], p.allotments[i+1:]...)
			return
		}
	}
}
