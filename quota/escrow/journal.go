package escrow

import "github.com/purser-io/purser/quota"

// Journal numbers the batches of one lane: one flush in flight, everything queued goes with
// the next one (R20). A batch keeps its content and its number until its outcome is known.
type Journal struct {
	lane   quota.LaneID
	next   int64 // number of the batch in flight, or of the next one
	flight []*Pending
	queue  []*Pending
	bound  int
	rows   int // of a batch, at most
	most   int // of the next one: fewer after one that lost against others
	closed bool
}

// NewJournal makes the journal of an empty lane that queues at most bound settlements and
// flushes at most rows of them together.
func NewJournal(lane quota.LaneID, bound, rows int) *Journal {
	return &Journal{lane: lane, next: 1, bound: bound, rows: rows, most: rows}
}

// Lane is the lane written to.
func (j *Journal) Lane() quota.LaneID { return j.lane }

// Full reports whether the queue is at its bound; who meets it is refused before anything
// was enqueued, which is a definite answer (R52).
func (j *Journal) Full() bool { return len(j.queue) >= j.bound }

// Push queues a settlement. What the protocol itself must record, expiries, is not bounded
// by the queue but by the holds they end.
func (j *Journal) Push(p *Pending) { j.queue = append(j.queue, p) }

// Durable is the number of the last batch that is durable; 0 = none is.
func (j *Journal) Durable() int64 { return j.next - 1 }

// Len is how many settlements are not durable yet.
func (j *Journal) Len() int { return len(j.queue) + len(j.flight) }

// Closed reports whether the lane was fenced.
func (j *Journal) Closed() bool { return j.closed }

// Batch is what to send: the batch in flight again while its outcome is unknown (R5), else
// the next one. It is empty if there is nothing to send.
func (j *Journal) Batch() (no int64, batch []*Pending) {
	if len(j.flight) == 0 && len(j.queue) > 0 {
		n := min(len(j.queue), j.most)
		j.flight = append(j.flight[:0], j.queue[:n]...)
		rest := copy(j.queue, j.queue[n:])
		clear(j.queue[rest:])
		j.queue = j.queue[:rest]
	}
	return j.next, j.flight
}

// Applied ends the batch in flight: it is durable, its number is taken.
func (j *Journal) Applied() []*Pending {
	done := j.land()
	j.next++
	for _, p := range done {
		p.Fate = quota.Settlement{Verdict: quota.VerdictApplied, Entry: p.Record.Entry(j.lane, j.next-1)}
	}
	return done
}

// land takes the batch out of flight.
func (j *Journal) land() []*Pending {
	done := make([]*Pending, len(j.flight))
	copy(done, j.flight)
	clear(j.flight)
	j.flight = j.flight[:0]
	return done
}

// Refused ends a batch that definitely failed because others had settled some of its
// reservations. The winners' fates are returned; the rest goes first in the next batch, which
// inherits the number (R20).
func (j *Journal) Refused(winners []quota.Entry) []*Pending {
	byKey := make(map[quota.EntryKey]*quota.Entry, len(winners))
	for i := range winners {
		byKey[winners[i].EntryKey] = &winners[i]
	}
	var done, again []*Pending
	for _, p := range j.land() {
		if e, ok := byKey[p.Record.EntryKey]; ok {
			p.Fate = quota.Settlement{Verdict: quota.VerdictSettled, Entry: *e}
			done = append(done, p)
		} else {
			again = append(again, p)
		}
	}
	check(len(done) > 0, "R20: a batch was refused by no winner")
	j.queue = append(again, j.queue...)
	return done
}

// Judged ends a batch of a guest lane, whose records were decided one by one; used says that
// its number is taken.
func (j *Journal) Judged(fates []quota.Settlement, used bool) []*Pending {
	var done, again []*Pending
	for i, p := range j.land() {
		p.Fate = fates[i]
		if fates[i].Verdict == quota.VerdictRetry {
			again = append(again, p)
		} else {
			done = append(done, p)
		}
	}
	if used {
		j.next++
	}
	j.queue, j.most = append(again, j.queue...), min(2*j.most, j.rows)
	return done
}

// Halve ends a sending of a guest lane's batch that definitely wrote nothing because it lost
// against others. The batch becomes half as large, so that what they fight over holds up less.
// If an earlier sending lands after all, what is left out here is found settled by it.
func (j *Journal) Halve() {
	j.most = max(len(j.flight)/2, 1)
	j.queue = append(j.land(), j.queue...)
}

// Fenced ends the journal: the lane is closing. What was not durable is handed back, to be
// settled as a stranger's (R26).
func (j *Journal) Fenced() []*Pending {
	j.closed = true
	rest := append(j.land(), j.queue...)
	j.queue = nil
	return rest
}
