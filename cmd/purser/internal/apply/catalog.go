package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func (s *Server) features(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Features) == 0 {
		return nil
	}
	have, err := pages(func(token string) ([]*purserv1.Feature, string, error) {
		r, err := s.catalog.ListFeatures(ctx, &purserv1.ListFeaturesRequest{PageSize: pageSize, PageToken: token})
		return r.GetFeatures(), r.GetNextPageToken(), err
	})
	if err != nil {
		return fmt.Errorf("list features: %w", err)
	}
	for _, f := range m.Features {
		i := slices.IndexFunc(have, func(h *purserv1.Feature) bool { return h.GetId() == f.ID })
		if i < 0 {
			p.add(Create, "feature", f.ID, "", f.Pos, call(s.catalog.CreateFeature, &purserv1.CreateFeatureRequest{
				Id: f.ID, Kind: featureKind(f.Kind), DisplayName: f.DisplayName, Description: f.Description, Meters: f.Meters}))
			continue
		}
		if err := s.feature(f, have[i], p); err != nil {
			return fmt.Errorf("%s:%d: %w", m.Name, f.Line, err)
		}
	}
	return nil
}

func (s *Server) feature(f manifest.Feature, have *purserv1.Feature, p *Plan) error {
	if have.GetKind() != featureKind(f.Kind) {
		return fmt.Errorf("feature %s is %s on the server, and a kind never changes: choose another id", f.ID, have.GetKind())
	}
	var paths []string
	if have.GetDisplayName() != f.DisplayName {
		paths = append(paths, "display_name")
	}
	if have.GetDescription() != f.Description {
		paths = append(paths, "description")
	}
	if !sameSet(have.GetMeters(), f.Meters) {
		paths = append(paths, "meters")
	}
	if len(paths) == 0 {
		p.Unchanged++
		return nil
	}
	p.add(Update, "feature", f.ID, strings.Join(paths, ", "), f.Pos, call(s.catalog.UpdateFeature, &purserv1.UpdateFeatureRequest{
		Id: f.ID, DisplayName: f.DisplayName, Description: f.Description, Meters: f.Meters,
		UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: have.GetEtag()}))
	return nil
}

func (s *Server) rateCards(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.RateCards) == 0 {
		return nil
	}
	have, err := pages(func(token string) ([]*purserv1.RateCard, string, error) {
		r, err := s.catalog.ListRateCards(ctx, &purserv1.ListRateCardsRequest{PageSize: pageSize, PageToken: token})
		return r.GetRateCards(), r.GetNextPageToken(), err
	})
	if err != nil {
		return fmt.Errorf("list rate cards: %w", err)
	}
	for _, c := range m.RateCards {
		last := latestCard(have, c.ID)
		want := &purserv1.PublishRateCardRequest{Id: c.ID, EffectiveTime: timestamp(c.EffectiveTime), Prices: prices(c.Prices)}
		switch {
		case last == nil:
			p.add(Create, "rate card", c.ID, fmt.Sprintf("%d prices", len(c.Prices)), c.Pos, call(s.catalog.PublishRateCard, want))
		case samePrices(last.GetPrices(), want.Prices):
			p.Unchanged++
		default:
			if !c.EffectiveTime.IsZero() && !c.EffectiveTime.After(last.GetEffectiveTime().AsTime()) {
				// With the old time it would price the past anew, or never come into force.
				want.EffectiveTime = nil
			}
			p.add(Update, "rate card", c.ID, fmt.Sprintf("version %d with other prices", last.GetVersion()+1), c.Pos,
				call(s.catalog.PublishRateCard, want))
		}
	}
	return nil
}

func latestCard(all []*purserv1.RateCard, id string) (last *purserv1.RateCard) {
	for _, c := range all {
		if c.GetId() == id && (last == nil || c.GetVersion() > last.GetVersion()) {
			last = c
		}
	}
	return last
}

