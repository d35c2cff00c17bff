package escrow

import (
	"context"
	"slices"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/projection"
)

// call brings a client's commit or release to a node: to its lane if the reservation is held
// there, else to its guest lane.
func (w *small) call(n *smallNode, m move, kind quota.SettleKind) {
	t := w.db.Oracle.Tokens()[m.on]
	sent := t.Token
	if m.older {
		sent = t.Older[0]
	}
	rec := w.record(t, kind, int64(m.arg))
	rec.ExpiresAt = sent.Expires
	if n.lane == t.Key.Lane && !n.own.Closed() {
		if w.flaw.oldGeneration && m.older {
			n.shard.forgetExtension(&sent)
		}
		st, x := n.shard.Settle(w.db.Now, rec, nil)
		switch st {
		case Enqueue:
			t.Released = t.Released || kind == quota.Released
			t.Reported = max(t.Reported, rec.Charged())
			if w.flaw.newestFirst {
				newestFirst(x.Record.Slots)
			}
			n.own.Push(x)
			if w.flaw.freeEarly {
				x.Fate.Verdict = quota.VerdictApplied
				n.shard.Settled(x)
			}
			return
		case Underway:
			return
		}
	}
	if n.guest.Closed() || n.guest.has(&rec) {
		return
	}
	t.Released = t.Released || kind == quota.Released
	t.Reported = max(t.Reported, rec.Charged())
	Foreign(&sent, &rec)
	if w.flaw.takesMore {
		s := &rec.Slots[0]
		s.Parts = addPart(s.Parts, s.Anchor, s.Uncovered)
		s.Uncovered = 0
	}
	waits := n.guest.Len() > 0
	n.guest.Push(&Pending{Record: rec})
	if !waits {
		w.settle(n, m.late)
	}
}

// has reports whether the same settlement is queued or in flight.
func (j *Journal) has(rec *quota.Record) bool {
	same := func(p *Pending) bool {
		return p.Record.EntryKey == rec.EntryKey && p.Record.Kind == rec.Kind && p.Record.Digest == rec.Digest
	}
	return slices.ContainsFunc(j.queue, same) || slices.ContainsFunc(j.flight, same)
}

// flush sends the own lane's batch.
func (w *small) flush(n *smallNode, late bool) {
	no, batch := n.own.Batch()
	recs := records(batch)
	if late {
		w.post(letter{verb: flushes, lane: n.lane, no: no, records: recs})
		w.unanswered(n)
		return
	}
	res, err := w.db.Append(context.Background(), n.lane, no, recs)
	var done []*Pending
	switch {
	case err != nil:
		w.db.Oracle.Violate("%v", err)
	case res.Applied:
		done = n.own.Applied()
	case res.Fenced:
		w.stranded(n, n.own.Fenced())
	case w.flaw.answersAll:
		done = n.own.Applied()
	default:
		done = n.own.Refused(res.Winners)
	}
	for _, x := range done {
		w.finish(n, x)
	}
}

// unanswered is what a node must not do with a batch whose outcome it does not know.
func (w *small) unanswered(n *smallNode) {
	switch {
	case w.flaw.numberGivenUp:
		n.own.next++
	case w.flaw.absentByRead:
		for _, x := range n.own.land() {
			t := w.db.Oracle.Token(x.Record.EntryKey)
			x.Fate.Verdict = quota.VerdictApplied
			if !t.Settled() {
				x.Fate.Verdict = quota.VerdictSettled // by nobody: it is simply gone
				if x.Record.Kind == quota.Committed {
					w.db.Oracle.Refused(t.Key)
				}
			}
			n.shard.Settled(x)
		}
	}
}

// settle sends the guest lane's batch.
func (w *small) settle(n *smallNode, late bool) {
	no, batch := n.guest.Batch()
	recs := records(batch)
	if late {
		l := letter{verb: settles, lane: n.stray, no: no, records: recs}
		if w.flaw.decidedFirst {
			l.decided, _, _ = w.db.Clone().Settle(context.Background(), n.stray, no, recs)
		}
		w.post(l)
		return
	}
	fates, used, err := w.db.Settle(context.Background(), n.stray, no, recs)
	switch {
	case fencedOff(err):
		w.stranded(n, n.guest.Fenced())
	case err == nil:
		for _, x := range n.guest.Judged(fates, used) {
			w.finish(n, x)
		}
	}
}

// stranded is what a fenced lane left over: commits go to the guest lane (R26). When that is
// fenced too, who asked is told that the outcome is unknown.
func (w *small) stranded(n *smallNode, rest []*Pending) {
	n.lease.End()
	for _, x := range rest {
		x.Detach()
		switch {
		case x.Record.Kind != quota.Committed || n.guest.Closed():
		case w.flaw.refusedWhenFenced:
			w.db.Oracle.Refused(x.Record.EntryKey)
		default:
			n.guest.Push(x)
		}
	}
}

