package catalog

import (
	"fmt"
	"strconv"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/grpcerr"
)

// notFound names what is missing; version 0 is not named.
func notFound(reason quota.Reason, what, id string, version int64) error {
	e := &quota.Error{Reason: reason, NotApplied: true, Message: fmt.Sprintf("there is no %s %q", what, id),
		Meta: map[string]string{what: id}}
	if version != 0 {
		e.Message += fmt.Sprintf(" version %d", version)
		e.Meta["version"] = strconv.FormatInt(version, 10)
	}
	return e
}

func toAPIFeature(f *authz.Feature) *purserv1.Feature {
	return &purserv1.Feature{
		Id: f.ID, Kind: purserv1.FeatureKind(f.Kind), DisplayName: f.DisplayName, Description: f.Description,
		Meters: f.Meters, Etag: admin.ETag(f.Revision), CreateTime: admin.Time(f.CreateTime),
	}
}

// fromAPIPublishPlanVersion checks what goes over several entitlements, which the contract's
// rules do not: a quota's counter is named by its id alone.
func fromAPIPublishPlanVersion(req *purserv1.PublishPlanVersionRequest) (authz.Plan, error) {
	p := authz.Plan{ID: req.GetPlan(), DisplayName: req.GetDisplayName(), RateCard: req.GetRateCard(), Fallback: req.GetFallback()}
	var err error
	if p.Limits, err = fromAPILimits("", req); err != nil {
		return p, err
	}
	used := make(map[string]struct{})
	for i, e := range req.GetEntitlements() {
		out := authz.Entitlement{Feature: e.GetFeature(), Config: e.GetConfigValue()}
		if out.Limits, err = fromAPILimits(fmt.Sprintf("entitlements[%d].", i), e); err != nil {
			return p, err
		}
		for j, q := range e.GetQuotas() {
			if _, twice := used[q.GetId()]; twice {
				return p, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{
					Field:       fmt.Sprintf("entitlements[%d].quotas[%d].id", i, j),
					Description: fmt.Sprintf("quota %q is there twice; ids are unique over all entitlements", q.GetId()),
				})
			}
			used[q.GetId()] = struct{}{}
			out.Quotas = append(out.Quotas, authz.Quota{
				ID: q.GetId(), Meter: q.GetMeter(), Limit: q.GetLimit(), Window: window.Kind(q.GetWindow()),
			})
		}
		p.Entitlements = append(p.Entitlements, out)
	}
	return p, nil
}

func toAPIPlanVersion(p *authz.Plan) *purserv1.PlanVersion {
	out := &purserv1.PlanVersion{
		Plan: p.ID, Version: p.Version, DisplayName: p.DisplayName, Fallback: p.Fallback, RateCard: p.RateCard,
		CreateTime: admin.Time(p.CreateTime), Rates: toAPIRates(p.Limits.Rates), Concurrency: toAPIConcurrency(p.Limits.Concurrency),
	}
	for i := range p.Entitlements {
		e := &p.Entitlements[i]
		entitlement := &purserv1.Entitlement{Feature: e.Feature, ConfigValue: e.Config,
			Rates: toAPIRates(e.Limits.Rates), Concurrency: toAPIConcurrency(e.Limits.Concurrency)}
		for _, q := range e.Quotas {
			entitlement.Quotas = append(entitlement.Quotas, &purserv1.Quota{
				Id: q.ID, Meter: q.Meter, Limit: q.Limit, Window: purserv1.Window(q.Window),
			})
		}
		out.Entitlements = append(out.Entitlements, entitlement)
	}
	return out
}

func toAPIRateCard(c *quota.RateCard) *purserv1.RateCard {
	out := &purserv1.RateCard{
		Id: c.ID, Version: c.Version, PriceVersion: c.PriceVersion,
		EffectiveTime: admin.Time(c.EffectiveTime), CreateTime: admin.Time(c.CreateTime),
	}
	for _, p := range c.Prices {
		out.Prices = append(out.Prices, &purserv1.Price{
			Feature: p.Feature, Meter: p.Meter, PriceMicros: p.Rate.PriceMicros, Per: p.Rate.Per,
		})
	}
	return out
}
