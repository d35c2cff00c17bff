package authority

import (
	"context"
	"errors"
	"strconv"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// Interim notes what a reservation has used so far: a floor, and no charge (R23). It is durable when
// it returns, and charged by whoever ends the reservation without a commit or release: its owner
// when it expires, or who closes the lane of an owner that died. Of several reports the most
// counts of each meter, in whatever order they come; a commit counts as it says. s is as for
// Commit; Delivered has no meaning here.
//
// Only the node that holds the reservation takes it. Reasons, all definite: TOKEN_INVALID,
// CALLER_NOT_ALLOWED, UNIT_UNKNOWN, AMOUNT_INVALID, RESERVATION_COMMITTED, RESERVATION_RELEASED,
// RESERVATION_EXPIRED, TOKEN_TOO_OLD, EXTEND_ELSEWHERE (as in Extend), SERVER_OVERLOADED,
// STORE_UNAVAILABLE. Indefinite: OUTCOME_UNKNOWN and a context's end: it may still count; the
// same report again is harmless.
func (a *Authority) Interim(ctx context.Context, p *authz.Principal, s *quota.Settle) error {
	var x settlement
	if err := a.decode(ctx, p, s.Token, &x.token); err != nil {
		return err
	}
	if err := a.record(ctx, s, quota.Committed, &x); err != nil {
		return err
	}
	sh := a.ownerOf(x.rec.Lane, x.rec.Sequence)
	if sh == nil {
		return nothingHeld(a.notHere(ctx, &x.token))
	}
	if sh.lane.interimsFull() {
		return overloaded("this node's queue of interim usage is full")
	}
	told := make(chan error, 1)
	status, ending, queued := sh.interim(&x.rec, told)
	switch {
	case status == escrow.Underway:
		return ended(ending)
	case !queued:
		return nothingHeld(a.notHere(ctx, &x.token))
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SettleTimeout)
	defer cancel()
	select {
	case err := <-told:
		return err
	case <-ctx.Done():
		return a.unknownOutcome(ctx)
	}
}

// interim notes usage with the hold and in the lane's queue, under one lock, so that what is
// acknowledged is known to who writes EXPIRED.
func (s *shard) interim(rec *quota.Record, told chan error) (status escrow.SettleStatus, ending quota.SettleKind, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, ending, x := s.core.Interim(*rec, told)
	return status, ending, status == escrow.Enqueue && s.lane.pushInterim(x)
}

// interimLoop makes a lane's interim usage durable until ctx ends or the lane is fenced. It runs
// beside the lane's flusher, which must not wait for it.
func (a *Authority) interimLoop(ctx context.Context, l *lane) {
	wait := backoffFirst
	for {
		batch, open := l.interimBatch()
		if !open {
			a.fencedInterims(l)
			return
		}
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-l.reported:
				continue
			}
		}
		err := a.flushInterims(ctx, l, batch)
		switch {
		case err == nil:
			wait = backoffFirst
		case errors.Is(err, quota.ReasonFenced):
			a.lost(l.engine)
			a.fencedInterims(l)
			return
		default: // unknown or unavailable: the same again, which is harmless
			a.deps.Logger.Warn("interim usage will be sent again", "lane", l.journal.Lane(), "error", err)
			if !sleep(ctx, wait) {
				return
			}
			wait = min(2*wait, backoffMost)
		}
	}
}

// flushInterims sends some reports and tells who waits; an error means that the outcome is not
// known or nothing was written.
func (a *Authority) flushInterims(ctx context.Context, l *lane, batch []*escrow.Interim) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	interims := make([]quota.Interim, len(batch))
	for i, x := range batch {
		interims[i] = x.Interim
	}
	found, err := a.deps.Store.Interim(ctx, l.journal.Lane(), interims)
	if err != nil {
		return err
	}
	over := make(map[uint64]*quota.Entry, len(found))
	for i := range found {
		over[found[i].Sequence] = &found[i]
	}
	l.mu.Lock()
	done := l.interims.Done()
	l.mu.Unlock()
	for _, x := range done {
		if e := over[x.Record.Sequence]; e != nil {
			x.Reply.(chan error) <- endedBy(e)
			continue
		}
		a.metrics.Interim()
		x.Reply.(chan error) <- nil
	}
	return nil
}

// fencedInterims ends the queue of a lane that is closing. Whether an earlier sending of a report
// landed is not known.
func (a *Authority) fencedInterims(l *lane) {
	l.mu.Lock()
	rest := l.interims.Fenced()
	l.mu.Unlock()
	for _, x := range rest {
		x.Reply.(chan error) <- quota.Errorf(quota.ReasonOutcomeUnknown,
			"the node lost its lease; the report may still count: commit with all that was used")
	}
}

// endedBy refuses what needs a live reservation, for how it ended.
func endedBy(e *quota.Entry) error {
	if e.Kind != quota.Committed {
		return ended(e.Kind)
	}
	return &quota.Error{Reason: quota.ReasonReservationCommitted, NotApplied: true,
		Message: "the reservation was committed, with the amount in charged_micros; reserve anew",
		Meta:    map[string]string{"charged_micros": strconv.FormatInt(e.Charged, 10)}}
}

// pushInterim queues a report and rings; false if the lane is fenced.
func (l *lane) pushInterim(x *escrow.Interim) bool {
	l.mu.Lock()
	open := !l.journal.Closed() && l.interims.Push(x)
	l.mu.Unlock()
	if open {
		l.ringInterims()
	}
	return open
}

// interimBatch is what to send next; open is false once the lane is known to be fenced.
func (l *lane) interimBatch() (batch []*escrow.Interim, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.interims.Batch(), !l.journal.Closed()
}

func (l *lane) interimsFull() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.interims.Full()
}

func (l *lane) ringInterims() {
	select {
	case l.reported <- struct{}{}:
	default:
	}
}
