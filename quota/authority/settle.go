package authority

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// Commit settles a reservation with what was really used; the receipt is durable. Real usage
// is not refused: beyond the hold it is charged to what else the account has, then to debt.
// Any node can commit any reservation. Calling again with the same usage replays.
//
// Reasons, all definite: TOKEN_INVALID, CALLER_NOT_ALLOWED, UNIT_UNKNOWN, AMOUNT_INVALID,
// RESERVATION_COMMITTED (other usage), RESERVATION_RELEASED, TOKEN_TOO_OLD, SERVER_OVERLOADED.
// Indefinite: OUTCOME_UNKNOWN and a context's end: the commit may still land; send the same
// again.
func (a *Authority) Commit(ctx context.Context, p *authz.Principal, s *quota.Settle) (quota.Receipt, error) {
	return a.settle(ctx, p, s, quota.Committed)
}

// Release gives a reservation back unused. Calling again replays; after an expiry it is no
// error, after a commit it is RESERVATION_COMMITTED. Otherwise as Commit.
func (a *Authority) Release(ctx context.Context, p *authz.Principal, s *quota.Settle) (quota.Receipt, error) {
	return a.settle(ctx, p, s, quota.Released)
}

// decode opens a token and checks that it is the caller's (R38).
func (a *Authority) decode(ctx context.Context, p *authz.Principal, raw []byte, t *token.Token) error {
	err := a.codec.Load().Decode(raw, t)
	if errors.Is(err, token.ErrUnknownKey) && a.mayReloadMACKeys() { // race 40: made with a key we have not heard of
		if a.loadMACKeys(ctx) == nil {
			err = a.codec.Load().Decode(raw, t)
		}
	}
	return opened(p, t, err)
}

// opened says whether a token that was decoded into t, with err, is for p to use.
func opened(p *authz.Principal, t *token.Token, err error) error {
	if err != nil {
		return &quota.Error{Reason: quota.ReasonTokenInvalid, NotApplied: true, Err: err,
			Message: "the token is not one that this authority issued; pass it on exactly as CheckAndReserve returned it"}
	}
	if t.Principal != p.Name || !p.MayUseAccount(t.Account) {
		return &quota.Error{Reason: quota.ReasonCallerNotAllowed, NotApplied: true,
			Message: "the reservation was made by another principal"}
	}
	return nil
}

// mayReloadMACKeys bounds how often tokens of unknown keys, which anyone can make up, cost a
// read: once in a poll's time.
func (a *Authority) mayReloadMACKeys() bool {
	now, last := a.instant().Mono, a.macReload.Load()
	return now-last >= int64(a.cfg.Poll) && a.macReload.CompareAndSwap(last, now)
}

// record prices a settlement whose token is decoded: the record without its slots.
func (a *Authority) record(ctx context.Context, s *quota.Settle, kind quota.SettleKind, x *settlement) error {
	t := &x.token
	labels := t.Labels
	if len(s.Labels) > 0 {
		merged, err := label.Merge(s.Labels, t.Labels)
		if err != nil {
			return &quota.Error{Reason: quota.ReasonRequestInvalid, Message: err.Error(), NotApplied: true}
		}
		labels = merged
	}
	x.rec = quota.Record{
		EntryKey: quota.EntryKey{Lane: quota.LaneID(t.Lane), Sequence: t.Sequence}, Nonce: t.Nonce,
		Kind: kind, Outcome: s.Outcome, Delivered: s.Delivered,
		Account: t.Account, Payer: t.Payer, Principal: t.Principal, Feature: t.Feature,
		PriceVersion: t.PriceVersion, Labels: labels,
		ReservedAt: t.IssuedAt, ExpiresAt: t.Expires, SettledAt: a.now(),
	}
	if kind != quota.Committed {
		return nil
	}
	if err := a.price(ctx, &x.rec, s.Usage); err != nil {
		return err
	}
	x.rec.Digest = usageDigest(x.rec.Usage)
	return nil
}

// settlement is a token with the record it becomes.
type settlement struct {
	token token.Token
	rec   quota.Record
	span  *trace.SpanContext // nil unless the request is sampled
}

// keep remembers a sampled span. It is a function of its own so that only what is sampled
// moves to the heap.
func (x *settlement) keep(span trace.SpanContext) { x.span = &span }

