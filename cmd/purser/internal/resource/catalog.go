package resource

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

func features() Kind {
	type T = *purserv1.Feature
	return &kind[T]{
		about: About{Name: "feature", Plural: "features", Aliases: []string{"feat", "f"}, Removal: "deleted"},
		id:    T.GetId,
		list: func(ctx context.Context, s *Server, _ string) ([]T, error) {
			return s.ListFeatures(ctx)
		},
		get: func(ctx context.Context, s *Server, id string) (T, error) {
			r, err := s.Catalog.GetFeature(ctx, &purserv1.GetFeatureRequest{Id: id})
			return r.GetFeature(), err
		},
		columns: []column[T]{
			col("feature", said(T.GetId)),
			col("kind", said(func(f T) string { return Word(f.GetKind()) })),
			col("meters", said(func(f T) string { return strings.Join(f.GetMeters(), " ") })),
			col("name", said(T.GetDisplayName)),
			col("age", func(s *Server, f T) string { return s.age(f.GetCreateTime()) }),
			wide("created", said(func(f T) string { return stamp(instant(f.GetCreateTime())) })),
			wide("description", said(T.GetDescription)),
		},
		document: func(m *manifest.Manifest, f T) {
			d := FromFeature(f)
			d.Status = status{CreateTime: instant(f.GetCreateTime())}
			m.Features = append(m.Features, d)
		},
		describe: describeFeature,
		remove: func(ctx context.Context, s *Server, f T, dry bool) error {
			_, err := s.Catalog.DeleteFeature(ctx, &purserv1.DeleteFeatureRequest{Id: f.GetId(), Etag: f.GetEtag(), ValidateOnly: dry})
			return err
		},
	}
}

func plans() Kind {
	type T = *purserv1.PlanVersion
	return &kind[T]{
		about: About{Name: "plan", Plural: "plans", Aliases: []string{"pl", "p"},
			Refusal: "a plan version never changes and never goes, because subscriptions and usage rest on it: publish the next version with purser apply, and move accounts to it or to another plan"},
		id:   T.GetPlan,
		list: func(ctx context.Context, s *Server, _ string) ([]T, error) { return s.ListPlans(ctx) },
		get:  getPlan,
		columns: []column[T]{
			col("plan", said(T.GetPlan)),
			right("version", said(func(p T) string { return strconv.FormatInt(p.GetVersion(), 10) })),
			col("rate card", said(T.GetRateCard)),
			col("features", said(entitled)),
			right("quotas", said(func(p T) string { return strconv.Itoa(quotas(p)) })),
			col("name", said(T.GetDisplayName)),
			col("age", func(s *Server, p T) string { return s.age(p.GetCreateTime()) }),
			wide("created", said(func(p T) string { return stamp(instant(p.GetCreateTime())) })),
			wide("fallback", said(func(p T) string { return strings.Join(p.GetFallback(), " > ") })),
		},
		document: func(m *manifest.Manifest, p T) {
			d := FromPlan(p)
			d.Status = status{Version: p.GetVersion(), CreateTime: instant(p.GetCreateTime())}
			m.Plans = append(m.Plans, d)
		},
		describe: describePlan,
	}
}

// getPlan reads the latest version, or the one behind an @.
func getPlan(ctx context.Context, s *Server, id string) (*purserv1.PlanVersion, error) {
	id, version, err := cutVersion(id)
	if err != nil || version > 0 {
		if err != nil {
			return nil, err
		}
		r, err := s.Catalog.GetPlanVersion(ctx, &purserv1.GetPlanVersionRequest{Plan: id, Version: version})
		return r.GetPlanVersion(), err
	}
	r, err := s.Catalog.GetPlan(ctx, &purserv1.GetPlanRequest{Plan: id})
	return r.GetPlanVersion(), err
}

// cutVersion splits pro@2; without a version it is 0.
func cutVersion(id string) (name string, version int64, err error) {
	name, text, ok := strings.Cut(id, "@")
	if !ok {
		return name, 0, nil
	}
	if version, err = strconv.ParseInt(text, 10, 64); err != nil || version < 1 {
		return "", 0, fmt.Errorf("the version in %q is no whole number from 1", id)
	}
	return name, version, nil
}

func entitled(p *purserv1.PlanVersion) string {
	var out []string
	for _, e := range p.GetEntitlements() {
		out = append(out, e.GetFeature())
	}
	return strings.Join(out, " ")
}

func quotas(p *purserv1.PlanVersion) (n int) {
	for _, e := range p.GetEntitlements() {
		n += len(e.GetQuotas())
	}
	return n
}