// finish tells the shard and the client what became of a settlement.
func (w *small) finish(n *smallNode, x *Pending) {
	fate := x.Fate
	fate.Entry.Parts = slices.Clone(fate.Entry.Parts)
	if x.Local() {
		n.shard.Settled(x)
	}
	if x.Record.Kind == quota.Expired {
		return
	}
	t := w.db.Oracle.Token(x.Record.EntryKey)
	switch {
	case fate.Verdict == quota.VerdictDropped, fate.Verdict == quota.VerdictTooOld:
		// nothing was done by this call, and nothing is said of others
	case fate.Entry.Kind == quota.Committed, x.Record.Kind == quota.Released:
		w.db.Oracle.Acknowledged(t.Key, &fate.Entry)
	case fate.Entry.Kind == quota.Expired:
		rec := x.Record
		Foreign(&t.Token, &rec)
		if !n.guest.Closed() && !n.guest.has(&rec) {
			n.guest.Push(&Pending{Record: rec})
		}
	default:
		w.db.Oracle.Refused(t.Key)
	}
}

// post sends a letter, unless the same one is on its way.
func (w *small) post(l letter) {
	for i := range w.letters {
		if w.letters[i].same(&l) {
			return
		}
	}
	w.late--
	w.letters = append(slices.Clip(w.letters), l)
}

func (l *letter) same(o *letter) bool {
	if l.verb != o.verb || l.lane != o.lane || l.no != o.no {
		return false
	}
	switch l.verb {
	case draws:
		return l.draw.Wants[0].First == o.draw.Wants[0].First
	case returns:
		return slices.Equal(l.shrinks, o.shrinks)
	case projects:
		return l.projection.From == o.projection.From
	}
	return slices.EqualFunc(l.records, o.records, func(a, b quota.Record) bool {
		return a.EntryKey == b.EntryKey && a.Kind == b.Kind && a.Digest == b.Digest
	})
}

// dead reports that a letter can have no effect any more: what speaks against it does not go away.
// It lands at once, to have fewer states; and should the database let it have one, all the better.
func (w *small) dead(l *letter) bool {
	if l.verb == interims {
		r := &l.records[0]
		return !w.db.LaneOpen(l.lane) || w.db.Oracle.Token(r.EntryKey).Settled() || w.db.InterimOf(r.EntryKey) >= l.no
	}
	if l.verb == projects {
		return w.db.Cursor(l.lane).No != l.projection.From
	}
	if !w.db.LaneOpen(l.lane) {
		return true
	}
	switch l.verb {
	case draws:
		return w.db.Shrinks(l.lane, l.draw.Wants[0].First) >= 0
	case returns:
		return w.db.Shrinks(l.lane, l.shrinks[0].Number) >= l.shrinks[0].Sequence
	case flushes:
		return slices.ContainsFunc(l.records, func(r quota.Record) bool { return w.db.Oracle.Token(r.EntryKey).Settled() })
	}
	return !slices.ContainsFunc(l.records, func(r quota.Record) bool {
		return !w.db.Oracle.Token(r.EntryKey).Closed(r.Kind)
	})
}

// land lets a letter arrive. Nobody listens to the answer.
func (w *small) land(i int) {
	l, ctx := w.letters[i], context.Background()
	w.letters = slices.Delete(slices.Clone(w.letters), i, i+1)
	switch l.verb {
	case flushes:
		_, _ = w.db.Append(ctx, l.lane, l.no, l.records)
	case interims:
		_, _ = w.db.Interim(ctx, l.lane, []quota.Interim{{Record: l.records[0], Number: l.no}})
	case settles:
		if l.decided != nil {
			w.db.Break.Judge = l.remembered
		}
		_, _, _ = w.db.Settle(ctx, l.lane, l.no, l.records)
		w.db.Break.Judge = w.flaw.database.Judge
	case draws:
		_, _ = w.db.Draw(ctx, []quota.Draw{*l.draw})
	case returns:
		_ = w.db.Return(ctx, l.lane, l.shrinks)
	case projects:
		_, _ = w.db.Project(ctx, l.projection)
	}
}

// remembered judges a record as it was judged when the letter was sent.
func (l *letter) remembered(_ bool, _, _ *quota.Entry, r *quota.Record) (quota.Settlement, bool, bool) {
	for i := range l.records {
		if x := &l.records[i]; x.EntryKey == r.EntryKey && x.Kind == r.Kind {
			fate := l.decided[i]
			return fate, fate.Verdict == quota.VerdictApplied, fate.Entry.Phase == quota.PhaseLate
		}
	}
	panic("a record that was not sent")
}

// project moves a lane's cursor by one batch.
func (w *small) project(lane quota.LaneID, late bool) {
	ctx, c := context.Background(), w.db.Cursor(lane)
	batches, _ := w.db.Batches(ctx, c, 1)
	if w.flaw.bySequence && !late {
		batches[0].Records = w.ahead(lane, batches[0].Records)
	}
	pots, _ := w.db.PotsOf(ctx, projection.Refs(batches))
	p := projection.Build(c, w.db.Now, batches, pots)
	if late {
		w.post(letter{verb: projects, lane: lane, projection: p})
		return
	}
	_, _ = w.db.Project(ctx, p)
}

// ahead is what a cursor over sequences, which R20 forbids, would find behind itself.
func (w *small) ahead(lane quota.LaneID, all []quota.Record) (kept []quota.Record) {
	for _, r := range all {
		if r.Sequence > w.projected[lane] {
			kept = append(kept, r)
		}
	}
	for _, r := range kept {
		w.projected[lane] = max(w.projected[lane], r.Sequence)
	}
	return kept
}
