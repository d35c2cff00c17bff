package escrow

import (
	"github.com/purser-io/purser/quota"
)

// LimitKey names what is counted for a limit. There is no plan version in it: a new one that
// keeps the id goes on from the same count.
type LimitKey struct {
	Account string // that is subscribed
	Feature string // "" = all features together
	Limit   string // id
	Meter   string // "" = a concurrency limit
	Value   string // of the label, "" if it has none
}

// Limit is a rate or concurrency limit that a candidate has to keep. Both are counted in
// memory, by each node for its share; they are soft against a crash, and no pots (R55).
type Limit struct {
	Key   LimitKey
	Label string // key of the label whose values are counted by themselves
	Meter int    // index of the meter counted; for a concurrency limit that of requests
	Limit int64  // of all nodes together
	Burst int64  // rates: of all nodes together, > 0
	Per   int64  // rates: ns; 0 = a concurrency limit
}

// use is what a live reservation has taken of a limit.
type use struct {
	l        *limiter
	position int64 // rates: where its last units end in the bucket
	taken    int64 // rates: all units
	last     int64 // rates: those of the last extension, the only ones that may be given back
}

// share is what this node may give of a limit of all nodes.
func (s *Shard) share(limit int64) int64 {
	n := int64(s.live)
	return limit/n + min(limit%n, 1)
}

// verdict is what the rates say of a candidate so far.
type verdict struct {
	limit *Limit // that the denial names; nil = none failed
	need  int64
	room  int64 // what the limit would give now
	wait  int64 // ns until the same would pass; 0 = it never does
}

// worse reports that a failing limit should be named instead of v's: one that never lets the
// request pass before others, then the one that makes it wait longest.
func (v *verdict) worse(wait int64) bool {
	return v.limit == nil || v.wait != 0 && (wait == 0 || wait > v.wait)
}

// within asks the candidate's rates and then its concurrency limits. It takes nothing. Granted
// leaves in out.want what the rates allow of what is wanted. Overloaded says that there is no
// room for another counter. An extension was let in when it was a request: it has its permits,
// and rates count what it asks beyond have, if not nil, by limits.
func (s *Shard) within(now int64, k *Candidate, have []int64, quote bool, out *Result) Status {
	out.want, out.limits = k.Want, out.limits[:0]
	if len(k.Limits) == 0 {
		return Granted
	}
	out.allowed = append(out.allowed[:0], k.Want...)
	out.want = out.allowed
	room := s.roomForLimiters(now, len(k.Limits))
	var failed verdict
	for i := range k.Limits {
		limit := &k.Limits[i]
		if have != nil && !limit.adds(k.Want, have[i]) {
			out.limits = append(out.limits, nil)
			continue
		}
		l := s.byLimit[limit.Key]
		if l == nil {
			if room--; room < 0 && !quote {
				return Overloaded
			}
		}
		out.limits = append(out.limits, l)
		switch {
		case limit.Per > 0:
			s.askRate(now, k, i, have, out, &failed)
		case failed.limit == nil && l != nil && l.live >= s.share(limit.Limit):
			failed = verdict{limit: limit, need: 1, wait: l.comesBack()}
		}
	}
	if failed.limit == nil {
		return Granted
	}
	if out.Denial.Reason == 0 { // the reason of the first choice stands
		s.denyLimit(k, &failed, out)
		s.warn(k, out)
	}
	return Denied
}

// askRate cuts a flexible meter to what a rate allows now, or notes that not even the minimum
// passes. On several nodes a request for more than the node's share of the burst passes if
// nothing else was taken: no node may be too many for a request that fits the whole. An
// extension that would do with what it has stays as it is.
func (s *Shard) askRate(now int64, k *Candidate, index int, have []int64, out *Result, failed *verdict) {
	var b bucket
	limit := &k.Limits[index]
	if l := out.limits[index]; l != nil {
		b = l.bucket.seen(now)
		if b.limit != s.share(limit.Limit) || b.per != limit.Per { // the plan or the nodes changed: it leaks so from now on
			b.pace(s.share(limit.Limit), limit.Per)
			l.bucket = b
		}
	}
	m := limit.Meter
	need, burst := k.Want[m], s.share(limit.Burst)
	if k.Flexible[m] {
		need = k.Min[m]
	}
	had := int64(0)
	if have != nil {
		had = have[index]
		need = max(need-had, 0)
	}
	room := max(burst-b.level(), 0)
	if b.level() == 0 && need <= limit.Burst {
		room = max(room, need)
	}
	out.allowed[m] = min(out.allowed[m], had+room)
	passes := max(burst-need, 0) // the level at which the minimum passes
	switch {
	case need > limit.Burst:
		if failed.worse(0) {
			*failed = verdict{limit: limit, need: need, room: room}
		}
	case have != nil && need == 0:
	case b.level() > passes:
		if wait := b.wait(now, passes); failed.worse(wait) {
			*failed = verdict{limit: limit, need: need, room: room, wait: wait}
		}
	}
}

