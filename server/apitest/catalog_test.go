package apitest

import (
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func features(c *conversation) {
	c.say("one feature of each kind")
	call(c, asAdmin, c.catalog.CreateFeature, &purserv1.CreateFeatureRequest{Id: "sso", Kind: purserv1.FeatureKind_FEATURE_KIND_BOOLEAN,
		DisplayName: "Single sign-on", Description: "Log in with the company's identity provider."})
	call(c, asAdmin, c.catalog.CreateFeature, &purserv1.CreateFeatureRequest{Id: "context.window", Kind: purserv1.FeatureKind_FEATURE_KIND_CONFIG})
	call(c, asAdmin, c.catalog.CreateFeature, metered("chat"))
	c.say("an id is taken once, and only a METERED feature has meters")
	call(c, asAdmin, c.catalog.CreateFeature, metered("chat"))
	call(c, asAdmin, c.catalog.CreateFeature, &purserv1.CreateFeatureRequest{Id: "x", Kind: purserv1.FeatureKind_FEATURE_KIND_BOOLEAN, Meters: []string{"m"}})
	call(c, asViewer, c.catalog.GetFeature, &purserv1.GetFeatureRequest{Id: "nowhere"})

	c.say("an update sets what its mask names, under the etag that was read")
	old := call(c, asViewer, c.catalog.GetFeature, &purserv1.GetFeatureRequest{Id: "chat"}).GetFeature()
	update := func(etag, name string, mask ...string) *purserv1.UpdateFeatureRequest {
		return &purserv1.UpdateFeatureRequest{Id: "chat", DisplayName: name, Meters: []string{"input_tokens"}, Etag: etag,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: mask}}
	}
	call(c, asAdmin, c.catalog.UpdateFeature, update(old.GetEtag(), "Chat", "display_name"))
	call(c, asAdmin, c.catalog.UpdateFeature, update(old.GetEtag(), "Chatter", "display_name"))
	call(c, asAdmin, c.catalog.UpdateFeature, update("", "Chat", "kind"))
	call(c, asAdmin, c.catalog.UpdateFeature, update("yesterday", "Chat", "display_name"))

	c.say("pages")
	first := call(c, asViewer, c.catalog.ListFeatures, &purserv1.ListFeaturesRequest{PageSize: 2})
	call(c, asViewer, c.catalog.ListFeatures, &purserv1.ListFeaturesRequest{PageSize: 2, PageToken: first.GetNextPageToken()})

	c.say("what is in use stays: meters that have a price, features that a plan names")
	call(c, asAdmin, c.catalog.PublishRateCard, &purserv1.PublishRateCardRequest{Id: "standard", EffectiveTime: &timestamppb.Timestamp{Seconds: 1_700_000_000},
		Prices: []*purserv1.Price{{Feature: "chat", Meter: "output_tokens", PriceMicros: 3, Per: 1000}}})
	call(c, asAdmin, c.catalog.UpdateFeature, update("", "", "meters"))
	call(c, asAdmin, c.catalog.DeleteFeature, &purserv1.DeleteFeatureRequest{Id: "chat"})
	call(c, asAdmin, c.catalog.DeleteFeature, &purserv1.DeleteFeatureRequest{Id: "sso", Etag: "1"})
	call(c, asAdmin, c.catalog.DeleteFeature, &purserv1.DeleteFeatureRequest{Id: "sso"})
	call(c, asAdmin, c.catalog.DeleteFeature, &purserv1.DeleteFeatureRequest{Id: "sso"})
}

