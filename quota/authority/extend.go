package authority

import (
	"context"
	"strconv"
	"sync"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/token"
)

// extension is the working memory of one Extend.
type extension struct {
	call
	token   token.Token
	granted []quota.Quantity // so far
	totals  []quota.Estimate
	whole   quota.Request // what a denial is about
}

var extensions = sync.Pool{New: func() any { return &extension{whole: quota.Request{Candidates: make([]string, 1)}} }}

// Extend raises what a reservation holds to the totals of x, and the time it is held for, or
// leaves it as it is: a denial is a nil error with d.Allowed false. It never lowers either, so
// the same extension twice is one, whatever generation of the token it comes with; d.Replayed
// says that there was nothing to change. d is overwritten, its memory reused. It blocks on
// storage as Reserve does, and for one read if the reservation is not held here.
//
// Only the node that issued a reservation can extend it (R35). Prices are those it was made at;
// account, plan and limits are those of now, and so are the pots that more is taken from (R34).
//
// Reasons, all definite: TOKEN_INVALID, CALLER_NOT_ALLOWED, UNIT_UNKNOWN, TTL_OUT_OF_RANGE,
// REQUEST_INVALID, RESERVATION_COMMITTED, RESERVATION_RELEASED, RESERVATION_EXPIRED,
// TOKEN_TOO_OLD, EXTEND_ELSEWHERE (metadata: owner_state, and the owner's address if it has
// one), SERVER_OVERLOADED, SHUTTING_DOWN, STORE_UNAVAILABLE.
func (a *Authority) Extend(ctx context.Context, p *authz.Principal, x *quota.Extension, d *quota.Decision) error {
	resetDecision(d)
	return nothingHeld(a.extend(ctx, p, x, d))
}

// extended tells of a decision: those who count, and those who look.
func (a *Authority) extended(p *authz.Principal, c *extension, d *quota.Decision) {
	a.metrics.Extended(d.Denial.Reason, d.Replayed)
	if a.watcher.Watched() {
		a.watcher.Extended(p.Name, &quota.Request{Account: c.token.Account, Candidates: []string{c.token.Feature}}, d)
	}
}

func (a *Authority) extend(ctx context.Context, p *authz.Principal, x *quota.Extension, d *quota.Decision) error {
	c := extensions.Get().(*extension)
	defer extensions.Put(c)
	if err := a.decode(ctx, p, x.Token, &c.token); err != nil {
		return err
	}
	c.span = a.sampledSpan(ctx)
	ttl, err := a.holdFor(x.TTL)
	if err != nil {
		return err
	}
	t := &c.token
	c.req.Account, c.req.Payer, c.req.Principal, c.req.Labels = t.Account, t.Payer, t.Principal, t.Labels
	c.req.TTL, c.req.HasKey, c.req.Counter = int64(ttl), false, nil
	for try := range reserveTries {
		e := a.engine.Load()
		sh := e.owner(quota.LaneID(t.Lane), t.Sequence)
		if sh == nil || sh.lane.closed() {
			return a.notHere(ctx, t)
		}
		var ending quota.SettleKind
		var held bool
		if c.granted, ending, held = sh.holding(t, c.granted[:0]); !held {
			return a.notHere(ctx, t)
		} else if ending != 0 {
			return ended(ending)
		}
		issuer, now, err := a.issuing()
		if err != nil {
			return err // I6, and a client that is to go elsewhere
		}
		if issuer != e {
			continue
		}
		c.req.Final = try == reserveTries-1
		again, err := a.raise(ctx, e, sh, now, x, c, d)
		if err != nil {
			return err
		}
		if !again {
			a.extended(p, c, d)
			return nil
		}
	}
	return quota.Errorf(quota.ReasonContention, "the account's policy keeps changing; try again")
}

// holding asks the shard what the reservation was granted so far.
func (s *shard) holding(t *token.Token, dst []quota.Quantity) ([]quota.Quantity, quota.SettleKind, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Holding(t.Sequence, t.Nonce, dst)
}

