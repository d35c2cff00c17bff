package escrow

import (
	"fmt"
	"maps"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/quotatest"
)

// planLimits are the limits of a version of the model's plan: of all features together, of one,
// of each value of a label.
func planLimits(version int, account, feature, user string) []Limit {
	rate := func(id, feature, value string, meter int, limit, burst int64) Limit {
		return Limit{Key: LimitKey{Account: account, Feature: feature, Limit: id, Meter: []string{"tokens", "requests"}[meter], Value: value},
			Meter: meter, Limit: limit, Burst: burst, Per: second}
	}
	streams := func(limit int64) Limit {
		return Limit{Key: LimitKey{Account: account, Limit: "streams"}, Meter: 1, Limit: limit}
	}
	switch version {
	case 0:
		return []Limit{rate("calls", "", "", 1, 3, 5), rate("tokens", feature, "", 0, 4, 50), streams(4)}
	case 1:
		return []Limit{rate("calls", "", "", 1, 2, 3), rate("each", "", user, 0, 3, 40)}
	}
	return nil
}

// limit adds the limits of the plan in force to a request. They count for the payer: it is who
// is subscribed. A reservation that is extended has its label.
func (w *world) limit(r *Request) {
	if r.Labels == nil {
		r.Labels = label.Set{{Key: "user", Value: []string{"ann", "bob"}[w.pick(2, "user")]}}
	}
	user, _ := r.Labels.Get("user")
	for i := range r.Candidates {
		k := &r.Candidates[i]
		k.Limits = planLimits(w.plan, r.Payer, k.Feature, user)
	}
}

// limitOracle counts by itself what shards let in.
type limitOracle struct {
	counts map[limitCount]*counted
	clocks map[*Shard]int64 // the latest time that a shard was told: for a bucket none goes back
}

func newLimitOracle() limitOracle {
	return limitOracle{make(map[limitCount]*counted), make(map[*Shard]int64)}
}

// told is the shard's time when it is told now.
func (o limitOracle) told(s *Shard, now int64) int64 {
	o.clocks[s] = max(o.clocks[s], now)
	return o.clocks[s]
}

// toldTo is told for the bucket of one limit: a new one knows nothing of later times that others
// were told before the clock went back.
func (o limitOracle) toldTo(s *Shard, key LimitKey, now int64) int64 {
	now = o.told(s, now)
	if l := s.byLimit[key]; l != nil {
		now = min(now, l.bucket.at)
	}
	return now
}

type limitCount struct {
	shard *Shard
	key   LimitKey
}

// counted is all that was ever let in under one limit by one shard.
type counted struct {
	arrivals []arrival
	live     map[uint64]stake // by sequence
}

// stake is what a live reservation has under a limit.
type stake struct {
	uncounted int64 // units granted before it was under the limit
	arrivals  []int // its own, and of what extensions added
}

// arrival is some units that count from a time on. limit and per are how they leak from then on.
type arrival struct {
	at, units  int64
	limit, per int64
}

func (o limitOracle) of(s *Shard, key LimitKey) *counted {
	c := o.counts[limitCount{s, key}]
	if c == nil {
		c = &counted{live: make(map[uint64]stake)}
		o.counts[limitCount{s, key}] = c
	}
	return c
}

// level runs the arrivals through a leaky bucket by the book.
func (c *counted) level(now int64) float64 {
	level, at, rate := 0.0, int64(0), 0.0
	leak := func(t int64) {
		if t > at {
			level, at = max(level-rate*float64(t-at), 0), t
		}
	}
	for _, a := range c.arrivals {
		leak(a.at)
		level += float64(a.units)
		rate = float64(a.limit) / float64(a.per)
	}
	leak(now)
	return level
}

// levels are what a shard counts, to see that nothing changes.
func (w *world) levels(s *Shard, now int64) map[LimitKey][2]int64 {
	out := make(map[LimitKey][2]int64)
	for _, l := range s.limiters {
		if b := l.bucket.seen(now); b.level() > 0 || l.live > 0 {
			out[l.key] = [2]int64{b.level(), l.live}
		}
	}
	return out
}

