package escrow

import (
	"time"

	"github.com/purser-io/purser/quota"
)

// Draw is a draw under way: at most one per payer.
type Draw struct {
	quota.Draw
	payer *payer
	pools []*pool // by want
	asked []int64 // by want: what waiting requests lacked when it began
}

// Payer names whose pots the draw is for.
func (d *Draw) Payer() string { return d.payer.id }

// Drawing reports whether a draw for the payer is under way; who is short then waits for it.
func (s *Shard) Drawing(payer string) bool {
	p, ok := s.payers[payer]
	return ok && p.drawing
}

// BeginDraw starts a draw for what the last Reserve found lacking: all pots of the payer that
// want something, in one transaction. Call it only if none is under way.
func (s *Shard) BeginDraw(now int64, incarnation string, out *Result) *Draw {
	for _, l := range out.lacking {
		l.pool.want, l.pool.least = max(l.pool.want, l.amount), l.least
	}
	return s.begin(now, incarnation, out.payer)
}

// Join notes what a request lacks that waits for the draw under way: if that one does not
// bring it, the next will, for all who waited, instead of a few at a time.
func (s *Shard) Join(out *Result) {
	for _, l := range out.lacking {
		l.pool.want = min(l.pool.want+l.amount, plenty)
	}
}

// askAhead marks a pool that is running low, to be drawn before anyone has to wait.
func (s *Shard) askAhead(p *payer, pl *pool) {
	pl.want = max(pl.want, 1)
	s.ahead = append(s.ahead, p)
}

// BeginAhead starts the next draw that was asked for ahead of need; nil if there is none.
func (s *Shard) BeginAhead(now int64, incarnation string) *Draw {
	for len(s.ahead) > 0 {
		p := s.ahead[0]
		s.ahead = append(s.ahead[:0], s.ahead[1:]...)
		if p.drawing || p.epochs == nil {
			continue
		}
		if d := s.begin(now, incarnation, p); d != nil {
			return d
		}
	}
	return nil
}

// lastBlock is the last block of allotment numbers that fits their 32 bits.
const lastBlock = 1<<32/(MaxShards*quota.MaxWalletGrants) - 2

// UsedUp reports that the shard has no allotment numbers left, after some 33 million draws: the
// incarnation has to be replaced by a new one, with new lanes (R54).
func (s *Shard) UsedUp() bool { return s.block >= lastBlock }

// begin makes the draw for every pool of p that wants something.
func (s *Shard) begin(now int64, incarnation string, p *payer) *Draw {
	if s.UsedUp() {
		return nil
	}
	d := &Draw{payer: p, Draw: quota.Draw{Incarnation: incarnation, Lane: s.lane, Payer: p.id,
		Epochs: p.epochs, LiveNodes: s.live, Now: now}}
	for _, pl := range p.pools {
		// A cap is current only if its account's epoch is checked (R12): what a sibling wants
		// waits for a draw of its own.
		if pl.want == 0 || s.UsedUp() || !covered(p.epochs, pl.account()) {
			continue
		}
		if pl.window != nil && now >= pl.window.End {
			pl.want = 0
			continue
		}
		floor := pl.floor(pl.want)
		pl.size = max(pl.aim(now, s.live), satMul(floor, generous))
		pl.low = pl.size / 4
		if pl.scarce(now) { // as needed, and not ahead of need
			floor, pl.size, pl.low = pl.want, max(pl.usedIn(s.cfg.Poll), pl.want), 0
		}
		w := quota.Want{Kind: pl.kind(), Floor: floor, Least: pl.least,
			Amount: max(pl.size-pl.usable(now, quota.MaxParts), pl.want), First: s.numbers()}
		if pl.window != nil {
			w.Window = *pl.window
		}
		d.Wants, d.pools, d.asked = append(d.Wants, w), append(d.pools, pl), append(d.asked, pl.want)
		pl.want, pl.least = 0, 0
	}
	if len(d.Wants) == 0 {
		return nil
	}
	p.drawing = true
	return d
}

// generous is how many times what may always be drawn a draw asks for: the half rule cuts it
// down where little is left.
const generous = 4

// covered reports whether a draw with these epochs checks the account.
func covered(epochs []quota.AccountEpoch, account string) bool {
	for i := range epochs {
		if epochs[i].Account == account {
			return true
		}
	}
	return false
}

// numbers reserves a block of allotment numbers that no other shard of the lane uses.
func (s *Shard) numbers() quota.AllotmentNo {
	s.block++
	return quota.AllotmentNo((s.block*MaxShards+uint32(s.index))*quota.MaxWalletGrants + 1)
}

// EndDraw takes in the answer to a draw. A draw whose outcome is unknown is not ended but
// sent again (R11). It reports whether others have to give something back before those who
// wait can be served.
func (s *Shard) EndDraw(now int64, d *Draw, drawn []quota.Drawn) (starved bool) {
	d.payer.drawing = false
	for i := range drawn {
		p, got := d.pools[i], int64(0)
		for _, a := range drawn[i].Allotments {
			if _, known := s.byNo[a.Number]; known {
				continue
			}
			n := &allotment{number: a.Number, pool: p, amount: a.Amount, free: a.Amount, notAfter: a.NotAfter}
			p.allotments = append(p.allotments, n)
			s.byNo[a.Number] = n
			p.own += a.Amount
			got += a.Amount
		}
		p.want = max(p.want-max(got-d.asked[i], 0), 0) // more than was asked for serves who joined
		p.seen = seen{available: drawn[i].Available, escrowed: drawn[i].Escrowed,
			taken: drawn[i].Taken, debt: drawn[i].Debt, at: now}
		p.want = min(p.want, p.left()/2) // R28: nobody knows what of it can be served
		hopeless := got == 0 && d.Wants[i].Least > drawn[i].Available
		if got < min(d.Wants[i].Floor, d.Wants[i].Amount) && !hopeless { // others may want less
			p.dryUntil = now + s.cfg.DryFor
		}
		short := got < min(d.asked[i], d.Wants[i].Least)
		starved = s.look(now, p, short) && short || starved
	}
	return starved
}

