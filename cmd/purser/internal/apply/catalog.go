package apply

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func (s *Server) features(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Features) == 0 {
		return nil
	}
	have, err := s.ListFeatures(ctx)
	if err != nil {
		return err
	}
	for _, f := range m.Features {
		want := f
		want.Pos, want.Status, want.Meters = manifest.Pos{}, nil, slices.Sorted(slices.Values(f.Meters))
		i := slices.IndexFunc(have, func(h *purserv1.Feature) bool { return h.GetId() == f.ID })
		if i < 0 {
			p.add(f.Pos, call(Action{Verb: Create, Kind: "feature", ID: f.ID, After: want},
				s.Catalog.CreateFeature, &purserv1.CreateFeatureRequest{Id: f.ID, Kind: featureKind(f.Kind),
					DisplayName: f.DisplayName, Description: f.Description, Meters: f.Meters}))
			continue
		}
		if err := s.feature(want, have[i], f.Pos, p); err != nil {
			return p.at(f.Pos, err)
		}
	}
	return nil
}

func (s *Server) feature(want manifest.Feature, have *purserv1.Feature, pos manifest.Pos, p *Plan) error {
	before := resource.FromFeature(have)
	if before.Kind != want.Kind {
		return fmt.Errorf("feature %s is %s on the server, and a kind never changes: choose another id", want.ID, before.Kind)
	}
	var paths []string
	if before.DisplayName != want.DisplayName {
		paths = append(paths, "display_name")
	}
	if before.Description != want.Description {
		paths = append(paths, "description")
	}
	if !slices.Equal(before.Meters, want.Meters) {
		paths = append(paths, "meters")
	}
	if len(paths) == 0 {
		p.Unchanged++
		return nil
	}
	p.add(pos, call(Action{Verb: Update, Kind: "feature", ID: want.ID, Detail: strings.Join(paths, ", "), Before: before, After: want},
		s.Catalog.UpdateFeature, &purserv1.UpdateFeatureRequest{Id: want.ID, DisplayName: want.DisplayName, Description: want.Description,
			Meters: want.Meters, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: have.GetEtag()}))
	return nil
}

func (s *Server) rateCards(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.RateCards) == 0 {
		return nil
	}
	have, err := s.LatestRateCards(ctx)
	if err != nil {
		return err
	}
	for _, c := range m.RateCards {
		want := resource.SortedRateCard(c)
		want.Pos, want.Status = manifest.Pos{}, nil
		request := &purserv1.PublishRateCardRequest{Id: c.ID, EffectiveTime: timestamp(c.EffectiveTime), Prices: prices(c.Prices)}
		i := slices.IndexFunc(have, func(h *purserv1.RateCard) bool { return h.GetId() == c.ID })
		if i < 0 {
			p.add(c.Pos, call(Action{Verb: Create, Kind: "rate card", ID: c.ID, Detail: fmt.Sprintf("%d prices", len(c.Prices)), After: want},
				s.Catalog.PublishRateCard, request))
			continue
		}
		before := resource.FromRateCard(have[i])
		if same(before.Prices, want.Prices) {
			p.Unchanged++
			continue
		}
		if !c.EffectiveTime.After(before.EffectiveTime) {
			// With the old time it would price the past anew, or never come into force.
			request.EffectiveTime = nil
			before.EffectiveTime, want.EffectiveTime = time.Time{}, time.Time{}
		}
		p.add(c.Pos, call(Action{Verb: Update, Kind: "rate card", ID: c.ID, Detail: fmt.Sprintf("version %d with other prices", have[i].GetVersion()+1),
			Before: before, After: want}, s.Catalog.PublishRateCard, request))
	}
	return nil
}

func prices(list []manifest.Price) []*purserv1.Price {
	var out []*purserv1.Price
	for _, x := range list {
		out = append(out, &purserv1.Price{Feature: x.Feature, Meter: x.Meter, PriceMicros: int64(x.Micros), Per: x.Per})
	}
	return out
}

func (s *Server) plans(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Plans) == 0 {
		return nil
	}
	have, err := s.ListPlans(ctx)
	if err != nil {
		return err
	}
	for _, plan := range m.Plans {
		want := resource.SortedPlan(plan)
		want.Pos, want.Status = manifest.Pos{}, nil
		request := planRequest(plan)
		i := slices.IndexFunc(have, func(h *purserv1.PlanVersion) bool { return h.GetPlan() == plan.ID })
		if i < 0 {
			p.add(plan.Pos, call(Action{Verb: Create, Kind: "plan", ID: plan.ID, After: want}, s.Catalog.PublishPlanVersion, request))
			continue
		}
		before := resource.FromPlan(have[i])
		if same(before, want) {
			p.Unchanged++
			continue
		}
		p.add(plan.Pos, call(Action{Verb: Update, Kind: "plan", ID: plan.ID, Before: before, After: want,
			Detail: fmt.Sprintf("version %d; subscriptions stay on theirs", have[i].GetVersion()+1)}, s.Catalog.PublishPlanVersion, request))
	}
	return nil
}

func planRequest(p manifest.Plan) *purserv1.PublishPlanVersionRequest {
	out := &purserv1.PublishPlanVersionRequest{Plan: p.ID, DisplayName: p.DisplayName, RateCard: p.RateCard, Fallback: p.Fallback,
		Rates: rates(p.Rates), Concurrency: concurrency(p.Concurrency)}
	for _, e := range p.Entitlements {
		entitlement := &purserv1.Entitlement{Feature: e.Feature, ConfigValue: e.Config,
			Rates: rates(e.Rates), Concurrency: concurrency(e.Concurrency)}
		for _, q := range e.Quotas {
			entitlement.Quotas = append(entitlement.Quotas,
				&purserv1.Quota{Id: q.ID, Meter: q.Meter, Limit: q.Limit, Window: window(q.Window)})
		}
		out.Entitlements = append(out.Entitlements, entitlement)
	}
	return out
}

func featureKind(name string) purserv1.FeatureKind {
	return purserv1.FeatureKind(purserv1.FeatureKind_value["FEATURE_KIND_"+name])
}

func window(name string) purserv1.Window {
	return purserv1.Window(purserv1.Window_value["WINDOW_"+name])
}
