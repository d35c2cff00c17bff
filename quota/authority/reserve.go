package authority

import (
	"context"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/label"
)

// reserveTries bounds how often one request is decided anew: after a draw that others were
// quicker to use, or after a policy change met on the way.
const reserveTries = 32

// Reserve decides whether an account may use a feature and can pay for it, and holds the
// amounts. A denial is a nil error with d.Allowed false. d is overwritten, its memory reused.
// It blocks on storage only if the account is not cached or an allotment ran dry.
//
// Reasons: UNIT_UNKNOWN, TTL_OUT_OF_RANGE, REQUEST_INVALID, IDEMPOTENCY_KEY_REUSED,
// CALLER_NOT_ALLOWED, SERVER_OVERLOADED, SHUTTING_DOWN, STORE_UNAVAILABLE. None of them
// leaves a hold behind.
func (a *Authority) Reserve(ctx context.Context, p *authz.Principal, r *quota.Request, d *quota.Decision) error {
	resetDecision(d)
	ctx, span := a.startSpan(ctx, spanReserve)
	err := a.reserve(ctx, contextOf(span), p, r, d)
	if err == nil {
		a.decided(p, r, d)
	}
	if span != nil {
		endReserve(span, d, err)
	}
	return err
}

// decided tells of a decision: those who count, and those who look.
func (a *Authority) decided(p *authz.Principal, r *quota.Request, d *quota.Decision) {
	a.metrics.Decided(d.Denial.Reason, d.Partial, d.Replayed)
	if a.watcher.Watched() {
		a.watcher.Decided(p.Name, r, d)
	}
}

// resetDecision empties d and keeps its memory.
func resetDecision(d *quota.Decision) {
	*d = quota.Decision{Token: d.Token[:0], Granted: d.Granted[:0], Warnings: d.Warnings[:0], Remaining: d.Remaining[:0]}
}

func (a *Authority) reserve(ctx context.Context, span trace.SpanContext, p *authz.Principal, r *quota.Request, d *quota.Decision) error {
	c := calls.Get().(*call)
	defer calls.Put(c)
	c.span = span
	return a.rounds(ctx, p, r, c, d)
}

// rounds decides a request anew until it is decided. An attempt ends them where it would have
// to block, and goes on with the next one.
func (a *Authority) rounds(ctx context.Context, p *authz.Principal, r *quota.Request, c *call, d *quota.Decision) error {
	ttl, err := a.prepare(p, r, c)
	if err != nil {
		return err
	}
	c.req.TTL = int64(ttl)
	tries := new(int)
	if c.attempt != nil {
		tries = &c.attempt.tries
	}
	for ; *tries < reserveTries; *tries++ {
		e, now, err := a.issuing()
		if err != nil {
			return err
		}
		acc, err := a.profile(ctx, c, r.Account)
		if err != nil {
			return err
		}
		if acc == nil {
			d.Denial = quota.Denial{Reason: quota.DeniedAccountUnknown, Subject: r.Account}
			return nil
		}
		c.req.Final = *tries == reserveTries-1
		again, err := a.decide(ctx, e, now, acc, r, c, d)
		if err != nil || !again && !a.doubted(acc, d) {
			return err
		}
	}
	return quota.Errorf(quota.ReasonContention, "the account's policy keeps changing; try again")
}

// doubted reports whether a denial for good stands on a profile that was read before anybody asked,
// a poll ago perhaps. The account is read again then, and decided anew: what was granted on such a
// profile, its draw has checked (R12).
func (a *Authority) doubted(acc *account, d *quota.Decision) bool {
	if !acc.early || d.Allowed || d.Denial.Transient {
		return false
	}
	a.accounts.drop(acc)
	resetDecision(d)
	return true
}

