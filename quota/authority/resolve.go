package authority

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
)

// call is the working memory of one CheckAndReserve, taken from a pool.
type call struct {
	req      escrow.Request
	res      escrow.Result
	calendar window.Calendar
	digest   hash.Hash
	encoded  []byte
	attempt  *Attempt          // whose round it is, if it must not block
	span     trace.SpanContext // zero unless the request is sampled
}

var calls = sync.Pool{New: func() any { return &call{digest: sha256.New()} }}

// resolve names the pots: it turns a request into candidates with their prices and claims. A
// denial that needs no pot (unknown feature, not entitled, no price) is left in d; resolved
// reports that at least one candidate is worth deciding.
func (a *Authority) resolve(now int64, acc *account, r *quota.Request, c *call, d *quota.Decision) (resolved bool, err error) {
	cat := a.catalogue.Load()
	c.req.Candidates, c.req.Asked = c.req.Candidates[:0], len(r.Estimates)
	plan, ok := cat.Plan(acc.plan)
	if !acc.planned || !ok {
		deny(d, quota.DeniedNotEntitled, r.Candidates[0])
		return false, nil
	}
	version := int64(0)
	if card, ok := cat.CardAt(plan.RateCard, now); ok {
		version = card.PriceVersion
	}
	for _, f := range r.Candidates {
		if err := c.candidate(now, cat, plan, acc, f, version, r.Estimates, d); err != nil {
			return false, err
		}
	}
	for _, f := range fallbacks(plan, r.Candidates) {
		if err := c.candidate(now, cat, plan, acc, f, version, r.Estimates, d); err != nil {
			return false, err
		}
	}
	return len(c.req.Candidates) > 0, nil
}

// deny sets the denial of a candidate, unless a preferred one has set it.
func deny(d *quota.Decision, reason quota.DenialReason, subject string) {
	if d.Denial.Reason == 0 {
		d.Denial = quota.Denial{Reason: reason, Subject: subject}
	}
}

// fallbacks are the plan's features behind the last one asked for.
func fallbacks(p *authz.Plan, asked []string) []string {
	last := asked[len(asked)-1]
	for i, f := range p.Fallback {
		if f == last {
			return p.Fallback[i+1:]
		}
	}
	return nil
}

// candidate appends a feature with its prices, of that version, and claims in decision order.
func (c *call) candidate(now int64, cat *quota.Catalogue, plan *authz.Plan, acc *account, name string, version int64, estimates []quota.Estimate, d *quota.Decision) error {
	feature, ok := cat.Features[name]
	if !ok {
		deny(d, quota.DeniedFeatureUnknown, name)
		return nil
	}
	entitlement, ok := plan.Entitlement(name)
	if !ok {
		deny(d, quota.DeniedNotEntitled, name)
		return nil
	}
	k := nextCandidate(&c.req)
	k.Feature, k.PriceVersion = feature.ID, version
	missing, err := k.price(cat, estimates)
	if err != nil || missing != "" {
		c.req.Candidates = c.req.Candidates[:len(c.req.Candidates)-1]
		if missing != "" {
			deny(d, quota.DeniedNoPrice, missing)
		}
		return err
	}
	b := claims{candidate: k, call: c, acc: acc, now: now, feature: feature}
	b.limits(plan, entitlement)
	for i := range entitlement.Quotas {
		b.quota(&entitlement.Quotas[i])
	}
	for level := len(acc.Chain) - 1; level >= 0; level-- { // outermost first
		for i := range acc.Budgets[level] {
			b.budget(&acc.Budgets[level][i])
		}
	}
	k.Claims = append(k.Claims, escrow.Claim{Kind: quota.PotWallet, Meter: -1})
	if len(k.Claims) > maxClaims {
		return quota.Errorf(quota.ReasonRequestInvalid, "the request matches more than 64 budgets and quotas; narrow their selectors")
	}
	return nil
}

// maxClaims bounds what one reservation holds on: each needs a part (R24).
const maxClaims = quota.MaxParts

// nextCandidate appends a candidate, reusing the memory of an earlier call.
func nextCandidate(r *escrow.Request) *candidate {
	n := len(r.Candidates)
	if n < cap(r.Candidates) {
		r.Candidates = r.Candidates[:n+1]
	} else {
		r.Candidates = append(r.Candidates, escrow.Candidate{})
	}
	k := &r.Candidates[n]
	k.Meters, k.Rates, k.Want, k.Min = k.Meters[:0], k.Rates[:0], k.Want[:0], k.Min[:0]
	k.Flexible, k.Limits, k.Claims = k.Flexible[:0], k.Limits[:0], k.Claims[:0]
	return (*candidate)(k)
}

type candidate escrow.Candidate

// price looks up what the request's meters cost. It returns the first known meter without a
// price; an unknown meter is an error.
func (k *candidate) price(cat *quota.Catalogue, estimates []quota.Estimate) (missing string, err error) {
	counted := false
	for i := range estimates {
		e := &estimates[i]
		rate, ok := cat.Rate(k.PriceVersion, k.Feature, e.Meter)
		if !ok && !cat.MeterKnown(e.Meter) {
			return "", unknownMeter(e.Meter)
		}
		if !ok && e.Meter != authz.MeterRequests {
			return e.Meter, nil
		}
		if !ok {
			rate = pricing.Rate{Per: 1}
		}
		counted = counted || e.Meter == authz.MeterRequests
		low := e.Quantity
		if e.Flexible {
			low = e.Min
		}
		k.line(e.Meter, rate, e.Quantity, low, e.Flexible)
	}
	if !counted {
		k.request(cat)
	}
	return "", nil
}