// price fills in usage and its lines at the price version frozen in the token. A commit
// counts one request, unless the caller counts them.
func (a *Authority) price(ctx context.Context, rec *quota.Record, usage []quota.Quantity) error {
	cat, err := a.catalogueWith(ctx, rec.PriceVersion)
	if err != nil {
		return err
	}
	rec.Usage = append(make([]quota.Quantity, 0, len(usage)+1), usage...)
	counted := false
	for i := range usage {
		counted = counted || usage[i].Meter == authz.MeterRequests
	}
	if !counted {
		rec.Usage = append(rec.Usage, quota.Quantity{Meter: authz.MeterRequests, Quantity: 1})
	}
	var sum int64
	rec.Lines = make([]int64, len(rec.Usage))
	for i, u := range rec.Usage {
		rate, ok := cat.Rate(rec.PriceVersion, rec.Feature, u.Meter)
		if !ok {
			if !cat.MeterKnown(u.Meter) {
				return unknownMeter(u.Meter)
			}
			if u.Meter != authz.MeterRequests {
				a.metrics.Unpriced() // real usage is recorded, not refused; there is no price to charge it at
			}
			continue
		}
		cost, fits := rate.Cost(u.Quantity)
		if fits {
			sum, fits = amount.Add(sum, cost)
		}
		if !fits || sum > amount.Max {
			return &quota.Error{Reason: quota.ReasonAmountInvalid, NotApplied: true,
				Message: "the usage costs more than an amount can hold", Meta: map[string]string{"meter": u.Meter}}
		}
		rec.Lines[i] = cost
	}
	return nil
}

// usageDigest tells whether two commits report the same usage, whatever the order of meters.
func usageDigest(usage []quota.Quantity) uint64 {
	var sum uint64
	for _, u := range usage {
		h := fnv.New64a()
		_, _ = h.Write([]byte(u.Meter))
		_, _ = h.Write(strconv.AppendInt([]byte{0}, u.Quantity, 10))
		sum += h.Sum64()
	}
	return sum
}

// unknownOutcome is the answer to who has waited long enough. It says what is wrong with the
// store if that is known: a full disk is somebody's to mend.
func (a *Authority) unknownOutcome(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	why := "the store did not answer in time"
	if e := a.trouble.Load(); e != nil {
		why = e.Message
	}
	return &quota.Error{Reason: quota.ReasonOutcomeUnknown, RetryAfter: time.Second, Err: ctx.Err(),
		Message: why + "; the settlement may still land: send the same request again, here or to another node"}
}

// conclude turns a fate into the answer of one call. again asks for the guest lane.
func conclude(rec *quota.Record, p *escrow.Pending, mine bool) (r quota.Receipt, again bool, err error) {
	e := &p.Fate.Entry
	switch p.Fate.Verdict {
	case quota.VerdictDropped:
		// A release that the lane's closing overtook. A commit that waited for its fate is on its
		// own now: nothing was recorded that would refuse it (R15).
		return quota.Receipt{State: quota.Released}, rec.Kind == quota.Committed, nil
	case quota.VerdictTooOld:
		return r, false, &quota.Error{Reason: quota.ReasonTokenTooOld, NotApplied: true,
			Message: "the journal no longer keeps this reservation; nothing was charged"}
	}
	replayed := !mine || p.Fate.Verdict == quota.VerdictSettled
	switch {
	case e.Kind == quota.Committed && rec.Kind == quota.Committed && e.Digest == rec.Digest:
		return receiptOf(e, replayed), false, nil
	case e.Kind == quota.Committed:
		return r, false, &quota.Error{Reason: quota.ReasonReservationCommitted, NotApplied: true,
			Message: "the reservation was committed before, with the amount in charged_micros",
			Meta:    map[string]string{"charged_micros": strconv.FormatInt(e.Charged, 10)}}
	case rec.Kind == quota.Released:
		return receiptOf(e, replayed), false, nil
	case e.Kind == quota.Expired, rec.Delivered:
		return r, true, nil
	}
	return r, false, &quota.Error{Reason: quota.ReasonReservationReleased, NotApplied: true,
		Message: "the reservation was released before; if usage was delivered all the same, set usage_delivered"}
}

func receiptOf(e *quota.Entry, replayed bool) quota.Receipt {
	return quota.Receipt{State: e.Kind, Late: e.Phase == quota.PhaseLate, Replayed: replayed,
		Charged: e.Charged, Covered: e.Charged - e.Uncovered, Overage: max(e.Charged-e.Held, 0), Uncovered: e.Uncovered}
}

// ownerOf finds the shard of this process that issued a sequence of a lane, while the lane
// can be written to.
func (a *Authority) ownerOf(l quota.LaneID, sequence uint64) *shard {
	for _, e := range a.engines() {
		if sh := e.owner(l, sequence); sh != nil {
			if sh.lane.closed() {
				return nil
			}
			return sh
		}
	}
	return nil
}
