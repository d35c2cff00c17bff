package storagetest

import (
	"errors"
	"sync"

	"github.com/purser-io/purser/quota"
)

func interimTests() []Test {
	return []Test{
		{"ChargedWhenTheLaneCloses", interimClosed},
		{"HighestNumberCounts", interimHighest},
		{"EndedTakesNone", interimEnded},
		{"Fenced", interimFenced},
		{"FinalBehindTheFence", interimFinal},
		{"OwnerBehindTheClosing", interimOwner},
		{"ClosedByParts", interimParts},
		{"LateBehindUsage", interimLate},
		{"ExpiredByItsOwner", interimExpired},
	}
}

// used turns a record into the EXPIRED of the same reservation with its usage.
func used(r quota.Record) quota.Record {
	r.Kind, r.Digest = quota.Expired, 0
	return r
}

// interim notes usage, which must stand.
func (n *Node) interim(no int64, records ...quota.Record) {
	n.Helper()
	ended, err := n.sendInterim(no, records...)
	n.must(err)
	n.check(len(ended) == 0, "interim usage of what ended: %+v", ended)
}

func (n *Node) sendInterim(no int64, records ...quota.Record) ([]quota.Entry, error) {
	n.Helper()
	interims := make([]quota.Interim, len(records))
	for i, r := range records {
		interims[i] = quota.Interim{Record: r, Number: no}
	}
	return n.Store.Interim(n.ctx, n.Lane, interims)
}

// interimClosed is R23 after a crash: the usage noted is charged to what was held, once, and
// projected; what was settled is not charged again.
func interimClosed(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	owner, other := e.node(), e.node()
	a := owner.take("acme", 300)
	crashed := used(owner.commit("acme", wallet(50, part(a, 30))))
	settled, elsewhere := owner.commit("acme", wallet(40, part(a, 40))), owner.commit("acme", wallet(10, part(a, 10)))
	owner.interim(1, used(settled), used(elsewhere), crashed)
	owner.append(charging(settled, 5))
	other.settled(charging(elsewhere, 6), quota.VerdictApplied)
	owner.leave()
	var got *quota.Entry
	for _, entry := range e.entries() {
		if entry.Sequence == crashed.Sequence {
			got = &entry
		}
	}
	crashed.SettledAt = e.Now()
	want := crashed.Entry(owner.Lane, 2)
	e.check(got != nil, "the usage noted is not charged")
	e.same("entry", *got, want)
	e.check(len(e.entries()) == 3, "entries %+v", e.entries())
	e.figures("acme", "one", 970, 0, 30, 0, 0, 0)
	other.project()
	events := 0
	for _, u := range e.events() {
		if u.Key == crashed.EntryKey {
			events++
			e.check(u.Charged == 50 && u.Covered == 30 && u.Uncovered == 20 && !u.Late, "its usage event is %+v", u)
		}
	}
	e.same("usage events of it", events, 1)
	e.finish(other)
}

// interimHighest: a sending that lands late does not lower what is noted.
func interimHighest(e *Env) {
	e.account("acme", "")
	n := e.node()
	r := n.commit("acme", wallet(50))
	n.interim(2, used(charging(r, 50)))
	n.interim(3, used(charging(r, 60)))
	n.interim(3, used(charging(r, 60)))
	n.interim(1, used(charging(r, 20)))
	n.leave()
	e.check(len(e.entries()) == 1 && e.entries()[0].Charged == 60, "entries %+v, want 60 charged once", e.entries())
}

// interimEnded: behind a terminal entry nothing is noted, and the caller learns how it ended.
func interimEnded(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	live, lost := owner.commit("acme", wallet(7)), owner.commit("acme", wallet(8))
	winner := other.settled(charging(lost, 3), quota.VerdictApplied)
	got, err := owner.sendInterim(1, used(live), used(lost))
	e.must(err)
	e.same("ended", got, []quota.Entry{winner})
	e.check(len(e.interims()) == 1 && e.interims()[0].Sequence == live.Sequence, "noted %+v, want of the live one only", e.interims())
	owner.append(used(live))
	got, err = owner.sendInterim(2, used(charging(live, 9)))
	e.must(err)
	e.same("expired", got, []quota.Entry{func() quota.Entry { r := used(live); return r.Entry(owner.Lane, 1) }()})
}

func interimFenced(e *Env) {
	e.account("acme", "")
	n := e.node()
	r := used(n.commit("acme", wallet(7)))
	e.must(e.Store.Fence(e.ctx, n.Lane))
	for _, when := range []string{"closing", "closed"} {
		_, err := n.sendInterim(1, r)
		e.refused(err, quota.ReasonFenced)
		e.check(len(e.interims()) == 0, "%s: interim usage was noted", when)
		n.closeFenced(n.Lane)
	}
	e.check(len(e.entries()) == 0, "entries %+v", e.entries())
	r.Lane = 424242
	_, err := e.Store.Interim(e.ctx, 424242, []quota.Interim{{Record: r, Number: 1}})
	e.refused(err, quota.ReasonFenced)
}

// interimFinal: a LATE of less than was noted, behind the fence and before the closing, is the
// client's last word.
func interimFinal(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	r := owner.commit("acme", wallet(50))
	owner.interim(1, used(r))
	e.must(e.Store.Fence(e.ctx, owner.Lane))
	late := other.settled(charging(r, 20), quota.VerdictApplied)
	e.check(late.Phase == quota.PhaseLate && late.Charged == 20, "LATE entry %+v", late)
	owner.closeFenced(owner.Lane)
	e.same("entries", e.entries(), []quota.Entry{late})
}