// raise runs one round: resolve, decide under the shard lock, draw if short. again asks for
// another round.
func (a *Authority) raise(ctx context.Context, e *engine, sh *shard, now int64, x *quota.Extension, c *extension, d *quota.Decision) (again bool, err error) {
	acc, err := a.accounts.get(ctx, c.token.Account)
	if err != nil {
		return false, err
	}
	d.Feature, d.Denial = c.token.Feature, quota.Denial{}
	defer func() {
		if d.Denial.Reason != 0 && d.Denial.Level.Account == "" {
			d.Denial.Level.Account = c.token.Account
		}
	}()
	if acc == nil {
		d.Denial = quota.Denial{Reason: quota.DeniedAccountUnknown, Subject: c.token.Account}
		return false, nil
	}
	if s, ok := acc.Suspended(); ok { // I13: an extension is a new token
		d.Denial = quota.Denial{Reason: quota.DeniedAccountSuspended, Subject: s.ID, Detail: s.SuspendReason}
		return false, nil
	}
	if resolved, err := a.resolveTotals(ctx, now, acc, x, c, d); err != nil || !resolved {
		return false, err
	}
	status, w, err := a.extendLocked(sh, e, acc, now, c, d)
	switch {
	case err != nil:
		return false, err
	case status == staleAccount, status == escrow.Outdated, status == escrow.Gone, status == escrow.Ending:
		return true, nil // what was found before the lock was taken is not so any more
	case w != nil:
		return true, a.await(ctx, w, acc)
	case status == escrow.Overloaded:
		return false, overloaded("this node keeps as many counters of rate limits as it may; what the reservation holds it still has")
	case status == escrow.Denied:
		c.whole.Account, c.whole.Candidates[0] = c.token.Account, c.token.Feature
		a.denied(ctx, &c.whole, &c.call, d)
	}
	return false, nil
}

// resolveTotals names the pots of the totals, as resolve does those of a request: the feature
// and its prices are the reservation's, everything else is of now.
func (a *Authority) resolveTotals(ctx context.Context, now int64, acc *account, x *quota.Extension, c *extension, d *quota.Decision) (resolved bool, err error) {
	if err := c.merge(x.Estimates); err != nil {
		return false, err
	}
	cat, err := a.catalogueWith(ctx, c.token.PriceVersion)
	if err != nil {
		return false, err
	}
	c.req.Candidates, c.req.Asked = c.req.Candidates[:0], len(c.totals)
	c.req.Epochs = acc.epochs
	plan, ok := cat.Plan(acc.plan)
	if !acc.planned || !ok {
		deny(d, quota.DeniedNotEntitled, c.token.Feature)
		return false, nil
	}
	err = c.candidate(now, cat, plan, acc, c.token.Feature, c.token.PriceVersion, c.totals, d)
	return len(c.req.Candidates) > 0, err
}

// merge writes down the totals: of the meters granted so far first, in their order, then of
// those that are new.
func (c *extension) merge(estimates []quota.Estimate) error {
	c.totals = c.totals[:0]
	for _, g := range c.granted {
		c.totals = append(c.totals, quota.Estimate{Meter: g.Meter, Quantity: g.Quantity})
	}
next:
	for _, e := range estimates {
		for i := range c.granted {
			if t := &c.totals[i]; t.Meter == e.Meter {
				if e.Quantity > t.Quantity { // never lowers
					*t = e
					t.Min = max(e.Min, c.granted[i].Quantity)
				}
				continue next
			}
		}
		c.totals = append(c.totals, e)
	}
	if len(c.totals) > quota.MaxMeters {
		return &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true,
			Message: "the reservation would count " + strconv.Itoa(len(c.totals)) + " meters; at most " + strconv.Itoa(quota.MaxMeters) + " are allowed"}
	}
	return nil
}

