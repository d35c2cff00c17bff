package authority

import (
	"context"
	"errors"
	"sort"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

const (
	drawQueue    = 1 << 14 // draws waiting for their lane's turn, each of another payer
	aheadQueue   = 1 << 11 // with so many there, none is made ahead of need
	drawBatch    = 64      // draws in one transaction
	storeTimeout = 5 * time.Second
	backoffFirst = 5 * time.Millisecond
	backoffMost  = 500 * time.Millisecond
)

// draw is a draw under way, with those who wait for it.
type draw struct {
	*escrow.Draw
	shard   *shard
	engine  *engine
	waiters int
	hanging []Waker             // those of them that do not block
	spans   []trace.SpanContext // of sampled requests it is made for
	done    chan struct{}
	err     error
}

// drawFor starts the draw for a short request, or joins the one under way. Call it under the
// shard lock.
func (a *Authority) drawFor(sh *shard, e *engine, now int64, c *call) (*draw, error) {
	if w, ok := sh.draws[c.req.Payer]; ok {
		if w.waiters >= a.cfg.MaxWaiters {
			return nil, overloaded("as many requests as may wait for this payer's credits do")
		}
		w.waiters++
		w.joinSpan(c.span)
		sh.core.Join(&c.res)
		return w, nil
	}
	d := sh.core.BeginDraw(now, e.id, &c.res)
	if d == nil && sh.core.UsedUp() {
		a.lost(e)
		return nil, overloaded("this node is beginning a new incarnation")
	}
	if d == nil {
		return nil, overloaded("the windows asked for have just ended")
	}
	w := &draw{Draw: d, shard: sh, engine: e, waiters: 1, done: make(chan struct{})}
	w.joinSpan(c.span)
	sh.draws[c.req.Payer] = w
	if !a.submit(w, drawQueue) {
		a.endDraw(w, nil, overloaded("as many draws as may wait for the store do"))
	}
	return w, nil
}

// joinSpan adds a sampled request's span. Call it under the shard lock.
func (w *draw) joinSpan(span trace.SpanContext) {
	if span.IsValid() {
		w.spans = append(w.spans, span)
	}
}

// await waits for a draw.
func (a *Authority) await(ctx context.Context, w *draw, acc *account) error {
	began := a.deps.Clock.Now()
	select {
	case <-w.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	a.metrics.Waited(a.deps.Clock.Now().Sub(began), a.sampledSpan(ctx))
	return a.drawn(w, acc)
}

// drawn is what an ended draw means to those who waited for it; a policy change met by it asks
// for another round.
func (a *Authority) drawn(w *draw, acc *account) error {
	switch {
	case errors.Is(w.err, quota.ReasonPolicyChanged):
		a.accounts.drop(acc)
		return nil
	case errors.Is(w.err, quota.ReasonFenced):
		return nil // issuing finds the next incarnation, or says why not
	}
	return nothingHeld(w.err)
}

// nothingHeld says of a failed draw what is true of every failed reserve: it is definite
// (R52), even if the draw itself may have happened; then its lane's closing returns it.
func nothingHeld(err error) error {
	var e *quota.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	definite := *e
	definite.NotApplied = true
	if e.Reason == quota.ReasonOutcomeUnknown {
		definite.Reason = quota.ReasonStoreUnavailable
	}
	return &definite
}

// drawAhead starts draws for pools that run low, before anyone has to wait. They get a small part
// of the queue, so that they are in nobody's way who does wait. Call it under the shard lock.
func (a *Authority) drawAhead(sh *shard, e *engine, now int64, span trace.SpanContext) {
	for {
		d := sh.core.BeginAhead(now, e.id)
		if d == nil {
			return
		}
		w := &draw{Draw: d, shard: sh, engine: e, done: make(chan struct{})}
		w.joinSpan(span)
		sh.draws[d.Payer()] = w
		if !a.submit(w, aheadQueue) {
			a.endDraw(w, nil, overloaded("as many draws as may wait for the store do"))
			return
		}
	}
}

// submit queues a draw with those of its lane; false if as many as most are there.
func (a *Authority) submit(w *draw, most int) bool {
	queue := a.draws[w.shard.lane.index]
	if len(queue) >= most {
		return false
	}
	select {
	case queue <- w:
		return true
	default:
		return false
	}
}

// drawLoop makes the draws of a lane: one transaction at a time, with all draws that came
// meanwhile. Two at once would meet in the lane's allotment numbers, which are neighbours.
func (a *Authority) drawLoop(ctx context.Context, queue <-chan *draw) error {
	var batch []*draw
	for {
		select {
		case <-ctx.Done():
			return nil
		case w := <-queue:
			batch = append(batch[:0], w)
		}
		for more := true; more && len(batch) < drawBatch; {
			select {
			case w := <-queue:
				batch = append(batch, w)
			default:
				more = false
			}
		}
		a.draw(ctx, batch)
	}
}

// draw sends draws until their outcome is known (R11) and tells the shards and who waits. A
// batch that loses against others is halved, so that the one they fight over holds up only
// itself.
func (a *Authority) draw(ctx context.Context, batch []*draw) {
	start := a.deps.Clock.Now()
	results, err := a.sendDraws(ctx, batch)
	if half := len(batch) / 2; half > 0 && errors.Is(err, quota.ReasonContention) {
		a.draw(ctx, batch[:half])
		a.draw(ctx, batch[half:])
		return
	}
	drew := Drew{Took: a.deps.Clock.Now().Sub(start), Failed: err != nil}
	var spans []trace.SpanContext
	for i, w := range batch {
		r := quota.DrawResult{Err: err}
		if err == nil {
			r = results[i]
		}
		if errors.Is(r.Err, quota.ReasonFenced) {
			a.lost(w.engine)
		}
		w.shard.mu.Lock()
		a.endDraw(w, r.Drawn, r.Err)
		spans = append(spans, w.spans...) // nobody joins a draw that has ended
		w.shard.mu.Unlock()
		drew.Pots += len(w.Wants)
		drew.Micros += fromGrants(w.Wants, r.Drawn)
		drew.Failed = drew.Failed || r.Err != nil
	}
	a.metrics.Drew(drew, firstOf(spans))
	if len(spans) > 0 {
		a.shared(spanDraw, start, drew.Took, spans, err, attrPots.Int(drew.Pots), attrDrawn.Int64(drew.Micros))
	}
}

// sendDraws sends a batch until it is known what became of it. One draw alone does not give
// up at the first CONTENTION.
func (a *Authority) sendDraws(ctx context.Context, batch []*draw) (results []quota.DrawResult, err error) {
	draws := make([]quota.Draw, len(batch))
	send := func(ctx context.Context) (err error) {
		for i, w := range batch {
			draws[i] = w.Draw.Draw
		}
		results, err = a.deps.Store.Draw(ctx, draws)
		if errors.Is(err, quota.ReasonOutcomeUnknown) {
			for _, w := range batch {
				w.Again = true
			}
		}
		return err
	}
	if len(batch) == 1 {
		err = a.uncontended(ctx, send)
	} else {
		err = a.untilKnown(ctx, send)
	}
	return results, err
}

// fromGrants sums what a draw took from grants, in micros.
func fromGrants(wants []quota.Want, drawn []quota.Drawn) (sum int64) {
	for i := range drawn {
		if wants[i].Kind == quota.PotWallet {
			for _, allotment := range drawn[i].Allotments {
				sum += allotment.Amount
			}
		}
	}
	return sum
}

// endDraw takes in a draw's answer and wakes who waits. Call it under the shard lock.
func (a *Authority) endDraw(w *draw, drawn []quota.Drawn, err error) {
	if err != nil {
		w.shard.core.FailDraw(w.Draw)
	} else if w.shard.core.EndDraw(w.engine.lease.Load().Now(a.instant()), w.Draw, drawn) {
		a.hurry() // to wish for what others have
	}
	delete(w.shard.draws, w.Payer())
	w.err = err
	close(w.done)
	for _, h := range w.hanging {
		h.Wake()
	}
	w.hanging = nil
}

// contendedTries is how often a draw that lost against others is tried again, beyond what the
// store tried, before those who wait for it are told.
const contendedTries = 5

// uncontended is untilKnown that does not give up at the first CONTENTION.
func (a *Authority) uncontended(ctx context.Context, send func(context.Context) error) error {
	wait := backoffFirst
	for try := 1; ; try++ {
		err := a.untilKnown(ctx, send)
		if !errors.Is(err, quota.ReasonContention) || try == contendedTries || !sleep(ctx, wait) {
			return err
		}
		wait = min(2*wait, backoffMost)
	}
}

// untilKnown sends a keyed write again while its outcome is unknown. After one unknown
// outcome a failure of a later sending says nothing about the first: only success ends it, or
// a refusal that the first must meet as well. It gives up only when the process ends.
func (a *Authority) untilKnown(ctx context.Context, send func(context.Context) error) error {
	wait, unknown := backoffFirst, false
	for {
		attempt, cancel := context.WithTimeout(ctx, storeTimeout)
		err := send(attempt)
		cancel()
		unknown = unknown || errors.Is(err, quota.ReasonOutcomeUnknown)
		if err == nil || !unknown || ctx.Err() != nil ||
			errors.Is(err, quota.ReasonFenced) || errors.Is(err, quota.ReasonPolicyChanged) {
			return err
		}
		a.deps.Logger.Warn("outcome unknown, sending again", "error", err)
		if !sleep(ctx, wait) {
			return err
		}
		wait = min(2*wait, backoffMost)
	}
}

// sleep waits; false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// returnRows is how many allotments one return batch may touch.
const returnRows = 100

// giveBack returns what an engine's shards do not need, or all that is free, one transaction
// per lane; it reports how many allotments it touched. Only one call per engine at a time.
func (a *Authority) giveBack(ctx context.Context, e *engine, all bool) (touched int) {
	select {
	case e.returning <- struct{}{}:
		defer func() { <-e.returning }()
	case <-ctx.Done():
		return 0
	}
	now := e.lease.Load().Now(a.instant())
	for _, l := range e.lanes {
		if l.closed() {
			continue
		}
		var shrinks []quota.Shrink
		for _, sh := range e.shards {
			if sh.lane == l && len(shrinks) < returnRows {
				sh.mu.Lock()
				shrinks = append(shrinks, sh.core.BeginReturn(now, all, returnRows-len(shrinks))...)
				sh.mu.Unlock()
			}
		}
		if len(shrinks) > 0 && a.sendReturn(ctx, l.journal.Lane(), shrinks) {
			a.metrics.Returned(e.endReturn(l, shrinks))
			touched += len(shrinks)
		}
	}
	return touched
}

// endReturn tells the lane's shards; each knows its own allotments by their numbers. It
// reports what went back to grants, in micros.
func (e *engine) endReturn(l *lane, shrinks []quota.Shrink) (micros int64) {
	for _, sh := range e.shards {
		if sh.lane == l {
			sh.mu.Lock()
			micros += sh.core.EndReturn(shrinks)
			sh.mu.Unlock()
		}
	}
	return micros
}

// sendReturn sends a return batch until it is durable. It is not when the lane is fenced,
// whose closing gives everything back, or when the process ends; the amounts stay out of
// reach here either way.
func (a *Authority) sendReturn(ctx context.Context, l quota.LaneID, shrinks []quota.Shrink) bool {
	sort.Slice(shrinks, func(i, j int) bool { return shrinks[i].Number < shrinks[j].Number })
	wait := backoffFirst
	for {
		attempt, cancel := context.WithTimeout(ctx, storeTimeout)
		err := a.deps.Store.Return(attempt, l, shrinks)
		cancel()
		if err == nil {
			return true
		}
		if errors.Is(err, quota.ReasonFenced) || !sleep(ctx, wait) {
			return false
		}
		wait = min(2*wait, backoffMost)
	}
}
