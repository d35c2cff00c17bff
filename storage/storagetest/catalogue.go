package storagetest

import (
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
)

func catalogueTests() []Test {
	return []Test{
		{"Empty", catalogueEmpty},
		{"Features", catalogueFeatures},
		{"FeatureETags", catalogueETags},
		{"FeatureInUse", catalogueInUse},
		{"PlanVersions", cataloguePlans},
		{"PlanNamesWhatExists", cataloguePlanRefs},
		{"QuotasKeepWhatTheyCount", catalogueQuotas},
		{"RateCardVersions", catalogueRateCards},
		{"RateCardNamesWhatExists", catalogueRateCardRefs},
	}
}

func (e *Env) feature(id string, meters ...string) authz.Feature {
	e.Helper()
	f, err := e.Store.CreateFeature(e.ctx, e.mutation(), authz.Feature{ID: id, Kind: authz.FeatureMetered, Meters: meters})
	e.must(err)
	return f
}

func (e *Env) rateCard(id string, prices ...quota.Price) quota.RateCard {
	e.Helper()
	c, err := e.Store.PublishRateCard(e.ctx, e.mutation(), quota.RateCard{ID: id, EffectiveTime: e.Now(), Prices: prices})
	e.must(err)
	return c
}

func (e *Env) plan(p authz.Plan) authz.Plan {
	e.Helper()
	p, err := e.Store.PublishPlan(e.ctx, e.mutation(), p)
	e.must(err)
	return p
}

func (e *Env) catalogue() *quota.Catalogue {
	e.Helper()
	c, err := e.Store.Catalogue(e.ctx)
	e.must(err)
	return c
}

func catalogueEmpty(e *Env) {
	c := e.catalogue()
	e.check(len(c.Features) == 0 && c.Revision == 0, "an empty store has %+v", c)
}

func catalogueFeatures(e *Env) {
	full := authz.Feature{ID: "chat.gpt-large", Kind: authz.FeatureMetered, DisplayName: "Großes \"Modell\"", Description: "a\nb",
		Meters: []string{"input_tokens", "output_tokens"}}
	got, err := e.Store.CreateFeature(e.ctx, e.mutation(), full)
	e.must(err)
	e.check(got.Revision == 1 && got.CreateTime > 0, "created %+v", got)
	full.Revision, full.CreateTime = got.Revision, got.CreateTime
	e.same("created", got, full)
	e.same("read", *e.catalogue().Features[full.ID], full)
	_, err = e.Store.CreateFeature(e.ctx, e.mutation(), full)
	e.refused(err, quota.ReasonResourceExists)
	full.DisplayName, full.Meters = "x", append(full.Meters, "images")
	got, err = e.Store.UpdateFeature(e.ctx, e.mutation(), full, 0)
	e.must(err)
	full.Revision = got.Revision
	e.same("updated", *e.catalogue().Features[full.ID], full)
	e.same("revision", e.catalogue().Revision, full.Revision)
	_, err = e.Store.UpdateFeature(e.ctx, e.mutation(), authz.Feature{ID: "none", Kind: authz.FeatureBoolean}, 0)
	e.refused(err, quota.ReasonFeatureNotFound)
	e.must(e.Store.DeleteFeature(e.ctx, e.mutation(), full.ID, 0))
	e.check(len(e.catalogue().Features) == 0, "a deleted feature is there")
	e.refused(e.Store.DeleteFeature(e.ctx, e.mutation(), full.ID, 0), quota.ReasonFeatureNotFound)
}

func catalogueETags(e *Env) {
	f := e.feature("chat")
	seen := f.Revision
	f, err := e.Store.UpdateFeature(e.ctx, e.mutation(), f, seen)
	e.must(err)
	_, err = e.Store.UpdateFeature(e.ctx, e.mutation(), f, seen)
	e.refused(err, quota.ReasonETagMismatch)
	e.refused(e.Store.DeleteFeature(e.ctx, e.mutation(), "chat", seen), quota.ReasonETagMismatch)
	e.must(e.Store.DeleteFeature(e.ctx, e.mutation(), "chat", f.Revision))
}