// decided checks one decision against the limits.
func (w *world) decided(s *Shard, now int64, r *Request, out *Result, status Status, before map[LimitKey][2]int64) {
	told := w.limits.told(s, now)
	defer w.paced(s, told, r)
	if status == Granted {
		w.letIn(s, told, r, out)
		return
	}
	if w.mutant.denialTakes && status == Denied {
		for _, l := range r.Candidates[out.Candidate].Limits {
			if x := s.byLimit[l.Key]; x != nil && l.Per > 0 {
				x.bucket.take(1)
			}
		}
	}
	if after := w.levels(s, now); !maps.Equal(before, after) {
		w.db.Oracle.Violate("R55: a request that was not granted changed %v to %v", before, after)
	}
	if d := &out.Denial; status == Denied && d.Reason == quota.DeniedRate && d.Transient {
		w.checkRetry(s, now, r, int64(d.RetryIn))
	}
}

// paced notes which buckets leak at another pace from now on, because a request asked them: granted or
// not, it brings the plan and the share in force.
func (w *world) paced(s *Shard, now int64, r *Request) {
	for i := range r.Candidates {
		for _, limit := range r.Candidates[i].Limits {
			l := s.byLimit[limit.Key]
			if l == nil || limit.Per == 0 {
				continue
			}
			c := w.limits.of(s, limit.Key)
			if n := len(c.arrivals); n == 0 || c.arrivals[n-1].limit == l.bucket.limit && c.arrivals[n-1].per == l.bucket.per {
				continue
			}
			if l.bucket.limit != shareOf(s, limit.Limit) || l.bucket.per != limit.Per {
				w.db.Oracle.Violate("R55: %v leaks %d in %d ns, which is not what the plan says", limit.Key, l.bucket.limit, l.bucket.per)
			}
			c.arrivals = append(c.arrivals, arrival{at: now, limit: l.bucket.limit, per: l.bucket.per})
		}
	}
}

// checkRetry asserts that retry_after of a rate is exact. It asks at a later time, and where
// counters are short that would forget those that are at rest by then.
func (w *world) checkRetry(s *Shard, now int64, r *Request, wait int64) {
	if len(s.limiters)+len(r.Candidates[0].Limits) > s.cfg.MaxLimiters {
		return
	}
	first := *r
	first.Candidates = r.Candidates[:1]
	w.exactly(now, wait, func(at int64) bool {
		var out Result
		s.Quote(at, &first, &out)
		return out.Denial.Reason == quota.DeniedRate
	})
}

// exactly asserts that a rate denies until the wait is over, and not a ns longer.
func (w *world) exactly(now, wait int64, denies func(at int64) bool) {
	for _, c := range []struct {
		at     int64
		denied bool
	}{{now + wait - 1, true}, {now + wait, false}} {
		if denied := denies(c.at); denied != c.denied {
			w.db.Oracle.Violate("R55: told to retry in %d ns, and after %d: denied by the rate is %v", wait, c.at-now, denied)
		}
	}
}

// letIn counts a grant, and asserts that its limits had room for it.
func (w *world) letIn(s *Shard, now int64, r *Request, out *Result) {
	k := &r.Candidates[out.Candidate]
	for i := range k.Limits {
		l := &k.Limits[i]
		if l.Per > 0 {
			w.count(s, now, l, out.Token.Sequence, stake{}, out.Quantity[l.Meter])
			continue
		}
		c := w.limits.of(s, l.Key)
		if int64(len(c.live)) >= shareOf(s, l.Limit) {
			w.db.Oracle.Violate("R55: %v let in one more beside %d live", l.Key, len(c.live))
		}
		c.live[out.Token.Sequence] = stake{}
	}
}

func shareOf(s *Shard, n int64) int64 { return (n + int64(s.live) - 1) / int64(s.live) }

// count counts units that a rate let in beside what the reservation had of it, and asserts that
// there was room for them.
func (w *world) count(s *Shard, now int64, l *Limit, sequence uint64, had stake, units int64) {
	c := w.limits.of(s, l.Key)
	now = w.limits.toldTo(s, l.Key, now)
	room := max(shareOf(s, l.Burst)-units, 0)
	if level := c.level(now); units > l.Burst || level > float64(room)+1e-6 {
		w.db.Oracle.Violate("R55: %v let in %d units above a level of %v", l.Key, units, level)
	}
	had.arrivals = append(had.arrivals, len(c.arrivals))
	c.live[sequence] = had
	c.arrivals = append(c.arrivals, arrival{at: now, units: units, limit: shareOf(s, l.Limit), per: l.Per})
}