func prices(list []manifest.Price) []*purserv1.Price {
	var out []*purserv1.Price
	for _, x := range list {
		out = append(out, &purserv1.Price{Feature: x.Feature, Meter: x.Meter, PriceMicros: x.Micros, Per: x.Per})
	}
	return out
}

func samePrices(a, b []*purserv1.Price) bool {
	order := func(x, y *purserv1.Price) int {
		return cmp.Or(cmp.Compare(x.GetFeature(), y.GetFeature()), cmp.Compare(x.GetMeter(), y.GetMeter()))
	}
	return slices.EqualFunc(slices.SortedFunc(slices.Values(a), order), slices.SortedFunc(slices.Values(b), order),
		func(x, y *purserv1.Price) bool { return proto.Equal(x, y) })
}

func (s *Server) plans(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Plans) == 0 {
		return nil
	}
	have, err := pages(func(token string) ([]*purserv1.PlanVersion, string, error) {
		r, err := s.catalog.ListPlans(ctx, &purserv1.ListPlansRequest{PageSize: pageSize, PageToken: token})
		return r.GetPlanVersions(), r.GetNextPageToken(), err
	})
	if err != nil {
		return fmt.Errorf("list plans: %w", err)
	}
	for _, plan := range m.Plans {
		want := planRequest(plan)
		i := slices.IndexFunc(have, func(h *purserv1.PlanVersion) bool { return h.GetPlan() == plan.ID })
		switch {
		case i < 0:
			p.add(Create, "plan", plan.ID, "", plan.Pos, call(s.catalog.PublishPlanVersion, want))
		case samePlan(have[i], want):
			p.Unchanged++
		default:
			p.add(Update, "plan", plan.ID, fmt.Sprintf("version %d; subscriptions stay on theirs", have[i].GetVersion()+1), plan.Pos,
				call(s.catalog.PublishPlanVersion, want))
		}
	}
	return nil
}

func planRequest(p manifest.Plan) *purserv1.PublishPlanVersionRequest {
	out := &purserv1.PublishPlanVersionRequest{Plan: p.ID, DisplayName: p.DisplayName, RateCard: p.RateCard, Fallback: p.Fallback}
	for _, e := range p.Entitlements {
		entitlement := &purserv1.Entitlement{Feature: e.Feature, ConfigValue: e.Config}
		for _, q := range e.Quotas {
			entitlement.Quotas = append(entitlement.Quotas,
				&purserv1.Quota{Id: q.ID, Meter: q.Meter, Limit: q.Limit, Window: window(q.Window)})
		}
		out.Entitlements = append(out.Entitlements, entitlement)
	}
	return out
}

// samePlan: the order of entitlements and of quotas says nothing, that of the fallback does.
func samePlan(have *purserv1.PlanVersion, want *purserv1.PublishPlanVersionRequest) bool {
	return have.GetDisplayName() == want.DisplayName && have.GetRateCard() == want.RateCard &&
		slices.Equal(have.GetFallback(), want.Fallback) &&
		slices.EqualFunc(sortedEntitlements(have.GetEntitlements()), sortedEntitlements(want.Entitlements),
			func(a, b *purserv1.Entitlement) bool { return proto.Equal(a, b) })
}

func sortedEntitlements(list []*purserv1.Entitlement) []*purserv1.Entitlement {
	var out []*purserv1.Entitlement
	for _, e := range list {
		e = proto.CloneOf(e)
		slices.SortFunc(e.Quotas, func(a, b *purserv1.Quota) int { return cmp.Compare(a.GetId(), b.GetId()) })
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *purserv1.Entitlement) int { return cmp.Compare(a.GetFeature(), b.GetFeature()) })
	return out
}

func featureKind(name string) purserv1.FeatureKind {
	return purserv1.FeatureKind(purserv1.FeatureKind_value["FEATURE_KIND_"+name])
}

func window(name string) purserv1.Window {
	return purserv1.Window(purserv1.Window_value["WINDOW_"+name])
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// timestamp leaves out what was not said.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
