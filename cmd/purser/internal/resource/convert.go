package resource

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// The functions of this file say what the server has as a file would ask for it. Lists whose
// order says nothing are sorted, so that equal resources are equal.

// FromFeature is a feature as a file has it.
func FromFeature(f *purserv1.Feature) manifest.Feature {
	return manifest.Feature{ID: f.GetId(), Kind: Word(f.GetKind()), DisplayName: f.GetDisplayName(), Description: f.GetDescription(),
		Meters: slices.Sorted(slices.Values(f.GetMeters()))}
}

// FromPlan is a plan version as a file has it.
func FromPlan(p *purserv1.PlanVersion) manifest.Plan {
	out := manifest.Plan{ID: p.GetPlan(), DisplayName: p.GetDisplayName(), RateCard: p.GetRateCard(), Fallback: p.GetFallback(),
		Limits: fromLimits(p)}
	for _, e := range p.GetEntitlements() {
		entitlement := manifest.Entitlement{Feature: e.GetFeature(), Config: e.GetConfigValue(), Limits: fromLimits(e)}
		for _, q := range e.GetQuotas() {
			entitlement.Quotas = append(entitlement.Quotas,
				manifest.Quota{ID: q.GetId(), Meter: q.GetMeter(), Limit: q.GetLimit(), Window: Word(q.GetWindow())})
		}
		out.Entitlements = append(out.Entitlements, entitlement)
	}
	return SortedPlan(out)
}

// SortedPlan sorts entitlements, quotas and limits; the order of the fallback means something.
func SortedPlan(p manifest.Plan) manifest.Plan {
	p.Entitlements, p.Limits = slices.Clone(p.Entitlements), sortedLimits(p.Limits)
	for i, e := range p.Entitlements {
		p.Entitlements[i].Limits = sortedLimits(e.Limits)
		p.Entitlements[i].Quotas = slices.SortedFunc(slices.Values(e.Quotas),
			func(a, b manifest.Quota) int { return cmp.Compare(a.ID, b.ID) })
	}
	slices.SortFunc(p.Entitlements, func(a, b manifest.Entitlement) int { return cmp.Compare(a.Feature, b.Feature) })
	return p
}

// FromRateCard is a version of a rate card as a file has it.
func FromRateCard(c *purserv1.RateCard) manifest.RateCard {
	out := manifest.RateCard{ID: c.GetId(), EffectiveTime: instant(c.GetEffectiveTime())}
	for _, p := range c.GetPrices() {
		out.Prices = append(out.Prices,
			manifest.Price{Feature: p.GetFeature(), Meter: p.GetMeter(), Micros: manifest.Credits(p.GetPriceMicros()), Per: p.GetPer()})
	}
	return SortedRateCard(out)
}

// SortedRateCard sorts the prices.
func SortedRateCard(c manifest.RateCard) manifest.RateCard {
	c.Prices = slices.SortedFunc(slices.Values(c.Prices), func(a, b manifest.Price) int {
		return cmp.Or(cmp.Compare(a.Feature, b.Feature), cmp.Compare(a.Meter, b.Meter))
	})
	return c
}

// FromAccount is an account as a file has it, without the version that its plan is pinned to:
// asked for again it stays on that.
func FromAccount(a *purserv1.Account) manifest.Account {
	return manifest.Account{ID: a.GetId(), Parent: a.GetParent(), DisplayName: a.GetDisplayName(), TimeZone: a.GetTimeZone(), Plan: a.GetPlan()}
}

// FromGrant is a grant as a file has it.
func FromGrant(g *purserv1.Grant) manifest.Grant {
	return manifest.Grant{ID: g.GetId(), Account: g.GetAccount(), Micros: manifest.Credits(g.GetAmountMicros()), Kind: Word(g.GetKind()),
		Priority: int64(g.GetPriority()), EffectiveTime: instant(g.GetEffectiveTime()), ExpireTime: instant(g.GetExpireTime()),
		CostBasis: g.GetCostBasis(), Note: g.GetNote(), Voided: g.GetVoided()}
}

// FromBudget is a budget as a file has it.
func FromBudget(b *purserv1.Budget) manifest.Budget {
	return manifest.Budget{ID: b.GetId(), Account: b.GetAccount(), Unit: b.GetUnit(), Window: Word(b.GetWindow()), Enforcement: Word(b.GetEnforcement()),
		Cap: b.GetCap(), LabelKey: b.GetSelector().GetLabelKey(), LabelValue: b.GetSelector().GetLabelValue(), WarnPercent: int64(b.GetWarnPercent())}
}

// FromKey is a key as a file has it.
func FromKey(k *purserv1.Key) manifest.Key {
	return manifest.Key{Principal: k.GetPrincipal(), Role: Word(k.GetRole()), Account: k.GetAccount(), Labels: k.GetLabels(),
		ExpireTime: instant(k.GetExpireTime()), Revoked: k.GetRevokeTime() != nil}
}

// Word is the last part of the name of an enum's value, which is what differs: DAY of WINDOW_DAY.
func Word(value interface {
	String() string
}) string {
	name := value.String()
	for _, prefix := range []string{"FEATURE_KIND_", "GRANT_KIND_", "LEVEL_KIND_", "ACCOUNT_STATE_", "RESERVATION_STATE_",
		"ENFORCEMENT_", "WINDOW_", "ROLE_", "DENIAL_REASON_", "DENIAL_KIND_", "WARNING_REASON_"} {
		if word, ok := strings.CutPrefix(name, prefix); ok {
			return word
		}
	}
	return name
}

// instant is zero for what was not said.
func instant(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// timestamp leaves out what was not said.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