// prepare checks the caller and fills in what does not depend on the account.
func (a *Authority) prepare(p *authz.Principal, r *quota.Request, c *call) (time.Duration, error) {
	if !p.MayUseAccount(r.Account) {
		return 0, &quota.Error{Reason: quota.ReasonCallerNotAllowed, NotApplied: true,
			Message: "the key is bound to another account", Meta: map[string]string{"account": r.Account}}
	}
	ttl, err := a.holdFor(r.TTL)
	if err != nil {
		return 0, err
	}
	labels := r.Labels
	if len(p.Labels) > 0 {
		merged, err := label.Merge(r.Labels, p.Labels)
		if err != nil {
			return 0, quota.Wrap(quota.ReasonRequestInvalid, err.Error(), err)
		}
		labels = merged
	}
	c.req.Account, c.req.Principal, c.req.Labels = r.Account, p.Name, labels
	c.req.HasKey, c.req.Counter = false, nil
	if r.Key != "" {
		c.hashKey(p.Name, r)
	}
	counter := a.liveOf(p.Name)
	if counter.Load() >= int64(a.cfg.MaxPerPrincipal) {
		return 0, overloaded("this principal has as many live reservations as a node keeps for one")
	}
	c.req.Counter = counter
	return ttl, nil
}

// holdFor is for how long a reservation is to be held from now, at most M0 (R9).
func (a *Authority) holdFor(ttl time.Duration) (time.Duration, error) {
	if ttl == 0 {
		ttl = min(quota.DefaultTTL, a.cfg.MaxHold)
	}
	if ttl < min(quota.MinTTL, a.cfg.MaxHold) || ttl > a.cfg.MaxHold {
		return 0, &quota.Error{Reason: quota.ReasonTTLOutOfRange, NotApplied: true,
			Message: "ttl is " + ttl.String() + "; it must be " + quota.MinTTL.String() + " to " + a.cfg.MaxHold.String() + ": extend longer generations as they go"}
	}
	return ttl, nil
}

func overloaded(message string) error {
	return &quota.Error{Reason: quota.ReasonServerOverloaded, Message: message, NotApplied: true, RetryAfter: 100 * time.Millisecond}
}

// liveOf is the counter of a principal's live reservations. There are as many as there are
// principals with keys.
func (a *Authority) liveOf(principal string) *atomic.Int64 {
	a.liveMu.RLock()
	n := a.live[principal]
	a.liveMu.RUnlock()
	if n != nil {
		return n
	}
	a.liveMu.Lock()
	defer a.liveMu.Unlock()
	if n = a.live[principal]; n == nil {
		n = new(atomic.Int64)
		a.live[principal] = n
	}
	return n
}

func shuttingDown() error {
	return &quota.Error{Reason: quota.ReasonShuttingDown, NotApplied: true, Message: "this node is draining; use another"}
}

// issuing is the engine if it may issue, and the time at which it may: a token counts from
// that instant, however long its request is held up afterwards (race 10).
func (a *Authority) issuing() (*engine, int64, error) {
	if a.draining.Load() {
		return nil, 0, shuttingDown()
	}
	e, t := a.engine.Load(), a.instant()
	if e == nil || !e.lease.Load().MayIssue(t) {
		return nil, 0, &quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true, RetryAfter: a.cfg.Poll,
			Message: "this node's lease has run out and it cannot reach its store; try again, or another node"}
	}
	return e, e.lease.Load().Now(t), nil
}

// decide runs one round: resolve, decide under the shard lock, draw if short. again asks for
// another round.
func (a *Authority) decide(ctx context.Context, e *engine, now int64, acc *account, r *quota.Request, c *call, d *quota.Decision) (again bool, err error) {
	c.req.Account, c.req.Payer, c.req.Epochs = acc.Account().ID, acc.Payer().ID, acc.epochs // the account's strings, not the request's
	sh := e.shardOf(a.seed, c.req.Payer)
	if c.req.HasKey && sh.replay(&c.req, d) {
		return false, nil // a replay comes before everything the policy says (design §4.8)
	}
	if s, ok := acc.Suspended(); ok {
		d.Denial = quota.Denial{Reason: quota.DeniedAccountSuspended, Subject: s.ID, Detail: s.SuspendReason}
		return false, nil
	}
	d.Denial = quota.Denial{}
	if resolved, err := a.resolve(now, acc, r, c, d); err != nil || !resolved {
		return false, err
	}
	status, w, err := a.underLock(sh, e, acc, now, c, d)
	switch {
	case err != nil:
		return false, err
	case status == staleAccount:
		return true, nil
	case w != nil && c.attempt != nil:
		return a.hang(c.attempt, w, acc)
	case w != nil:
		return true, a.await(ctx, w, acc)
	case status == escrow.Overloaded:
		return false, overloaded("this node keeps as many live reservations, or counters of rate and concurrency limits, as it may")
	case status == escrow.KeyReused:
		return false, &quota.Error{Reason: quota.ReasonIdempotencyKeyReused, NotApplied: true,
			Message: "this idempotency key was used for a request with other content; use a new key"}
	case status == escrow.Denied:
		a.denied(ctx, r, c, d)
	}
	return false, nil
}

