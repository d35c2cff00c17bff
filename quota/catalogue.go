package quota

import (
	"cmp"
	"slices"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota/pricing"
)

// Price is what a feature's meter costs.
type Price struct {
	Feature string
	Meter   string
	Rate    pricing.Rate
}

// RateCard is one immutable version of a rate card, in force from EffectiveTime until the
// next version's. PriceVersion numbers versions over all rate cards; a token carries it, so
// a reservation is settled at the prices it was made at.
type RateCard struct {
	ID            string
	Version       int64
	PriceVersion  int64
	EffectiveTime int64
	Prices        []Price
	CreateTime    int64
	Revision      int64
}

// Rate finds the price of feature's meter. Rate cards are small; the data plane asks a
// [Catalogue], which has an index.
func (r *RateCard) Rate(feature, meter string) (pricing.Rate, bool) {
	for i := range r.Prices {
		if r.Prices[i].Feature == feature && r.Prices[i].Meter == meter {
			return r.Prices[i].Rate, true
		}
	}
	return pricing.Rate{}, false
}

type priceKey struct {
	version        int64
	feature, meter string
}

// Catalogue is an immutable snapshot of features, plans and prices (R47), replaced whole.
type Catalogue struct {
	Revision int64
	Features map[string]*authz.Feature
	plans    map[authz.PlanRef]*authz.Plan
	cards    map[string][]*RateCard // by effective time, then version
	rates    map[priceKey]pricing.Rate
	versions map[int64]*RateCard
	meters   map[string]struct{}
}

// NewCatalogue indexes a snapshot.
func NewCatalogue(revision int64, features []authz.Feature, plans []authz.Plan, cards []RateCard) *Catalogue {
	c := &Catalogue{
		Revision: revision,
		Features: make(map[string]*authz.Feature, len(features)),
		plans:    make(map[authz.PlanRef]*authz.Plan, len(plans)),
		cards:    make(map[string][]*RateCard),
		rates:    make(map[priceKey]pricing.Rate),
		versions: make(map[int64]*RateCard, len(cards)),
		meters:   map[string]struct{}{authz.MeterRequests: {}},
	}
	for i := range features {
		c.Features[features[i].ID] = &features[i]
		for _, m := range features[i].Meters {
			c.meters[m] = struct{}{}
		}
	}
	for i := range plans {
		c.plans[authz.PlanRef{ID: plans[i].ID, Version: plans[i].Version}] = &plans[i]
	}
	for i := range cards {
		card := &cards[i]
		c.cards[card.ID] = append(c.cards[card.ID], card)
		c.versions[card.PriceVersion] = card
		for _, p := range card.Prices {
			c.rates[priceKey{card.PriceVersion, p.Feature, p.Meter}] = p.Rate
		}
	}
	for _, list := range c.cards {
		slices.SortFunc(list, func(a, b *RateCard) int {
			return cmp.Or(cmp.Compare(a.EffectiveTime, b.EffectiveTime), cmp.Compare(a.Version, b.Version))
		})
	}
	return c
}

// Plan finds a plan version.
func (c *Catalogue) Plan(ref authz.PlanRef) (*authz.Plan, bool) {
	p, ok := c.plans[ref]
	return p, ok
}

// Plans lists every version of every plan, by id and version.
func (c *Catalogue) Plans() []*authz.Plan {
	out := make([]*authz.Plan, 0, len(c.plans))
	for _, p := range c.plans {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *authz.Plan) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// RateCards lists every version of every rate card, by id and version.
func (c *Catalogue) RateCards() []*RateCard {
	out := make([]*RateCard, 0, len(c.versions))
	for _, r := range c.versions {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *RateCard) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// MeterKnown reports whether any feature is measured in meter.
func (c *Catalogue) MeterKnown(meter string) bool {
	_, ok := c.meters[meter]
	return ok
}

// CardAt is the version of rate card id in force at now: the last effective one; among
// versions effective from the same instant the latest published.
func (c *Catalogue) CardAt(id string, now int64) (*RateCard, bool) {
	list := c.cards[id]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].EffectiveTime <= now {
			return list[i], true
		}
	}
	return nil, false
}

// Rate finds the price of feature's meter in a price version. It does not allocate.
func (c *Catalogue) Rate(priceVersion int64, feature, meter string) (pricing.Rate, bool) {
	r, ok := c.rates[priceKey{priceVersion, feature, meter}]
	return r, ok
}

// HasPriceVersion reports whether the snapshot knows a price version; a token may carry one
// that was published after it (R37).
func (c *Catalogue) HasPriceVersion(v int64) bool {
	_, ok := c.versions[v]
	return ok
}