// denyLimit says which limit failed.
func (s *Shard) denyLimit(k *Candidate, v *verdict, out *Result) {
	limit, d := v.limit, &out.Denial
	d.Reason = quota.DeniedRate
	if limit.Per == 0 {
		d.Reason = quota.DeniedConcurrency
	}
	d.Level = quota.Level{Account: limit.Key.Account, Limit: limit.Key.Limit, LabelKey: limit.Label, Selector: limit.Key.Value,
		Unit: k.Meters[limit.Meter]}
	d.Shortfall = max(v.need-v.room, 0)
	d.Transient, d.RetryIn = v.wait > 0, durationUntil(0, v.wait)
	if least := out.allowed[limit.Meter]; limit.Per > 0 && k.Flexible[limit.Meter] && least > 0 {
		d.Affordable = []quota.Quantity{{Meter: k.Meters[limit.Meter], Quantity: least}}
	}
}

// takeLimits counts a reservation that was granted.
func (s *Shard) takeLimits(now int64, k *Candidate, h *hold, out *Result) {
	for i := range k.Limits {
		limit, l := &k.Limits[i], out.limits[i]
		if l == nil {
			l = s.addLimiter(now, limit.Key)
		}
		l.live++
		u := use{l: l}
		l.bucket = l.bucket.seen(now)
		if limit.Per > 0 {
			l.bucket.pace(s.share(limit.Limit), limit.Per)
			u.taken = out.Quantity[limit.Meter]
			u.last, u.position = u.taken, l.bucket.take(u.taken)
		}
		h.uses = append(h.uses, u)
	}
}

// counts lists what a reservation has taken of the candidate's limits: of one that is new to
// it as much as it was granted, which nobody counted there.
func (h *hold) counts(k *Candidate, asked int, out *Result) []int64 {
	before := h.before(k, asked, out)
	out.have = out.have[:0]
	for i := range k.Limits {
		limit := &k.Limits[i]
		had := before[limit.Meter]
		if u := h.useOf(limit.Key); u != nil {
			had = u.taken
		}
		out.have = append(out.have, had)
	}
	return out.have
}

// useOf is what the reservation has of a limit, nil if nothing.
func (h *hold) useOf(key LimitKey) *use {
	for i := range h.uses {
		if h.uses[i].l.key == key {
			return &h.uses[i]
		}
	}
	return nil
}

// adds reports that an extension to the totals q asks more of the limit than was had before.
// A permit is had already.
func (l *Limit) adds(q []int64, had int64) bool { return l.Per > 0 && q[l.Meter] > had }

// takeMore counts what was added by an extension that within let in.
func (s *Shard) takeMore(now int64, k *Candidate, h *hold, out *Result) {
	for i := range k.Limits {
		limit, l, had := &k.Limits[i], out.limits[i], out.have[i]
		if !limit.adds(out.Quantity, had) {
			continue
		}
		if l == nil {
			l = s.addLimiter(now, limit.Key)
		}
		u := h.useOf(limit.Key)
		if u == nil {
			l.live++
			h.uses = append(h.uses, use{l: l})
			u = &h.uses[len(h.uses)-1]
		}
		l.bucket = l.bucket.seen(now)
		l.bucket.pace(s.share(limit.Limit), limit.Per)
		u.taken, u.last = out.Quantity[limit.Meter], out.Quantity[limit.Meter]-had
		u.position = l.bucket.take(u.last)
	}
}

// leaveLimits ends what a reservation has of its limits, once: permits return, and rates learn
// what was really used. It is when the settlement is queued, before that is durable: R1 exempts
// what is soft. A late charge is not counted.
func (s *Shard) leaveLimits(now int64, h *hold, rec *quota.Record) {
	for i := range h.uses {
		u := &h.uses[i]
		used := u.taken
		if rec != nil {
			used = rec.Cost(u.l.key.Meter)
		}
		u.l.returned(max(now-h.reserved, 0))
		b := &u.l.bucket
		switch *b = b.seen(now); {
		case u.l.key.Meter == "":
		case used > u.taken:
			b.take(used - u.taken)
		case used < u.taken:
			b.giveBack(u.position, min(u.taken-used, u.last))
		}
	}
	clear(h.uses)
	h.uses = h.uses[:0]
}

// leaveLimitsTo is leaveLimits when another node settled. It did not say how much of which
// meter was used: as much as was taken then, nothing if it was no commit.
func (s *Shard) leaveLimitsTo(h *hold, e *quota.Entry) {
	if e.Kind == quota.Committed {
		s.leaveLimits(s.ticked, h, nil)
		return
	}
	s.leaveLimits(s.ticked, h, &quota.Record{Kind: e.Kind})
}

// roomForLimiters is how many more counters may be kept. If some more are asked for than that
// it looks for some that can be forgotten; so it comes before any are looked up.
func (s *Shard) roomForLimiters(now int64, some int) int {
	if len(s.limiters)+some > s.cfg.MaxLimiters {
		s.forgetLimiters(now, 0, 64)
	}
	return s.cfg.MaxLimiters - len(s.limiters)
}