func plansAndRateCards(c *conversation) {
	must(c.world, asAdmin, c.catalog.CreateFeature, metered("large"))
	must(c.world, asAdmin, c.catalog.CreateFeature, metered("small"))
	must(c.world, asAdmin, c.catalog.CreateFeature, &purserv1.CreateFeatureRequest{Id: "context.window", Kind: purserv1.FeatureKind_FEATURE_KIND_CONFIG})
	price := func(feature, meter string, micros int64) *purserv1.PublishRateCardRequest {
		return &purserv1.PublishRateCardRequest{Id: "standard", EffectiveTime: &timestamppb.Timestamp{Seconds: 1_700_000_000},
			Prices: []*purserv1.Price{{Feature: feature, Meter: meter, PriceMicros: micros, Per: 1_000_000}}}
	}
	c.say("a rate card names features and meters that exist; 0 is a price, 0 units are not")
	call(c, asAdmin, c.catalog.PublishRateCard, price("nowhere", "input_tokens", 1))
	call(c, asAdmin, c.catalog.PublishRateCard, price("large", "images", 1))
	call(c, asAdmin, c.catalog.PublishRateCard, price("large", "input_tokens", 2_500_000))
	zero := price("large", "input_tokens", 0)
	call(c, asAdmin, c.catalog.PublishRateCard, zero)
	zero.Prices[0].Per = 0
	call(c, asAdmin, c.catalog.PublishRateCard, zero)
	later := price("small", "input_tokens", 7)
	later.EffectiveTime = &timestamppb.Timestamp{Seconds: 4_000_000_000}
	call(c, asAdmin, c.catalog.PublishRateCard, later)
	c.say("in force is the latest that is effective")
	call(c, asViewer, c.catalog.GetRateCard, &purserv1.GetRateCardRequest{Id: "standard"})
	call(c, asViewer, c.catalog.GetRateCard, &purserv1.GetRateCardRequest{Id: "standard", Version: 3})
	call(c, asViewer, c.catalog.GetRateCard, &purserv1.GetRateCardRequest{Id: "standard", Version: 9})
	page := call(c, asViewer, c.catalog.ListRateCards, &purserv1.ListRateCardsRequest{PageSize: 2})
	call(c, asViewer, c.catalog.ListRateCards, &purserv1.ListRateCardsRequest{PageSize: 2, PageToken: page.GetNextPageToken()})

	c.say("a plan names what exists, and each quota id once")
	call(c, asAdmin, c.catalog.PublishPlanVersion, &purserv1.PublishPlanVersionRequest{Plan: "pro", Entitlements: []*purserv1.Entitlement{{Feature: "nowhere"}}})
	call(c, asAdmin, c.catalog.PublishPlanVersion, &purserv1.PublishPlanVersionRequest{Plan: "pro", RateCard: "nowhere"})
	quotas := func(meter string, ids ...string) *purserv1.PublishPlanVersionRequest {
		r := &purserv1.PublishPlanVersionRequest{Plan: "pro", DisplayName: "Professional", RateCard: "standard", Fallback: []string{"large", "small"},
			Entitlements: []*purserv1.Entitlement{{Feature: "context.window", ConfigValue: "128000"}, {Feature: "large"}, {Feature: "small"}}}
		for _, id := range ids {
			r.Entitlements[1].Quotas = append(r.Entitlements[1].Quotas,
				&purserv1.Quota{Id: id, Meter: meter, Limit: 1000, Window: purserv1.Window_WINDOW_MONTH})
		}
		return r
	}
	call(c, asAdmin, c.catalog.PublishPlanVersion, quotas("images", "monthly"))
	call(c, asAdmin, c.catalog.PublishPlanVersion, quotas("requests", "monthly", "monthly"))
	call(c, asAdmin, c.catalog.PublishPlanVersion, quotas("requests", "monthly"))
	call(c, asAdmin, c.catalog.PublishPlanVersion, quotas("output_tokens", "monthly-tokens"))
	call(c, asAdmin, c.catalog.PublishPlanVersion, &purserv1.PublishPlanVersionRequest{Plan: "free"})
	c.say("rates count meters that exist, over a second to an hour; each limit id is there once")
	limits := func(r *purserv1.RateLimit, more ...*purserv1.ConcurrencyLimit) *purserv1.PublishPlanVersionRequest {
		return &purserv1.PublishPlanVersionRequest{Plan: "free", Rates: []*purserv1.RateLimit{r}, Concurrency: more,
			Entitlements: []*purserv1.Entitlement{{Feature: "small"}}}
	}
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("images", "images", 1, time.Minute)))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("rpm", "requests", 0, time.Minute)))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("rpm", "requests", 1, 2*time.Hour)))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(&purserv1.RateLimit{Id: "rpm", Meter: "requests", Limit: 1}))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("rpm", "requests", 60, time.Minute), &purserv1.ConcurrencyLimit{Id: "rpm", Limit: 1}))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("rpm", "requests", 60, time.Minute), &purserv1.ConcurrencyLimit{Id: "streams", Limit: 1_000_001}))
	call(c, asAdmin, c.catalog.PublishPlanVersion, limits(rate("rpm", "requests", 60, time.Minute), &purserv1.ConcurrencyLimit{Id: "streams", Limit: 4, LabelKey: "User"}))
	full := limits(rate("rpm", "requests", 60, time.Minute), &purserv1.ConcurrencyLimit{Id: "streams", Limit: 4, LabelKey: "user"})
	full.Entitlements[0].Rates = []*purserv1.RateLimit{rate("rpm", "output_tokens", 1000, time.Second)}
	full.Entitlements[0].Rates[0].Burst = 5000
	call(c, asAdmin, c.catalog.PublishPlanVersion, full)
	c.say("versions never change")
	call(c, asViewer, c.catalog.GetPlan, &purserv1.GetPlanRequest{Plan: "pro"})
	call(c, asViewer, c.catalog.GetPlanVersion, &purserv1.GetPlanVersionRequest{Plan: "pro", Version: 1})
	call(c, asViewer, c.catalog.GetPlanVersion, &purserv1.GetPlanVersionRequest{Plan: "pro", Version: 3})
	call(c, asViewer, c.catalog.GetPlan, &purserv1.GetPlanRequest{Plan: "nowhere"})
	plans := call(c, asViewer, c.catalog.ListPlans, &purserv1.ListPlansRequest{PageSize: 1})
	call(c, asViewer, c.catalog.ListPlans, &purserv1.ListPlansRequest{PageSize: 1, PageToken: plans.GetNextPageToken()})
}
