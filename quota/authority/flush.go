package authority

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// flushLoop makes a lane's settlements durable until ctx ends or the lane is fenced: one
// batch in flight, everything queued meanwhile goes with the next.
func (a *Authority) flushLoop(ctx context.Context, l *lane) {
	wait := backoffFirst
	for {
		l.mu.Lock()
		no, batch := l.journal.Batch()
		l.mu.Unlock()
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-l.bell:
				continue
			}
		}
		err := a.flush(ctx, l, no, batch)
		switch {
		case l.closed():
			return
		case err == nil:
			wait = backoffFirst
			a.trouble.Store(nil)
		default: // unknown or unavailable: the same batch again (R5)
			if l.guest && errors.Is(err, quota.ReasonContention) {
				l.mu.Lock()
				l.journal.Halve()
				l.mu.Unlock()
			}
			if known, ok := errors.AsType[*quota.Error](err); ok {
				a.trouble.Store(known)
			}
			a.deps.Logger.Warn("flush will be sent again", "lane", l.journal.Lane(), "batch", no, "error", err)
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, backoffMost)
		}
	}
}

// flush sends one batch and takes in its outcome; an error means that the outcome is not
// known or nothing was written.
func (a *Authority) flush(ctx context.Context, l *lane, no int64, batch []*escrow.Pending) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	records := make([]quota.Record, len(batch))
	for i, p := range batch {
		records[i] = p.Record
	}
	spans := spansOf(batch)
	start := a.deps.Clock.Now()
	var done, rest []*escrow.Pending
	var err error
	if l.guest {
		done, rest, err = a.flushGuest(ctx, l, no, records)
	} else {
		done, rest, err = a.flushOwn(ctx, l, no, records)
	}
	f := Flushed{Guest: l.guest, Rows: len(records), Took: a.deps.Clock.Now().Sub(start), Failed: err != nil}
	a.metrics.Flushed(f, firstOf(spans))
	if len(spans) > 0 {
		a.shared(spanFlush, start, f.Took, spans, err, attrLane.String(l.kind()), attrBatch.Int64(no), attrRecords.Int(f.Rows))
	}
	now := a.now()
	for _, p := range done {
		a.finish(l, p, now)
	}
	if rest != nil {
		a.stranded(l, rest)
	}
	return err
}

func (a *Authority) flushOwn(ctx context.Context, l *lane, no int64, records []quota.Record) (done, rest []*escrow.Pending, err error) {
	res, err := a.deps.Store.Append(ctx, l.journal.Lane(), no, records)
	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case res.Applied:
		return l.journal.Applied(), nil, nil
	case res.Fenced:
		return nil, l.journal.Fenced(), nil
	}
	return l.journal.Refused(res.Winners), nil, nil
}

func (a *Authority) flushGuest(ctx context.Context, l *lane, no int64, records []quota.Record) (done, rest []*escrow.Pending, err error) {
	fates, used, err := a.deps.Store.Settle(ctx, l.journal.Lane(), no, records)
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, quota.ReasonFenced) {
		return nil, l.journal.Fenced(), nil
	}
	if err != nil {
		return nil, nil, err
	}
	return l.journal.Judged(fates, used), nil, nil
}

// finish tells the shard and the callers what became of a settlement, at now. Call it without
// locks.
func (a *Authority) finish(l *lane, p *escrow.Pending, now int64) {
	below := false
	if p.Local() {
		sh := l.engine.owner(p.Record.Lane, p.Record.Sequence)
		sh.mu.Lock()
		below = sh.core.Below(p)
		sh.core.Settled(p)
		sh.mu.Unlock()
	}
	r, waited := p.Reply.(*reply)
	if p.Fate.Verdict == quota.VerdictApplied {
		var span trace.SpanContext
		if waited && r.own.span != nil {
			span = *r.own.span
		}
		e := &p.Fate.Entry
		a.metrics.Settled(Settlement{Kind: e.Kind, Late: e.Phase == quota.PhaseLate, Charged: e.Charged, Uncovered: e.Uncovered,
			Took: time.Duration(now - p.Record.SettledAt)}, span)
		if below {
			a.metrics.BelowInterim()
		}
		if a.watcher.Watched() {
			a.watcher.Settled(&p.Record, e)
		}
	}
	if waited {
		r.known(a, p)
	}
}

// stranded settles what a fenced lane left over: commits go to the newest guest lane, to be
// charged LATE or found to have landed; releases and expiries are dropped, for nothing is
// held any more (R26).
func (a *Authority) stranded(l *lane, rest []*escrow.Pending) {
	a.lost(l.engine)
	l.ringInterims()
	for _, p := range rest {
		p.Detach()
		if p.Record.Kind == quota.Committed {
			a.toGuest(p)
			continue
		}
		p.Fate = quota.Settlement{Verdict: quota.VerdictDropped}
		a.finish(l, p, a.now())
	}
}

// toGuest queues in the newest guest lane, or keeps the settlement until there is one.
func (a *Authority) toGuest(p *escrow.Pending) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.engine.Load().guest.push(p) {
		a.orphans = append(a.orphans, p)
	}
}
