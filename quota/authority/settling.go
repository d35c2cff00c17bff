package authority

import (
	"context"
	"errors"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/token"
)

// Settled is told what a settlement came to, once: by the flusher that made it durable, or by
// whoever found out that it never will be. It must not block and not call the authority.
type Settled interface {
	Settled(quota.Receipt, error)
}

// settling is one call on its way to the fate of its settlement.
type settling struct {
	settlement
	told  Settled
	reply reply // of the first time it is queued
}

// reply is who waits for a Pending's fate: the call that made it, and those that came while it
// was on its way.
type reply struct {
	own *settling

	mu     sync.Mutex
	fate   *escrow.Pending // set once; its Fate is final
	joined []*settling
}

// join waits for the fate of another call's Pending, or takes it if it is known by now.
func (r *reply) join(a *Authority, s *settling) {
	r.mu.Lock()
	p := r.fate
	if p == nil {
		r.joined = append(r.joined, s)
	}
	r.mu.Unlock()
	if p != nil {
		a.tell(s, p, false)
	}
}

// known tells everybody. Call it once, without locks.
func (r *reply) known(a *Authority, p *escrow.Pending) {
	r.mu.Lock()
	r.fate = p
	joined := r.joined
	r.joined = nil
	r.mu.Unlock()
	a.tell(r.own, p, true)
	for _, s := range joined {
		a.tell(s, p, false)
	}
}

// tell answers a call, or brings its usage to the guest lane: behind an expiry it is a LATE
// charge, which the database decides (R15). Nobody needs to wait for that to happen.
func (a *Authority) tell(s *settling, p *escrow.Pending, mine bool) {
	receipt, again, err := conclude(&s.rec, p, mine)
	if again {
		if err = a.enqueueForeign(s, &reply{own: s}); err == nil {
			return
		}
	}
	s.told.Settled(receipt, err)
}

// BeginCommit is Commit for callers that serve many at once: it never blocks. Waiting says
// that the settlement is queued and told will be called, whoever waits for it; Reading, that
// Prefetch has to be called for the token first. An error is definite: nothing was queued.
func (a *Authority) BeginCommit(p *authz.Principal, s *quota.Settle, told Settled) (Progress, error) {
	return a.begin(p, s, quota.Committed, told)
}

// BeginRelease is Release as BeginCommit is Commit.
func (a *Authority) BeginRelease(p *authz.Principal, s *quota.Settle, told Settled) (Progress, error) {
	return a.begin(p, s, quota.Released, told)
}

func (a *Authority) begin(p *authz.Principal, s *quota.Settle, kind quota.SettleKind, told Settled) (Progress, error) {
	x := &settling{told: told}
	err := a.codec.Load().Decode(s.Token, &x.token)
	if errors.Is(err, token.ErrUnknownKey) {
		return Reading, nil
	}
	if err := opened(p, &x.token, err); err != nil {
		return Done, err
	}
	if v := x.token.PriceVersion; v != 0 && !a.catalogue.Load().HasPriceVersion(v) {
		return Reading, nil
	}
	// What it could read is in memory.
	if err := a.record(context.Background(), s, kind, &x.settlement); err != nil {
		return Done, err
	}
	if err := a.enqueue(x); err != nil {
		return Done, err
	}
	return Waiting, nil
}

// PrefetchToken reads what begin found missing for a token; it blocks on storage. An error is
// the answer to the settlement, and definite.
func (a *Authority) PrefetchToken(ctx context.Context, p *authz.Principal, raw []byte) error {
	var t token.Token
	if err := a.decode(ctx, p, raw, &t); err != nil {
		return err
	}
	_, err := a.catalogueWith(ctx, t.PriceVersion)
	return nothingHeld(err)
}

// settle is begin for a caller that waits, and may block on what has to be read.
func (a *Authority) settle(ctx context.Context, p *authz.Principal, s *quota.Settle, kind quota.SettleKind) (quota.Receipt, error) {
	ctx, span := a.startSpan(ctx, spanSettle)
	receipt, err := a.settled(ctx, span, p, s, kind)
	if span != nil {
		endSettle(span, &receipt, err)
	}
	return receipt, err
}

func (a *Authority) settled(ctx context.Context, span trace.Span, p *authz.Principal, s *quota.Settle, kind quota.SettleKind) (quota.Receipt, error) {
	w := &settleWait{done: make(chan struct{})}
	x := &settling{told: w}
	if err := a.decode(ctx, p, s.Token, &x.token); err != nil {
		return quota.Receipt{}, err
	}
	if err := a.record(ctx, s, kind, &x.settlement); err != nil {
		return quota.Receipt{}, err
	}
	if span != nil {
		x.keep(span.SpanContext())
	}
	if err := a.enqueue(x); err != nil {
		return quota.Receipt{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.SettleTimeout)
	defer cancel()
	select {
	case <-w.done:
		return w.receipt, w.err
	case <-ctx.Done():
		return quota.Receipt{}, a.unknownOutcome(ctx)
	}
}

// settleWait is a Settled that somebody waits for.
type settleWait struct {
	done    chan struct{}
	receipt quota.Receipt
	err     error
}

// Settled implements Settled.
func (w *settleWait) Settled(r quota.Receipt, err error) {
	w.receipt, w.err = r, err
	close(w.done)
}

// enqueue puts a settlement where it becomes durable: in the owner's lane if that is here,
// else in the guest lane. Afterwards its caller will be told; an error is definite.
func (a *Authority) enqueue(s *settling) error {
	s.reply.own = s
	if sh := a.ownerOf(s.rec.Lane, s.rec.Sequence); sh != nil {
		if sh.lane.full() {
			return overloaded("this node's settle queue is full")
		}
		switch status, p, queued := sh.settle(s); {
		case status == escrow.Enqueue:
			if !queued {
				a.stranded(sh.lane, []*escrow.Pending{p})
			}
			return nil
		case status == escrow.Underway && p.Reply != nil:
			p.Reply.(*reply).join(a, s)
			return nil
		}
	}
	return a.enqueueForeign(s, &s.reply)
}

func (a *Authority) enqueueForeign(s *settling, r *reply) error {
	rec := s.rec
	escrow.Foreign(&s.token, &rec)
	if a.guestFull() {
		return overloaded("this node's settle queue is full")
	}
	a.toGuest(&escrow.Pending{Record: rec, Reply: r})
	return nil
}

// guestFull reports whether the newest guest lane takes no more settlements or, if that is
// fenced, as many wait for the next one.
func (a *Authority) guestFull() bool {
	l := a.engine.Load().guest
	if !l.closed() {
		return l.full()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.orphans) >= a.cfg.SettleQueue
}

// settle turns a hold into a settlement in the lane's queue, under one lock so that
// operations on a reservation keep their order.
func (s *shard) settle(x *settling) (status escrow.SettleStatus, p *escrow.Pending, queued bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, p = s.core.Settle(x.rec.SettledAt, x.rec, &x.reply)
	return status, p, status == escrow.Enqueue && s.lane.push(p)
}