// extended checks one decision about an extension of t against the limits: rates count what it
// adds, once, and nothing else changes.
func (w *world) extended(s *Shard, now int64, t *quotatest.Issued, r *Request, out *Result, status Status, before map[LimitKey][2]int64) {
	want := maps.Clone(before)
	told := w.limits.told(s, now)
	defer w.paced(s, told, r)
	if status == Granted {
		k := &r.Candidates[0]
		for i := range k.Limits {
			l := &k.Limits[i]
			if l.Per == 0 {
				continue // it has its permit
			}
			c, x := w.limits.of(s, l.Key), want[l.Key]
			had, counted := c.live[t.Sequence]
			if !counted { // the limit is new to the reservation
				had.uncounted = []int64{t.Granted[0], 1}[l.Meter]
			}
			more := out.Quantity[l.Meter] - had.uncounted
			for _, i := range had.arrivals {
				more -= c.arrivals[i].units
			}
			if more <= 0 {
				continue
			}
			if x[0] += more; !counted {
				x[1]++
			}
			want[l.Key] = x
			w.count(s, told, l, t.Sequence, had, more)
		}
	}
	if after := w.levels(s, now); !maps.Equal(want, after) {
		w.db.Oracle.Violate("R55: extension %d of %d, status %d, changed %v to %v, not %v", t.Generation, t.Sequence, status, before, after, want)
	}
	if d := &out.Denial; status == Denied && d.Reason == quota.DeniedRate && d.Transient && len(s.limiters)+len(r.Candidates[0].Limits) <= s.cfg.MaxLimiters {
		w.exactly(now, int64(d.RetryIn), func(at int64) bool {
			var out Result
			return s.Extend(at, t.Sequence, t.Nonce, r, &out) == Denied && out.Denial.Reason == quota.DeniedRate
		})
	}
}

// left counts the end of a reservation: what of each meter was really used, as far as the shard
// could know; used nil is as much as was taken.
func (w *world) left(s *Shard, now int64, sequence uint64, used func(meter string) int64) {
	now = w.limits.told(s, now)
	for at, c := range w.limits.counts {
		had, ok := c.live[sequence]
		if at.shard != s || !ok {
			continue
		}
		delete(c.live, sequence)
		if used == nil || at.key.Meter == "" {
			continue
		}
		rest := max(used(at.key.Meter)-had.uncounted, 0)
		for _, i := range had.arrivals { // what was not used are the last units
			a := &c.arrivals[i]
			a.units = min(a.units, rest)
			rest -= a.units
		}
		if rest > 0 { // counts from now on
			last := c.arrivals[len(c.arrivals)-1]
			c.arrivals = append(c.arrivals, arrival{at: w.limits.toldTo(s, at.key, now), units: rest, limit: last.limit, per: last.per})
		}
	}
}

// settledHere counts a settlement that was queued at the owner.
func (w *world) settledHere(s *Shard, now int64, x *Pending) {
	w.left(s, now, x.Record.Sequence, x.Record.Cost)
	if w.mutant.permitsTwice {
		for _, l := range s.limiters {
			l.live = max(l.live-1, 0)
		}
	}
}

// settledElsewhere counts one that the owner heard of; it does so before the owner does.
func (w *world) settledElsewhere(s *Shard, e *quota.Entry) {
	h := s.holds[e.Sequence]
	if h == nil || h.settling != nil || e.Phase != quota.PhaseTerminal {
		return
	}
	used := func(string) int64 { return 0 }
	if e.Kind == quota.Committed {
		used = nil
	}
	w.left(s, s.ticked, e.Sequence, used)
	if w.mutant.permitsKept {
		h.uses = nil
	}
}

// checkLimits asserts that every live reservation has its permits, and nobody else.
func (w *world) checkLimits() {
	for _, p := range w.procs {
		for _, e := range p.engines {
			for _, s := range e.shards {
				if len(s.limiters) > s.cfg.MaxLimiters || len(s.limiters) != len(s.byLimit) {
					w.db.Oracle.Violate("R53: %d limiters, %d by key", len(s.limiters), len(s.byLimit))
				}
				for i, l := range s.limiters {
					if live := len(w.limits.of(s, l.key).live); int64(live) != l.live || l.index != i {
						w.db.Oracle.Violate("R55: %v has %d permits out, of %d live reservations", l.key, l.live, live)
					}
				}
			}
		}
	}
}

// checkLimitsQuiet asserts that when clients have stopped every permit comes home.
func (w *world) checkLimitsQuiet() {
	for _, p := range w.procs {
		for _, e := range p.engines {
			for _, s := range e.shards {
				for _, l := range s.limiters {
					if l.live != 0 && !e.own.Closed() && w.db.LaneOpen(e.lane) {
						w.db.Oracle.Violate("R55: %s", fmt.Sprint(l.key, " has ", l.live, " permits out when all is quiet"))
					}
				}
			}
		}
	}
}