func catalogueInUse(e *Env) {
	e.feature("priced", "images")
	e.feature("planned")
	e.feature("fallback")
	e.feature("free")
	limited := e.feature("limited", "images")
	shared := e.feature("shared", "audio_seconds")
	card := e.rateCard("standard", quota.Price{Feature: "priced", Meter: "images", Rate: pricing.Rate{PriceMicros: 1, Per: 1}})
	e.plan(authz.Plan{ID: "basic", RateCard: card.ID, Entitlements: []authz.Entitlement{{Feature: "planned"}}, Fallback: []string{"fallback"}})
	for _, id := range []string{"priced", "planned", "fallback"} {
		e.refused(e.Store.DeleteFeature(e.ctx, e.mutation(), id, 0), quota.ReasonResourceInUse)
	}
	e.must(e.Store.DeleteFeature(e.ctx, e.mutation(), "free", 0))
	e.plan(authz.Plan{ID: "limits", Entitlements: []authz.Entitlement{{Feature: "limited", Limits: rateOf("images")}, {Feature: "shared"}},
		Limits: rateOf("audio_seconds")})
	for _, f := range []authz.Feature{limited, shared} {
		f.Meters = nil // which a rate counts
		_, err := e.Store.UpdateFeature(e.ctx, e.mutation(), f, 0)
		e.refused(err, quota.ReasonResourceInUse)
	}
}

func cataloguePlans(e *Env) {
	e.feature("chat", "output_tokens")
	e.rateCard("standard", quota.Price{Feature: "chat", Meter: "output_tokens", Rate: pricing.Rate{PriceMicros: 3, Per: 1000}})
	p := authz.Plan{ID: "basic", DisplayName: "Basic", RateCard: "standard", Fallback: []string{"chat"},
		Entitlements: []authz.Entitlement{{Feature: "chat", Config: "{\"a\":1}",
			Quotas: []authz.Quota{{ID: "monthly", Meter: "output_tokens", Limit: 1 << 40, Window: window.Month}},
			Limits: authz.Limits{Rates: []authz.Rate{{ID: "tpm", Meter: "output_tokens", Limit: 1 << 50, Per: time.Minute, Burst: 1, LabelKey: "user"}}}}},
		Limits: authz.Limits{Rates: []authz.Rate{{ID: "rps", Meter: authz.MeterRequests, Limit: 1, Per: time.Hour}},
			Concurrency: []authz.Concurrency{{ID: "streams", Limit: 7}, {ID: "each", Limit: 1, LabelKey: "team"}}}}
	for version := int64(1); version <= 2; version++ {
		got := e.plan(p)
		e.check(got.Version == version, "version %d, want %d", got.Version, version)
		want := p
		want.Version, want.Revision, want.CreateTime = version, got.Revision, got.CreateTime
		read, ok := e.catalogue().Plan(authz.PlanRef{ID: "basic", Version: version})
		e.check(ok, "version %d is not in the catalogue", version)
		e.same("plan", *read, want)
	}
}

func cataloguePlanRefs(e *Env) {
	e.feature("chat", "output_tokens")
	e.rateCard("standard", quota.Price{Feature: "chat", Meter: "output_tokens", Rate: pricing.Rate{Per: 1}})
	for name, c := range map[string]struct {
		plan authz.Plan
		want quota.Reason
	}{
		"feature":   {authz.Plan{ID: "p", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "none"}}}, quota.ReasonFeatureNotFound},
		"rate card": {authz.Plan{ID: "p", RateCard: "none", Entitlements: []authz.Entitlement{{Feature: "chat"}}}, quota.ReasonRateCardNotFound},
		"meter": {authz.Plan{ID: "p", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "chat",
			Quotas: []authz.Quota{{ID: "m", Meter: "images", Limit: 1, Window: window.Day}}}}}, quota.ReasonUnitUnknown},
		"meter of a rate": {authz.Plan{ID: "p", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "chat",
			Limits: rateOf("images")}}}, quota.ReasonUnitUnknown},
		"meter of a rate of all": {authz.Plan{ID: "p", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "chat"}},
			Limits: rateOf("images")}, quota.ReasonUnitUnknown},
	} {
		_, err := e.Store.PublishPlan(e.ctx, e.mutation(), c.plan)
		if err == nil {
			e.Fatalf("a plan that names an unknown %s was published", name)
		}
		e.refused(err, c.want)
	}
	_, ok := e.catalogue().Plan(authz.PlanRef{ID: "p", Version: 1})
	e.check(!ok, "a refused plan is in the catalogue")
}

