package authority

import (
	"context"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// quoteFresh is how old the figures under a quote may be before the pots are read (R39).
const quoteFresh = int64(time.Second)

// Check says what Reserve would answer, on what is free here plus what the pots had when last
// seen. It holds, draws and creates nothing: a quote with AsOf, not a promise. At most one
// read, and one of an account that is not in memory. Reasons as for Reserve.
func (a *Authority) Check(ctx context.Context, p *authz.Principal, r *quota.Request, d *quota.Decision) error {
	resetDecision(d)
	c := calls.Get().(*call)
	defer calls.Put(c)
	if _, err := a.prepare(p, r, c); err != nil {
		return err
	}
	for {
		acc, err := a.accounts.get(ctx, r.Account)
		if err != nil {
			return err
		}
		if acc == nil {
			d.AsOf, d.Denial = a.now(), quota.Denial{Reason: quota.DeniedAccountUnknown, Subject: r.Account}
			return nil
		}
		if err := a.check(ctx, acc, r, c, d); err != nil || !a.doubted(acc, d) {
			return err
		}
	}
}

func (a *Authority) check(ctx context.Context, acc *account, r *quota.Request, c *call, d *quota.Decision) error {
	now := a.now()
	d.AsOf = now
	if s, ok := acc.Suspended(); ok {
		d.Denial = quota.Denial{Reason: quota.DeniedAccountSuspended, Subject: s.ID, Detail: s.SuspendReason}
		return nil
	}
	c.req.Account, c.req.Payer, c.req.Epochs = acc.Account().ID, acc.Payer().ID, acc.epochs // the account's strings, not the request's
	if resolved, err := a.resolve(now, acc, r, c, d); err != nil || !resolved {
		return err
	}
	return a.quote(ctx, now, r, c, d)
}

func (a *Authority) quote(ctx context.Context, now int64, r *quota.Request, c *call, d *quota.Decision) error {
	sh := a.engine.Load().shardOf(a.seed, c.req.Payer)
	sh.mu.Lock()
	status := sh.core.Quote(now, &c.req, &c.res)
	seen := sh.core.SeenSince(c.req.Payer)
	sh.mu.Unlock()
	if now-seen > quoteFresh {
		pots, debt, err := a.deps.Store.Pots(ctx, c.req.Payer, now)
		if err != nil {
			return err
		}
		seen = now
		sh.mu.Lock()
		sh.core.See(now, c.req.Payer, pots, debt)
		status = sh.core.Quote(now, &c.req, &c.res)
		sh.mu.Unlock()
	}
	d.AsOf = seen
	if status != escrow.Granted {
		a.denied(ctx, r, c, d)
		return nil
	}
	k := &c.req.Candidates[c.res.Candidate]
	d.Allowed, d.Feature, d.PriceVersion = true, k.Feature, k.PriceVersion
	d.Held, d.Partial, d.Exhausted = c.res.Held, c.res.Partial, c.res.Partial && c.res.Exhausted
	for m := range c.req.Asked {
		d.Granted = append(d.Granted, quota.Quantity{Meter: k.Meters[m], Quantity: c.res.Quantity[m]})
	}
	d.Warnings = append(d.Warnings, c.res.Warnings...)
	d.Remaining = append(d.Remaining, c.res.Remaining...)
	d.Denial = quota.Denial{}
	return nil
}

// Balance says what an account's payer has (R40): Total as of the projector, Available a
// lower bound, exact on one node. One or two reads. Reason: ACCOUNT_NOT_FOUND.
func (a *Authority) Balance(ctx context.Context, id string) (quota.Balance, error) {
	acc, err := a.accounts.get(ctx, id)
	if err != nil {
		return quota.Balance{}, err
	}
	if acc == nil {
		return quota.Balance{}, &quota.Error{Reason: quota.ReasonAccountNotFound, Message: "account \"" + id + "\" does not exist",
			Meta: map[string]string{"account": id}, NotApplied: true}
	}
	payer, now := acc.Payer().ID, a.now()
	pots, debt, err := a.deps.Store.Pots(ctx, payer, now)
	if err != nil {
		return quota.Balance{}, err
	}
	here := a.wallet(payer)
	b := quota.Balance{Account: id, Payer: payer, Debt: debt, Held: here.Held, Available: here.Free, Elsewhere: -here.Own, AsOf: now}
	for _, p := range pots {
		if p.Kind != quota.PotWallet {
			b.Windows = append(b.Windows, p)
			continue
		}
		b.Grants = append(b.Grants, p)
		b.Total += p.Granted - p.Projected - p.Expired - p.Refunded
		b.Elsewhere += p.Escrowed
		if p.Start <= now && now < p.End && !p.Voided {
			b.Available += p.Available
		}
	}
	b.Elsewhere = max(b.Elsewhere, 0)
	if debt > 0 { // R50: nothing is drawn
		b.Available = here.Free
	}
	return b, nil
}

// wallet sums a payer's wallet over all engines of this process.
func (a *Authority) wallet(payer string) escrow.Totals {
	var sum escrow.Totals
	for _, e := range a.engines() {
		sh := e.shardOf(a.seed, payer)
		sh.mu.Lock()
		t := sh.core.Wallet(payer)
		sh.mu.Unlock()
		sum.Free += t.Free
		sum.Held += t.Held
		sum.Own += t.Own
	}
	return sum
}
