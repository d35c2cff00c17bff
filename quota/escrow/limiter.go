package escrow

import "math/bits"

// bucket counts what was taken of a rate. It is the generic cell rate algorithm, as the
// continuous-state leaky bucket by which ITU-T I.371 and ATM Forum af-tm-0056.000 §4.4.2
// define it, with requests of any size: what is taken raises the level, the level sinks by
// limit in every per, and a request passes if the level leaves room for it.
//
// Counting units exactly, instead of a theoretical arrival time in nanoseconds, lets a level
// outlive a change of its limit, and has nothing to round.
//
// Beside the level the bucket knows where in it a reservation's part lies. The level is a
// queue that leaks in the order of arrival: what was taken n-th has leaked when drained >= n.
// So what is given back is what the level still has of it, and nothing is admitted twice for
// units that time had given back already.
type bucket struct {
	arrived int64 // units ever taken
	drained int64 // units that leaked or were given back; the level is arrived - drained
	part    int64 // of the next unit: part/per of it has leaked
	at      int64 // when all this was so
	limit   int64 // leaks limit units in per ns
	per     int64
}

// mostLevel bounds a level: real usage is counted whatever it is, and the arithmetic must hold.
const mostLevel = int64(1) << 60

// level is how much is in the bucket, the unit that is leaking counted whole.
func (b bucket) level() int64 { return b.arrived - b.drained }

// seen is the bucket at now.
func (b bucket) seen(now int64) bucket {
	if now <= b.at {
		return b
	}
	elapsed := uint64(now - b.at)
	b.at = now
	if b.level() <= 0 {
		return b
	}
	hi, lo := bits.Mul64(elapsed, uint64(b.limit))
	lo, carry := bits.Add64(lo, uint64(b.part), 0)
	if hi += carry; hi >= uint64(b.per) { // more than 2^64 units
		b.empty()
		return b
	}
	units, part := bits.Div64(hi, lo, uint64(b.per))
	if units >= uint64(b.level()) {
		b.empty()
		return b
	}
	b.drained += int64(units)
	b.part = int64(part)
	return b
}

func (b *bucket) empty() { b.drained, b.part = b.arrived, 0 }

// wait is how long after now the level, which is that of now or a later moment, has sunk to
// room; 0 if it has. Nothing passes a ns earlier.
func (b *bucket) wait(now, room int64) int64 {
	excess := b.level() - room
	if excess <= 0 {
		return max(b.at-now, 0)
	}
	hi, lo := bits.Mul64(uint64(excess), uint64(b.per))
	lo, borrow := bits.Sub64(lo, uint64(b.part), 0)
	hi -= borrow
	lo, carry := bits.Add64(lo, uint64(b.limit-1), 0) // round up
	if hi += carry; hi >= uint64(b.limit) {
		return plenty
	}
	ns, _ := bits.Div64(hi, lo, uint64(b.limit))
	return int64(min(ns, uint64(plenty))) + max(b.at-now, 0)
}

// pace sets how fast the bucket leaks from now on.
func (b *bucket) pace(limit, per int64) {
	if b.per != per {
		b.part = 0
	}
	b.limit, b.per = limit, per
}

// take raises the level and returns where the units taken end in the queue.
func (b *bucket) take(units int64) (position int64) {
	b.arrived += min(units, max(mostLevel-b.level(), 0))
	return b.arrived
}

// giveBack lowers the level by unused units of what was taken up to position, or by what of
// them is still there.
func (b *bucket) giveBack(position, unused int64) {
	there := position - b.drained
	back := min(unused, there)
	if back <= 0 {
		return
	}
	b.drained += back
	if back == there { // with the rest of one that has begun to leak
		b.part = 0
	}
}

// limiter is the state of one limit, for one account, feature and label value.
type limiter struct {
	key    LimitKey
	bucket bucket // rates
	live   int64  // reservations under it that are not settled
	mean   int64  // ns that reservations are live, smoothed
	index  int    // in Shard.limiters
}

// rest reports that nothing would be lost by forgetting it.
func (l *limiter) rest(now int64) bool {
	b := l.bucket.seen(now)
	return l.live == 0 && b.level() == 0
}

// comesBack guesses when a permit returns: reservations end evenly over the time they last.
func (l *limiter) comesBack() int64 {
	const unknown, least, most = int64(1e9), int64(10e6), int64(5e9)
	if l.mean == 0 {
		return unknown
	}
	return min(max(l.mean/max(l.live, 1), least), most)
}

// returned notes the end of a reservation that was live for so long.
func (l *limiter) returned(lived int64) {
	check(l.live > 0, "R55: a permit was returned twice")
	l.live--
	if l.mean == 0 {
		l.mean = lived
	}
	l.mean += (lived - l.mean) / 8
}

// addLimiter makes the state of a limit that is asked for the first time.
func (s *Shard) addLimiter(now int64, key LimitKey) *limiter {
	l := &limiter{}
	if n := len(s.spareL); n > 0 {
		l, s.spareL = s.spareL[n-1], s.spareL[:n-1]
	}
	*l = limiter{key: key, bucket: bucket{at: now, limit: 1, per: 1}, index: len(s.limiters)}
	s.byLimit[key] = l
	s.limiters = append(s.limiters, l)
	return l
}

// forgetLimiters looks at some limiters, in turns, and drops those at rest that nobody asked
// for during idle ns.
func (s *Shard) forgetLimiters(now, idle int64, some int) {
	for range min(some, len(s.limiters)) {
		if s.limiterWalk >= len(s.limiters) {
			s.limiterWalk = 0
		}
		l := s.limiters[s.limiterWalk]
		if now-l.bucket.at < idle || !l.rest(now) {
			s.limiterWalk++
			continue
		}
		last := s.limiters[len(s.limiters)-1]
		s.limiters[l.index], last.index = last, l.index
		s.limiters[len(s.limiters)-1] = nil
		s.limiters = s.limiters[:len(s.limiters)-1]
		delete(s.byLimit, l.key)
		*l = limiter{}
		if len(s.spareL) < 1024 {
			s.spareL = append(s.spareL, l)
		}
	}
}
