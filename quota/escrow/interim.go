package escrow

import (
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
	"github.com/purser-io/purser/quota/token"
)

// Interim usage (R23) is a floor and no charge: it moves nothing, so no amount is touched here. Only
// the owner takes it in, while it holds the reservation: who writes EXPIRED has to know of every
// report that is acknowledged.

// Interim is interim usage on its way to durability.
type Interim struct {
	quota.Interim
	Reply any // the shell's: who waits
}

// Interim takes in what a reservation has used so far; rec is the record of that usage without
// Slots. What it says counts together with what was said before, of each meter the most, in whatever
// order reports come. Statuses are those of Settle: if Enqueue, x has to become durable before
// the report is acknowledged; if Underway, a settlement of kind ending overtook it.
func (s *Shard) Interim(rec quota.Record, reply any) (status SettleStatus, ending quota.SettleKind, x *Interim) {
	h, ok := s.holds[rec.Sequence]
	if !ok || h.nonce != rec.Nonce {
		return NotHeld, 0, nil
	}
	if h.settling != nil {
		return Underway, h.settling.Record.Kind, nil
	}
	return Enqueue, 0, &Interim{Interim: *s.note(h, rec), Reply: reply}
}

// note remembers usage of a hold, beside it: most holds have none, and must not be larger for it.
// What is remembered is never changed, only replaced: a flush may be reading it.
func (s *Shard) note(h *hold, rec quota.Record) *quota.Interim {
	number := int64(1)
	if last := s.interims[h.sequence]; last != nil {
		usage, lines := highest(&last.Record, &rec)
		if slices.Equal(usage, last.Record.Usage) {
			return last
		}
		rec.Usage, rec.Lines = usage, lines
		number = last.Number + 1
	}
	rec.Kind, rec.Digest, rec.Delivered = quota.Expired, 0, false
	rec.ReservedAt, rec.ExpiresAt = h.reserved, h.expires
	var t token.Token
	s.fill(h, h.slots, h.parts, &t)
	Foreign(&t, &rec) // what who closes the lane can do with it, knowing no free amounts
	x := &quota.Interim{Record: rec, Number: number}
	if s.interims == nil {
		s.interims = make(map[uint64]*quota.Interim)
	}
	s.interims[h.sequence] = x
	return x
}

// highest is the most that two reports say of each meter, meters of the earlier first. If that
// costs more than an amount can hold, which contradicting reports may lead to, the earlier stands.
func highest(earlier, later *quota.Record) (usage []quota.Quantity, lines []int64) {
	usage, lines = slices.Clone(earlier.Usage), slices.Clone(earlier.Lines)
	for i, u := range later.Usage {
		at := slices.IndexFunc(usage, func(q quota.Quantity) bool { return q.Meter == u.Meter })
		if at < 0 {
			usage, lines = append(usage, u), append(lines, later.Lines[i])
		} else {
			usage[at].Quantity = max(usage[at].Quantity, u.Quantity)
			lines[at] = max(lines[at], later.Lines[i])
		}
	}
	var sum int64
	for _, l := range lines {
		if sum += l; sum > amount.Max {
			return earlier.Usage, earlier.Lines
		}
	}
	return usage, lines
}

// Below reports whether a settlement of a hold says that less was used than was noted: it counts as
// reported, and is flagged (R23). Ask before Settled, which forgets what was noted.
func (s *Shard) Below(p *Pending) bool {
	if len(s.interims) == 0 || p.Record.Kind == quota.Expired {
		return false
	}
	x := s.interims[p.Record.Sequence]
	return x != nil && p.Record.Charged() < x.Record.Charged()
}

// Interims is the queue of one lane's interim usage: one transaction under way, everything queued
// goes with the next. It is beside the lane's journal, whose flushes do not wait for it.
type Interims struct {
	flight []*Interim
	queue  []*Interim
	bound  int
	rows   int // of a transaction, at most
	closed bool
}

// NewInterims makes an empty queue of at most bound reports, rows of them in one transaction.
func NewInterims(bound, rows int) *Interims { return &Interims{bound: bound, rows: rows} }

// Full reports whether the queue is at its bound (R52).
func (q *Interims) Full() bool { return len(q.queue) >= q.bound }

// Len is how many reports are not durable yet.
func (q *Interims) Len() int { return len(q.flight) + len(q.queue) }

// Push queues a report; false if the lane is fenced.
func (q *Interims) Push(x *Interim) bool {
	if q.closed {
		return false
	}
	q.queue = append(q.queue, x)
	return true
}

// Batch is what to send: what is under way again while its outcome is unknown, else the next.
func (q *Interims) Batch() []*Interim {
	if len(q.flight) == 0 {
		n := min(len(q.queue), q.rows)
		q.flight = append(q.flight, q.queue[:n]...)
		q.queue = slices.Delete(q.queue, 0, n)
	}
	return q.flight
}

// Done ends what is under way: it is durable, or its reservation had ended.
func (q *Interims) Done() []*Interim {
	done := q.flight
	q.flight = nil
	return done
}

// Fenced ends the queue: the lane is closing. What is handed back may have become durable by an
// earlier sending.
func (q *Interims) Fenced() []*Interim {
	rest := append(q.flight, q.queue...)
	q.flight, q.queue, q.closed = nil, nil, true
	return rest
}