// interimOwner: an owner that slept while its lane was closed sends its next batch, whose number the
// closing took. Nothing of it is there, and it hears that it is fenced.
func interimOwner(e *Env) {
	e.account("acme", "")
	n, other := e.node(), e.node()
	r, unsent := n.commit("acme", wallet(50)), n.commit("acme", wallet(5))
	n.interim(1, used(r))
	n.closeLane(n.Lane)
	for _, records := range [][]quota.Record{{charging(r, 60)}, {unsent}} {
		res, err := e.Store.Append(e.ctx, n.Lane, 1, records)
		e.must(err)
		e.same("append behind the closing", res, quota.AppendResult{Fenced: true})
	}
	e.check(len(e.entries()) == 1, "entries %+v", e.entries())
	e.same("the rest", other.settled(charging(r, 60), quota.VerdictApplied).Charged, int64(10))
}

// interimParts: more than are charged in one transaction.
func interimParts(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	for range 5 {
		n.interim(1, used(n.commit("acme", wallet(10, part(a, 10)))))
	}
	n.leave() // two at a time
	e.check(len(e.entries()) == 5, "entries %+v", e.entries())
	e.figures("acme", "one", 950, 0, 50, 0, 0, 0)
}

// interimLate: behind an expiry with usage only the rest is charged, once.
func interimLate(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	for _, c := range []struct{ final, rest int64 }{{70, 20}, {50, 0}, {30, 0}} {
		for _, crashed := range []bool{false, true} {
			owner, other := e.node(), e.node()
			a := owner.take("acme", 60)
			r := owner.commit("acme", wallet(50, part(a, 50)))
			r.Usage, r.Lines = []quota.Quantity{{Meter: "output_tokens", Quantity: 50}}, []int64{50}
			if crashed {
				owner.interim(1, used(r))
				owner.leave()
			} else {
				owner.append(used(r))
			}
			late := other.settled(charging(r, c.final), quota.VerdictApplied)
			e.check(late.Phase == quota.PhaseLate && late.Charged == c.rest && late.Uncovered == c.rest && len(late.Parts) == 0,
				"LATE of %d behind 50 is %+v", c.final, late)
			e.same("again", other.settled(charging(r, c.final), quota.VerdictSettled), late)
			if !crashed {
				owner.leave()
			}
			e.finish(other)
		}
	}
}

// interimExpired: the owner charges what it took in, whatever of that is durable.
func interimExpired(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 100)
	r := used(n.commit("acme", wallet(50, part(a, 50))))
	n.interim(1, used(charging(r, 20)))
	n.append(r)
	e.same("entries", e.entries(), []quota.Entry{r.Entry(n.Lane, 1)})
	batches, err := e.Store.Batches(e.ctx, quota.Cursor{Lane: n.Lane}, 10)
	e.must(err)
	e.same("batches", batches, []quota.Batch{{Lane: n.Lane, No: 1, Records: []quota.Record{r}}})
	e.finish(n)
	e.figures("acme", "one", 950, 0, 50, 0, 0, 0)
}

// concurrentInterims is R3 and R23: reports of interim usage race the fence and the closing of their
// lane, and commits elsewhere. What was acknowledged is charged, by the closing or by a commit that
// knew the rest; nothing is charged twice.
func concurrentInterims(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 100000)
	owner, other := e.node(), e.node()
	var records []quota.Record
	for range 40 {
		records = append(records, charging(owner.commit("acme"), 60))
	}
	owner.die()
	noted := make([]int64, len(records)) // the most that was acknowledged of each
	final := make(map[uint64]int64)      // and what a client said at last
	reported := make(chan struct{})      // half of them were
	e.together(func(worker int) error {
		switch worker {
		case 0:
			<-reported
			if err := stubborn(func() error { return e.Store.Fence(e.ctx, owner.Lane) }); err != nil {
				return err
			}
			for done := false; !done; {
				var err error
				if done, err = insist(func() (bool, error) { return e.Store.CloseLane(e.ctx, owner.Lane, e.Now(), 3) }); err != nil {
					return err
				}
			}
		case 1:
			for i := 0; i < len(records); i += 4 {
				entry, err := other.settleForeign(records[i])
				if err != nil {
					return err
				}
				final[entry.Sequence] = 60
			}
		case 2:
			first := sync.OnceFunc(func() { close(reported) })
			defer first()
			for n := int64(1); n <= 4; n++ {
				if n > 1 {
					first()
				}
				for i := range records {
					if n == 1 && i%2 == 0 {
						continue
					}
					report := []quota.Interim{{Record: used(charging(records[i], 10*n)), Number: n}}
					ended, err := insist(func() ([]quota.Entry, error) { return e.Store.Interim(e.ctx, owner.Lane, report) })
					if errors.Is(err, quota.ReasonFenced) {
						return nil
					}
					if err != nil {
						return err
					}
					if len(ended) == 0 {
						noted[i] = 10 * n
					}
				}
			}
		}
		return nil
	})
	owner.closeLane(owner.Guest)
	charged := make(map[uint64]int64)
	for _, entry := range e.entries() {
		charged[entry.Sequence] += entry.Charged
	}
	for i := range records {
		sequence := records[i].Sequence
		want, got := noted[i], charged[sequence]
		if said, ok := final[sequence]; ok {
			want = said
		}
		// A report whose answer was lost may count though it was not acknowledged.
		if _, ok := final[sequence]; got != want && (ok || got < want || got > 40) {
			e.Fatalf("reservation %d is charged %d, want %d", sequence, got, want)
		}
	}
	e.finish(other)
}