// extendLocked is the critical section. The token is encoded before anything is changed: one
// that gets too large leaves the reservation as it was.
func (a *Authority) extendLocked(sh *shard, e *engine, acc *account, now int64, c *extension, d *quota.Decision) (escrow.Status, *draw, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a.draining.Load() {
		return 0, nil, shuttingDown()
	}
	if acc.stale.Load() { // I13
		return staleAccount, nil, nil
	}
	status := sh.core.Extend(now, c.token.Sequence, c.token.Nonce, &c.req, &c.res)
	switch status {
	case escrow.Granted, escrow.Unchanged:
		raw, err := a.codec.Load().Append(d.Token[:0], &c.res.Token)
		if err != nil {
			return 0, nil, quota.Wrap(quota.ReasonRequestInvalid, "the reservation gets too large for a token; reserve anew for the rest, and commit this one with what was used", err)
		}
		if status == escrow.Granted {
			sh.core.Extended(now, &c.req, &c.res)
			a.drawAhead(sh, e, now, c.span)
		}
		c.describe(raw, d)
		d.Replayed = status == escrow.Unchanged
	case escrow.Short:
		w, err := a.drawFor(sh, e, now, &c.call)
		return status, w, err
	}
	return status, nil, nil
}

// notHere says why a reservation is not held here: it has ended, or another node issued it.
func (a *Authority) notHere(ctx context.Context, t *token.Token) error {
	w, known, err := a.deps.Store.Whereabouts(ctx, quota.LaneID(t.Lane), t.Sequence)
	switch {
	case err != nil:
		return err
	case !known, w.GCBefore > t.Expires: // R16
		return &quota.Error{Reason: quota.ReasonTokenTooOld, NotApplied: true,
			Message: "the journal no longer keeps this reservation; reserve anew"}
	case w.Entry != nil:
		return endedBy(w.Entry)
	case !w.Open:
		return ended(quota.Expired)
	}
	return a.elsewhere(t, &w)
}

// ended refuses to extend what has ended, or is about to: whatever becomes of the
// settlement, nothing is held under this token for long.
func ended(kind quota.SettleKind) error {
	e := &quota.Error{NotApplied: true}
	switch kind {
	case quota.Committed:
		e.Reason, e.Message = quota.ReasonReservationCommitted, "the reservation is being committed; reserve anew"
	case quota.Released:
		e.Reason, e.Message = quota.ReasonReservationReleased, "the reservation was released; reserve anew"
	default:
		e.Reason, e.Message = quota.ReasonReservationExpired, "the reservation has expired; commit it with what was used, and reserve anew for the rest"
	}
	return e
}

// elsewhere names the node that issued a live reservation. If that is gone, nobody can extend
// it, and it is said so.
func (a *Authority) elsewhere(t *token.Token, w *quota.Whereabouts) error {
	e := &quota.Error{Reason: quota.ReasonExtendElsewhere, NotApplied: true, Meta: map[string]string{}}
	const anew = "; reserve anew here for the rest, and commit this reservation with what was used"
	switch state := a.stateOf(t, w); {
	case state != quota.IncarnationLive:
		e.Message = "the node that issued the reservation is gone, so nobody can extend it or note what it has used" + anew
		e.Meta["owner_state"] = "DEAD"
	case w.Address == "":
		e.Message = "only node " + w.Node + ", which issued the reservation, can extend it or note what it has used, and it does not say where it can be reached" + anew
		e.Meta["owner_state"] = "LIVE"
	default:
		e.Message = "only the node at " + w.Address + ", which issued the reservation, can extend it or note what it has used" + anew
		e.Meta["owner_state"], e.Meta["address"] = "LIVE", w.Address
	}
	return e
}

// stateOf is the state of the incarnation that issued a token. A former one of this process
// may still be LIVE in the store, and issues nothing any more (R30).
func (a *Authority) stateOf(t *token.Token, w *quota.Whereabouts) quota.IncarnationState {
	for _, e := range a.engines() {
		if e.owner(quota.LaneID(t.Lane), t.Sequence) != nil {
			return quota.IncarnationDead
		}
	}
	return w.State
}
