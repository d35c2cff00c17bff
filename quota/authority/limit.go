package authority

import (
	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota/escrow"
)

// limits names the plan's rates and concurrency limits that a candidate has to keep, in
// decision order: rates first, those of all features before the feature's own.
func (b *claims) limits(plan *authz.Plan, e *authz.Entitlement) {
	b.rates("", plan.Limits.Rates)
	b.rates(e.Feature, e.Limits.Rates)
	b.concurrency("", plan.Limits.Concurrency)
	b.concurrency(e.Feature, e.Limits.Concurrency)
}

func (b *claims) rates(feature string, rates []authz.Rate) {
	for i := range rates {
		r := &rates[i]
		value, ok := b.valueOf(r.LabelKey)
		if !ok {
			continue
		}
		m, ok := b.meter(r.Meter)
		if !ok {
			continue
		}
		burst := r.Burst
		if burst == 0 {
			burst = r.Limit
		}
		b.candidate.Limits = append(b.candidate.Limits, escrow.Limit{
			Key:   escrow.LimitKey{Account: b.acc.owner, Feature: feature, Limit: r.ID, Meter: r.Meter, Value: value},
			Label: r.LabelKey, Meter: m, Limit: r.Limit, Burst: burst, Per: int64(r.Per)})
	}
}

func (b *claims) concurrency(feature string, limits []authz.Concurrency) {
	for i := range limits {
		c := &limits[i]
		value, ok := b.valueOf(c.LabelKey)
		if !ok {
			continue
		}
		m, _ := b.meter(authz.MeterRequests) // which every candidate counts
		b.candidate.Limits = append(b.candidate.Limits, escrow.Limit{
			Key:   escrow.LimitKey{Account: b.acc.owner, Feature: feature, Limit: c.ID, Value: value},
			Label: c.LabelKey, Meter: m, Limit: c.Limit})
	}
}

// valueOf is the request's value of the label that a limit counts by; ok is false if the
// request does not have it, and is not counted.
func (b *claims) valueOf(key string) (value string, ok bool) {
	if key == "" {
		return "", true
	}
	return b.call.req.Labels.Get(key)
}