// request adds the line of the meter that every reservation counts: one request.
func (k *candidate) request(cat *quota.Catalogue) {
	rate, ok := cat.Rate(k.PriceVersion, k.Feature, authz.MeterRequests)
	if !ok {
		rate = pricing.Rate{Per: 1} // requests cost nothing unless a price says so
	}
	k.line(authz.MeterRequests, rate, 1, 1, false)
}

func (k *candidate) line(meter string, rate pricing.Rate, want, low int64, flexible bool) {
	k.Meters, k.Rates = append(k.Meters, meter), append(k.Rates, rate)
	k.Want, k.Min, k.Flexible = append(k.Want, want), append(k.Min, low), append(k.Flexible, flexible)
}

func unknownMeter(meter string) error {
	return &quota.Error{Reason: quota.ReasonUnitUnknown, NotApplied: true,
		Message: "meter \"" + meter + "\" is not one that any feature is measured in", Meta: map[string]string{"meter": meter}}
}

// claims builds a candidate's claims.
type claims struct {
	candidate *candidate
	call      *call
	acc       *account
	feature   *authz.Feature
	now       int64
}

// meter finds the line that counts a meter, adding one with nothing expected if the feature
// is measured in it; ok is false if the feature is not.
func (b *claims) meter(name string) (int, bool) {
	for i, m := range b.candidate.Meters {
		if m == name {
			return i, true
		}
	}
	for _, m := range b.feature.Meters {
		if m == name {
			b.candidate.line(name, pricing.Rate{Per: 1}, 0, 0, false)
			return len(b.candidate.Meters) - 1, true
		}
	}
	return 0, false
}

func (b *claims) quota(q *authz.Quota) {
	m, ok := b.meter(q.Meter)
	if !ok {
		return
	}
	w := quota.WindowPot{Kind: quota.PotQuota, Account: b.acc.owner, Limit: q.ID, Unit: q.Meter, Window: q.Window, Cap: q.Limit}
	b.add(w, "", m, q.Limit, 0)
}

func (b *claims) budget(g *quota.Budget) {
	selector, ok := b.selects(g)
	if !ok {
		return
	}
	m := -1
	if g.Unit != quota.UnitCredits {
		if m, ok = b.meter(g.Unit); !ok {
			return
		}
	}
	w := quota.WindowPot{Kind: quota.PotBudget, Account: g.Account, Limit: g.ID, Selector: selector, Unit: g.Unit, Window: g.Window, Cap: g.Cap}
	warn := int64(0)
	if g.WarnPercent > 0 {
		warn = g.Cap/100*int64(g.WarnPercent) + g.Cap%100*int64(g.WarnPercent)/100
	}
	if g.Soft {
		w.Cap = quota.Never
		if warn == 0 {
			warn = g.Cap
		}
	}
	b.add(w, g.LabelKey, m, g.Cap, warn)
}

// selects reports whether a budget applies to the request's labels, and its selector's value.
func (b *claims) selects(g *quota.Budget) (selector string, ok bool) {
	if g.LabelKey == "" {
		return "", true
	}
	value, ok := b.call.req.Labels.Get(g.LabelKey)
	if !ok || g.LabelValue != "" && g.LabelValue != value {
		return "", false
	}
	return value, true
}

func (b *claims) add(w quota.WindowPot, label string, meter int, limit, warn int64) {
	w.Start, w.End = b.call.calendar.Bounds(w.Window, b.now, b.acc.zoneOf(w.Account))
	b.candidate.Claims = append(b.candidate.Claims, escrow.Claim{Kind: w.Kind, Window: w, Label: label, Meter: meter, Limit: limit, WarnAt: warn})
}

// hashKey stands for an idempotency key of a principal and account (R53); content for all the
// request asks.
func (c *call) hashKey(principal string, r *quota.Request) {
	c.digest.Reset()
	c.put(principal)
	c.put(r.Account)
	c.put(r.Key)
	c.sum(&c.req.Key)
	c.digest.Reset()
	for _, f := range r.Candidates {
		c.put(f)
	}
	for i := range r.Estimates {
		e := &r.Estimates[i]
		c.put(e.Meter)
		c.putInt(e.Quantity)
		if e.Flexible {
			c.putInt(e.Min)
		} else {
			c.putInt(-1)
		}
	}
	c.putInt(int64(r.TTL))
	for _, l := range c.req.Labels {
		c.put(l.Key)
		c.put(l.Value)
	}
	c.sum(&c.req.Content)
	c.req.HasKey = true
}

func (c *call) put(s string) {
	c.putInt(int64(len(s)))
	c.encoded = append(c.encoded[:0], s...)
	c.digest.Write(c.encoded)
}

func (c *call) putInt(n int64) {
	c.encoded = binary.LittleEndian.AppendUint64(c.encoded[:0], uint64(n))
	c.digest.Write(c.encoded)
}

func (c *call) sum(dst *escrow.KeyHash) {
	c.encoded = c.digest.Sum(c.encoded[:0])
	copy(dst[:], c.encoded)
}