// FailDraw ends a draw that surely drew nothing.
func (s *Shard) FailDraw(d *Draw) { d.payer.drawing = false }

// Moisten forgets that the payer's pots were dry: something changed.
func (s *Shard) Moisten(payer string) {
	p, ok := s.payers[payer]
	if !ok {
		return
	}
	for _, pl := range p.pools {
		pl.dryUntil = 0
		pl.seen.at = 0
	}
}

// See takes in what a read of the pots showed, for quotes (R39). Pots that are not listed
// have nothing taken yet.
func (s *Shard) See(now int64, payer string, pots []quota.Pot, debt int64) {
	p := s.payerOf(payer)
	p.wallet.seen = seen{debt: debt, at: now}
	for i := range pots {
		pot := &pots[i]
		if pot.Kind == quota.PotWallet {
			p.wallet.seen.escrowed += pot.Escrowed
			if pot.Start <= now && now < pot.End && !pot.Voided {
				p.wallet.seen.available += pot.Available
			}
			continue
		}
		key := poolKey{kind: pot.Kind, account: pot.Account, limit: pot.Limit, selector: pot.Selector, start: pot.Start}
		if pl, ok := s.pools[key]; ok {
			pl.seen = seen{escrowed: pot.Escrowed, taken: pot.Taken(), at: now}
		}
	}
}

// SeenSince reports how old the oldest figure is that a quote for the payer's wallet would
// stand on; 0 = never seen.
func (s *Shard) SeenSince(payer string) int64 {
	p, ok := s.payers[payer]
	if !ok {
		return 0
	}
	return p.wallet.seen.at
}

// BeginReturn collects what is to go home: allotments that are used up (R46), that ended
// (R34), that lie idle, that are more than this node's half share, or that are wanted
// elsewhere (protocol §3.2). With all set, everything free (R49). The amounts are out of reach
// until EndReturn.
func (s *Shard) BeginReturn(now int64, all bool, most int) []quota.Shrink {
	var out []quota.Shrink
	for range s.order {
		if len(out) >= most {
			break
		}
		s.walk = (s.walk + 1) % len(s.order)
		p := s.order[s.walk]
		keep := p.keep(now, &s.cfg, s.live)
		if all {
			keep = 0
		}
		for i := len(p.allotments) - 1; i >= 0 && len(out) < most; i-- { // youngest first
			a := p.allotments[i]
			surplus := a.free
			if now < a.notAfter {
				surplus = min(max(p.freeAll()-keep, 0), a.free)
			}
			if shrink, ok := a.shrink(surplus); ok {
				out = append(out, shrink)
			}
		}
	}
	return out
}

// keep is how much of its free amount a pool holds on to.
func (p *pool) keep(now int64, cfg *Config, live int) int64 {
	switch {
	case now-p.lastUse > cfg.IdleReturn:
		return 0
	case p.payer.drawing:
		return quota.Never
	case p.scarce(now):
		return p.usedIn(cfg.Poll)
	case p.seen.at == 0:
		return quota.Never
	}
	share := max((p.left()+p.elsewhere()+p.freeAll())/int64(2*live), p.floor(0), p.size)
	if p.freeAll() > satMul(share, 2) {
		return share
	}
	return quota.Never
}

// shrink begins to return amount of the allotment; an allotment left without anything but
// spent is closed.
func (a *allotment) shrink(amount int64) (quota.Shrink, bool) {
	if a.closing || a.returning > 0 {
		return quota.Shrink{}, false
	}
	last := a.free == amount && a.held == 0
	if amount == 0 && !last {
		return quota.Shrink{}, false
	}
	a.free -= amount
	a.returning = amount
	a.closing = last
	a.shrinks++
	return quota.Shrink{Number: a.number, Sequence: a.shrinks, Amount: amount, Close: last}, true
}

// EndReturn takes in that shrinks are durable, and reports what went back to grants by them.
// Unknown outcomes are sent again, never ended.
func (s *Shard) EndReturn(shrinks []quota.Shrink) (micros int64) {
	for _, sh := range shrinks {
		a, ok := s.byNo[sh.Number]
		if !ok {
			continue
		}
		a.amount -= a.returning
		a.pool.own -= a.returning
		a.pool.seen.escrowed -= a.returning
		if a.pool.window == nil {
			a.pool.seen.available += a.returning
			micros += a.returning
		} else {
			a.pool.seen.taken -= a.returning
		}
		a.returning = 0
		check(a.balanced(), "I4 after a return")
		if a.closing {
			check(a.free == 0 && a.held == 0, "R46: an allotment in use was closed")
			a.pool.own -= a.amount // escrowed -> spent
			a.pool.seen.escrowed -= a.amount
			a.pool.forget(a)
			delete(s.byNo, a.number)
		}
	}
	return micros
}

func durationUntil(now, t int64) time.Duration { return time.Duration(max(t-now, 0)) }