// catalogueQuotas: what a quota counts is the same in every plan and version, for its counter
// is (R33). Its limit may change.
func catalogueQuotas(e *Env) {
	e.feature("chat", "input_tokens", "output_tokens")
	e.feature("search")
	plan := func(id, feature string, q authz.Quota) authz.Plan {
		return authz.Plan{ID: id, Entitlements: []authz.Entitlement{{Feature: feature, Quotas: []authz.Quota{q}}}}
	}
	first := authz.Quota{ID: "daily", Meter: "output_tokens", Limit: 100, Window: window.Day}
	e.plan(plan("basic", "chat", first))
	larger := first
	larger.Limit = 200
	e.plan(plan("basic", "chat", larger))
	e.plan(plan("pro", "chat", larger))
	for name, p := range map[string]authz.Plan{
		"meter":                    plan("basic", "chat", authz.Quota{ID: "daily", Meter: "input_tokens", Limit: 100, Window: window.Day}),
		"window":                   plan("basic", "chat", authz.Quota{ID: "daily", Meter: "output_tokens", Limit: 100, Window: window.Month}),
		"meter in another plan":    plan("team", "chat", authz.Quota{ID: "daily", Meter: "input_tokens", Limit: 100, Window: window.Day}),
		"meter of another feature": plan("team", "search", authz.Quota{ID: "daily", Meter: authz.MeterRequests, Limit: 100, Window: window.Day}),
	} {
		_, err := e.Store.PublishPlan(e.ctx, e.mutation(), p)
		if err == nil {
			e.Fatalf("a quota with another %s was published", name)
		}
		e.refused(err, quota.ReasonRequestInvalid)
	}
	e.plan(plan("basic", "chat", authz.Quota{ID: "daily-input", Meter: "input_tokens", Limit: 100, Window: window.Day}))
	e.plan(plan("basic", "chat", first)) // it has not become free to mean something else
	_, err := e.Store.PublishPlan(e.ctx, e.mutation(), plan("basic", "chat", authz.Quota{ID: "daily-input", Meter: "output_tokens", Limit: 1, Window: window.Day}))
	e.refused(err, quota.ReasonRequestInvalid)
}

func rateOf(meter string) authz.Limits {
	return authz.Limits{Rates: []authz.Rate{{ID: "r", Meter: meter, Limit: 1, Per: time.Second}}}
}

func catalogueRateCards(e *Env) {
	e.feature("chat", "input_tokens", "output_tokens")
	now := e.Now()
	prices := []quota.Price{{Feature: "chat", Meter: "input_tokens", Rate: pricing.Rate{PriceMicros: 0, Per: 1}},
		{Feature: "chat", Meter: "output_tokens", Rate: pricing.Rate{PriceMicros: 1 << 50, Per: 1 << 40}},
		{Feature: "chat", Meter: authz.MeterRequests, Rate: pricing.Rate{PriceMicros: 5, Per: 1}}}
	publish := func(id string, effective int64) quota.RateCard {
		c, err := e.Store.PublishRateCard(e.ctx, e.mutation(), quota.RateCard{ID: id, EffectiveTime: effective, Prices: prices})
		e.must(err)
		return c
	}
	a1, b1, a2 := publish("a", now), publish("b", now), publish("a", now+1000)
	e.check(a1.Version == 1 && b1.Version == 1 && a2.Version == 2, "versions %d, %d, %d", a1.Version, b1.Version, a2.Version)
	e.check(a1.PriceVersion == 1 && b1.PriceVersion == 2 && a2.PriceVersion == 3, "price versions %d, %d, %d", a1.PriceVersion, b1.PriceVersion, a2.PriceVersion)
	c := e.catalogue()
	for at, want := range map[int64]quota.RateCard{now: a1, now + 999: a1, now + 1000: a2} {
		got, ok := c.CardAt("a", at)
		e.check(ok, "no rate card at %d", at)
		e.same("rate card", *got, want)
	}
	_, ok := c.CardAt("a", now-1)
	e.check(!ok, "a rate card is in force before its time")
	r, ok := c.Rate(b1.PriceVersion, "chat", "output_tokens")
	e.check(ok && r == prices[1].Rate, "rate %+v, %t", r, ok)
}

func catalogueRateCardRefs(e *Env) {
	e.feature("chat", "output_tokens")
	publish := func(feature, meter string) error {
		_, err := e.Store.PublishRateCard(e.ctx, e.mutation(), quota.RateCard{ID: "a",
			Prices: []quota.Price{{Feature: feature, Meter: meter, Rate: pricing.Rate{Per: 1}}}})
		return err
	}
	e.refused(publish("none", "output_tokens"), quota.ReasonFeatureNotFound)
	e.refused(publish("chat", "images"), quota.ReasonUnitUnknown)
	e.must(publish("chat", "output_tokens"))
}