// staleAccount is underLock's own status: the profile changed since it was looked up.
const staleAccount = escrow.Status(100)

// underLock is the critical section: everything about the reservation is decided and, if it
// has a key, remembered in it.
func (a *Authority) underLock(sh *shard, e *engine, acc *account, now int64, c *call, d *quota.Decision) (escrow.Status, *draw, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if a.draining.Load() { // set before Drain passed through this lock
		return 0, nil, shuttingDown()
	}
	if acc.stale.Load() { // I13: set before the shard's lock was taken and given back by the poll
		return staleAccount, nil, nil
	}
	status := sh.core.Reserve(now, &c.req, &c.res)
	switch status {
	case escrow.Replayed:
		sh.core.Replay(&c.req, d)
	case escrow.Granted:
		if err := a.granted(sh, now, c, d); err != nil {
			return 0, nil, err
		}
		if c.req.HasKey {
			sh.core.Remember(now, &c.req, d)
		}
		a.drawAhead(sh, e, now, c.span)
	case escrow.Short:
		w, err := a.drawFor(sh, e, now, c)
		return status, w, err
	}
	return status, nil, nil
}

// granted fills in the decision and encodes the token.
func (a *Authority) granted(sh *shard, now int64, c *call, d *quota.Decision) error {
	res := &c.res
	token, err := a.codec.Load().Append(d.Token[:0], &res.Token)
	if err != nil {
		a.letGo(sh, now, res)
		return quota.Wrap(quota.ReasonRequestInvalid, "the reservation does not fit into a token: fewer or shorter labels, or fewer matching budgets, are needed", err)
	}
	c.describe(token, d)
	return nil
}

// describe fills in the decision of what was granted.
func (c *call) describe(token []byte, d *quota.Decision) {
	res := &c.res
	k := &c.req.Candidates[res.Candidate]
	d.Allowed, d.Token = true, token
	d.Lane, d.Sequence, d.Nonce = quota.LaneID(res.Token.Lane), res.Token.Sequence, res.Token.Nonce
	d.Feature, d.PriceVersion = k.Feature, k.PriceVersion
	d.Held, d.ExpiresAt = res.Held, res.Token.Expires
	d.Partial, d.Exhausted = res.Partial, res.Partial && res.Exhausted
	for m := range c.req.Asked {
		d.Granted = append(d.Granted, quota.Quantity{Meter: k.Meters[m], Quantity: res.Quantity[m]})
	}
	d.Warnings = append(d.Warnings, res.Warnings...)
	d.Remaining = append(d.Remaining, res.Remaining...)
	d.Denial = quota.Denial{}
}

// letGo ends a reservation that nobody will ever hold a token of.
func (a *Authority) letGo(sh *shard, now int64, res *escrow.Result) {
	rec := quota.Record{EntryKey: quota.EntryKey{Lane: sh.core.Lane(), Sequence: res.Token.Sequence},
		Nonce: res.Token.Nonce, Kind: quota.Released, Account: res.Token.Account, Payer: res.Token.Payer,
		Principal: res.Token.Principal, Feature: res.Token.Feature, PriceVersion: res.Token.PriceVersion, SettledAt: now}
	if status, p := sh.core.Settle(now, rec, nil); status == escrow.Enqueue {
		sh.lane.push(p)
	}
}

// replay answers a key that was granted before.
func (s *shard) replay(r *escrow.Request, d *quota.Decision) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.core.Replay(r, d)
}
