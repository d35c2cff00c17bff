package escrow

import (
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/quotatest"
	"github.com/purser-io/purser/quota/token"
)

// extend asks for more of, or more time for, one of the process's own reservations, as the
// authority does: after a draw once more.
func (p *proc) extend() {
	w, e := p.w, p.current()
	t := e.anyHeld()
	if t == nil {
		return
	}
	ttl := second * int64(1+w.pick(int(maxHold/second), "ttl"))
	total, low := int64(0), int64(0) // a heartbeat
	if w.pick(4, "heartbeat") > 0 {
		total = int64(w.pick(80, "total"))
		low = int64(w.pick(20, "least"))
	}
	flexible := w.pick(2, "flexible") == 1
	for try := range 3 {
		if !w.mutant.lapsed && (e.lost || !e.lease.MayIssue(p.instant())) {
			return
		}
		profile := p.profiles[t.Account]
		if profile == nil {
			profile = w.db.Profile(t.Account)
			p.profiles[t.Account] = profile
		}
		if _, suspended := profile.Suspended(); suspended {
			return
		}
		want := total
		if w.mutant.increments && total > 0 {
			want += t.Granted[0]
		}
		r := request(e.now(), profile, []string{t.Feature}, want, min(low, want), flexible)
		r.TTL, r.Final, r.Labels = ttl, try == 2, t.Labels
		w.limit(r)
		if !e.raise(t, r, []int64{total}) {
			return
		}
	}
}

// anyHeld picks a reservation that the engine holds, mostly one of the newest.
func (e *engine) anyHeld() *quotatest.Issued {
	var held []*quotatest.Issued
	tokens := e.p.w.db.Oracle.Tokens()
	for i := len(tokens) - 1; i >= 0 && len(held) < 8; i-- {
		if t := tokens[i]; t.Key.Lane == e.lane && !e.own.Closed() {
			if _, ending, ok := e.shards[ShardOf(t.Sequence)].Holding(t.Sequence, t.Nonce, nil); ok && ending == 0 {
				held = append(held, t)
			}
		}
	}
	if len(held) == 0 {
		return nil
	}
	return held[e.p.w.pick(len(held), "held")]
}

// raise runs one round of an extension; again says that a draw ended.
func (e *engine) raise(t *quotatest.Issued, r *Request, asked []int64) (again bool) {
	w, s := e.p.w, e.shards[ShardOf(t.Sequence)]
	var out Result
	now, before := e.now(), w.levels(s, e.now())
	if w.mutant.wholeAgain {
		for i := range s.holds[t.Sequence].uses {
			s.holds[t.Sequence].uses[i].taken = 0
		}
	}
	status := s.Extend(now, t.Sequence, t.Nonce, r, &out)
	if status == Granted {
		s.Extended(now, r, &out)
	}
	w.extended(s, now, t, r, &out, status, before)
	switch status {
	case Granted:
		w.db.Oracle.Extend(e.id, &out.Token, asked, out.Quantity[:1])
		w.checkTotals(&out)
	case Unchanged:
		if out.Token.Generation != t.Generation || out.Token.Expires != t.Expires || !out.Partial && asked[0] > out.Quantity[0] {
			w.db.Oracle.Violate("R35: %v is said not to change, from %+v to %+v", t.Key, t.Token, out.Token)
		}
	case Denied:
		w.checkDenial(r, &out)
	case Outdated, Gone, Ending:
		w.db.Oracle.Violate("R35: %v is held and could not be extended", t.Key)
	case Overloaded: // for the counter of a limit that is new
	case Short:
		return e.shortOf(s, r, &out)
	}
	return false
}

// checkTotals asserts that an extended reservation holds of every limit exactly what its
// totals cost, over all windows.
func (w *world) checkTotals(out *Result) {
	t := &out.Token
	rate := pricing.Rate{PriceMicros: 3, Per: 1}
	if t.Feature == "small" {
		rate = pricing.Rate{PriceMicros: 1, Per: 2}
	}
	cost, _ := rate.Cost(out.Quantity[0])
	want := map[string]int64{quota.UnitCredits: cost + 1, "tokens": out.Quantity[0], "requests": 1}
	for i := range t.Slots {
		if t.Slots[i].Continues {
			continue
		}
		held := sumOf(&t.Slots[i])
		for j := i + 1; j < len(t.Slots) && t.Slots[j].Continues; j++ {
			held += sumOf(&t.Slots[j])
		}
		if held != want[t.Slots[i].Unit] {
			w.db.Oracle.Violate("R35: %d holds %d of unit %q, its totals of %d cost %d", t.Sequence, held, t.Slots[i].Unit,
				out.Quantity[0], want[t.Slots[i].Unit])
		}
	}
}

func sumOf(s *token.Slot) (sum int64) {
	for _, p := range s.Parts {
		sum += p.Amount
	}
	return sum
}

// newestFirst is what R34 forbids: it charges the newest window of a limit first.
func newestFirst(slots []quota.Slot) {
	for i := len(slots) - 1; i > 0; i-- {
		before, s := &slots[i-1], &slots[i]
		if !s.Continues || len(before.Parts) == 0 {
			continue
		}
		x := before.Parts[0].Amount
		before.Charge, s.Charge, s.Uncovered = before.Charge-x, s.Charge+x, s.Uncovered+x
		before.Parts = before.Parts[1:]
	}
}