func rateCards() Kind {
	type T = *purserv1.RateCard
	return &kind[T]{
		about: About{Name: "ratecard", Plural: "ratecards", Aliases: []string{"rc", "rate-card", "rate-cards", "rate_card", "rate_cards"},
			Refusal: "a version of a rate card never changes and never goes, because reservations were priced by it: publish the next version with purser apply"},
		id:   T.GetId,
		list: func(ctx context.Context, s *Server, _ string) ([]T, error) { return s.LatestRateCards(ctx) },
		get:  getRateCard,
		columns: []column[T]{
			col("ratecard", said(T.GetId)),
			right("version", said(func(c T) string { return strconv.FormatInt(c.GetVersion(), 10) })),
			right("prices", said(func(c T) string { return strconv.Itoa(len(c.GetPrices())) })),
			col("in force", func(s *Server, c T) string { return s.inForce(c) }),
			col("age", func(s *Server, c T) string { return s.age(c.GetCreateTime()) }),
			wide("created", said(func(c T) string { return stamp(instant(c.GetCreateTime())) })),
			wide("price version", said(func(c T) string { return strconv.FormatInt(c.GetPriceVersion(), 10) })),
		},
		document: func(m *manifest.Manifest, c T) {
			d := FromRateCard(c)
			d.Status = status{Version: c.GetVersion(), PriceVersion: c.GetPriceVersion(), CreateTime: instant(c.GetCreateTime())}
			m.RateCards = append(m.RateCards, d)
		},
		describe: describeRateCard,
	}
}

// getRateCard reads the last version published, or the one behind an @.
func getRateCard(ctx context.Context, s *Server, id string) (*purserv1.RateCard, error) {
	name, version, err := cutVersion(id)
	if err != nil {
		return nil, err
	}
	if version == 0 { // the server's 0 is the one in force
		latest, err := s.LatestRateCards(ctx)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(latest, func(c *purserv1.RateCard) bool { return c.GetId() == name }); i >= 0 {
			return latest[i], nil
		}
	}
	r, err := s.Catalog.GetRateCard(ctx, &purserv1.GetRateCardRequest{Id: name, Version: version})
	return r.GetRateCard(), err
}

func (s *Server) inForce(c *purserv1.RateCard) string {
	from := instant(c.GetEffectiveTime())
	if from.After(s.Now) {
		return "from " + stamp(from)
	}
	return "since " + stamp(from)
}

func describeFeature(ctx context.Context, s *Server, f *purserv1.Feature, d *Description) error {
	all, err := s.ListPlans(ctx)
	if err != nil {
		return err
	}
	in := d.section("plans", "plan", "version", "quotas")
	for _, p := range all {
		for _, e := range p.GetEntitlements() {
			if e.GetFeature() == f.GetId() {
				in.add(p.GetPlan(), strconv.FormatInt(p.GetVersion(), 10), quotaWords(e))
			}
		}
	}
	cards, err := s.LatestRateCards(ctx)
	if err != nil {
		return err
	}
	prices := d.section("prices", "ratecard", "meter", "credits", "per")
	for _, c := range cards {
		for _, p := range c.GetPrices() {
			if p.GetFeature() == f.GetId() {
				prices.add(c.GetId(), p.GetMeter(), amount.FormatCredits(p.GetPriceMicros()), strconv.FormatInt(p.GetPer(), 10))
			}
		}
	}
	return nil
}

func quotaWords(e *purserv1.Entitlement) string {
	var out []string
	for _, q := range e.GetQuotas() {
		out = append(out, fmt.Sprintf("%d %s per %s", q.GetLimit(), q.GetMeter(), strings.ToLower(Word(q.GetWindow()))))
	}
	return strings.Join(out, ", ")
}

func describePlan(ctx context.Context, s *Server, p *purserv1.PlanVersion, d *Description) error {
	d.field("limits", limitWords(p))
	in := d.section("entitlements", "feature", "quotas", "limits", "config")
	for _, e := range p.GetEntitlements() {
		in.add(e.GetFeature(), quotaWords(e), limitWords(e), e.GetConfigValue())
	}
	all, err := s.ListAccounts(ctx)
	if err != nil {
		return err
	}
	subscribed := d.section("accounts", "account", "version", "state")
	for _, a := range all {
		if a.GetPlan() == p.GetPlan() {
			subscribed.add(a.GetId(), strconv.FormatInt(a.GetPlanVersion(), 10), Word(a.GetState()))
		}
	}
	return nil
}

func describeRateCard(ctx context.Context, s *Server, c *purserv1.RateCard, d *Description) error {
	prices := d.section("prices", "feature", "meter", "credits", "per")
	for _, p := range c.GetPrices() {
		prices.add(p.GetFeature(), p.GetMeter(), amount.FormatCredits(p.GetPriceMicros()), strconv.FormatInt(p.GetPer(), 10))
	}
	all, err := s.ListRateCards(ctx)
	if err != nil {
		return err
	}
	versions := d.section("versions", "version", "in force", "prices")
	for _, v := range all {
		if v.GetId() == c.GetId() {
			versions.add(strconv.FormatInt(v.GetVersion(), 10), s.inForce(v), strconv.Itoa(len(v.GetPrices())))
		}
	}
	return nil
}

// status is what a server says of a resource and no file asks for.
type status struct {
	ID           string    `json:"id,omitempty"` // of a key: the server chose it
	State        string    `json:"state,omitempty"`
	Reason       string    `json:"suspend_reason,omitempty"`
	Payer        string    `json:"payer,omitempty"`
	Version      int64     `json:"version,omitempty"`
	PlanVersion  int64     `json:"plan_version,omitempty"`
	PriceVersion int64     `json:"price_version,omitempty"`
	CreateTime   time.Time `json:"create_time,omitzero"`
	RevokeTime   time.Time `json:"revoke_time,omitzero"`
}
