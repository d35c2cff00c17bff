package relational

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
)

const (
	readRevisionSQL = `SELECT value FROM revision WHERE id = 1`

	listFeaturesSQL = `SELECT id, kind, display_name, description, meters, create_time, revision
FROM features ORDER BY id`

	listPlansSQL = `SELECT id, version, display_name, rate_card, entitlements, limits, fallback, create_time, revision
FROM plans ORDER BY id, version`

	listRateCardsSQL = `SELECT id, version, price_version, effective_time, prices, create_time, revision
FROM rate_cards ORDER BY id, version`

	insertFeatureSQL = `INSERT INTO features (id, kind, display_name, description, meters, create_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7)`

	updateFeatureSQL = `UPDATE features SET display_name = $2, description = $3, meters = $4, revision = $5
WHERE id = $1`

	deleteFeatureSQL = `DELETE FROM features WHERE id = $1`

	latestPlanSQL = `SELECT COALESCE(MAX(version), 0) FROM plans WHERE id = $1`

	insertPlanSQL = `INSERT INTO plans (id, version, display_name, rate_card, entitlements, limits, fallback, create_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

	latestRateCardSQL = `SELECT COALESCE(MAX(version), 0) FROM rate_cards WHERE id = $1`

	latestPriceSQL = `SELECT COALESCE(MAX(price_version), 0) FROM rate_cards`

	insertRateCardSQL = `INSERT INTO rate_cards (id, version, price_version, effective_time, prices, create_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7)`
)

// snapshot is the catalogue in its parts.
type snapshot struct {
	revision int64
	features []authz.Feature
	plans    []authz.Plan
	cards    []quota.RateCard
}

// readSnapshot reads the whole catalogue. It is small: plans and prices, not accounts.
func readSnapshot(ctx context.Context, tx Tx) (*snapshot, error) {
	var s snapshot
	if _, err := queryRow(ctx, tx, readRevisionSQL, nil, &s.revision); err != nil {
		return nil, fmt.Errorf("read revision: %w", err)
	}
	err := each(ctx, tx, listFeaturesSQL, nil, func(r Rows) error {
		f, err := scanFeature(r)
		s.features = append(s.features, f)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read features: %w", err)
	}
	err = each(ctx, tx, listPlansSQL, nil, func(r Rows) error {
		p, err := scanPlan(r)
		s.plans = append(s.plans, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	err = each(ctx, tx, listRateCardsSQL, nil, func(r Rows) error {
		c, err := scanRateCard(r)
		s.cards = append(s.cards, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read rate cards: %w", err)
	}
	return &s, nil
}

// Catalogue see [quota.CatalogueStore].
func (s *Store) Catalogue(ctx context.Context) (c *quota.Catalogue, err error) {
	err = s.Read(ctx, func(tx Tx) error {
		snap, err := readSnapshot(ctx, tx)
		if err != nil {
			return err
		}
		c = quota.NewCatalogue(snap.revision, snap.features, snap.plans, snap.cards)
		return nil
	})
	return c, err
}

// feature finds a feature by id.
func (s *snapshot) feature(id string) (*authz.Feature, error) {
	for i := range s.features {
		if s.features[i].ID == id {
			return &s.features[i], nil
		}
	}
	return nil, refuse(quota.ReasonFeatureNotFound, "there is no feature "+quoted(id), "feature", id)
}

// meter checks that a feature is measured in meter.
func (s *snapshot) meter(feature, meter string) error {
	f, err := s.feature(feature)
	if err != nil {
		return err
	}
	if meter != authz.MeterRequests && !slices.Contains(f.Meters, meter) {
		return quota.Errorf(quota.ReasonUnitUnknown, "feature "+quoted(feature)+" has no meter "+quoted(meter))
	}
	return nil
}

// user names a plan version or rate card that uses a feature; with a meter, that meter of it.
func (s *snapshot) user(feature, meter string) (string, bool) {
	for i := range s.plans {
		if p := &s.plans[i]; planUses(p, feature, meter) {
			return fmt.Sprintf("plan %q version %d", p.ID, p.Version), true
		}
	}
	for i := range s.cards {
		for _, p := range s.cards[i].Prices {
			if p.Feature == feature && (meter == "" || p.Meter == meter) {
				return fmt.Sprintf("rate card %q version %d", s.cards[i].ID, s.cards[i].Version), true
			}
		}
	}
	return "", false
}

func planUses(p *authz.Plan, feature, meter string) bool {
	if meter == "" && slices.Contains(p.Fallback, feature) {
		return true
	}
	e, ok := p.Entitlement(feature)
	if !ok || meter == "" {
		return ok
	}
	if e.Limits.Uses(meter) || p.Limits.Uses(meter) {
		return true
	}
	return slices.ContainsFunc(e.Quotas, func(q authz.Quota) bool { return q.Meter == meter })
}

func inUse(feature, user string) error {
	return refuse(quota.ReasonResourceInUse, "feature "+quoted(feature)+" is used by "+user, "feature", feature, "used_by", user)
}

// CreateFeature see [quota.CatalogueStore].
func (s *Store) CreateFeature(ctx context.Context, m quota.Mutation, f authz.Feature) (authz.Feature, error) {
	return admin(ctx, s, m, func(a *adminTx) (authz.Feature, error) {
		meters, err := asJSON(f.Meters)
		if err != nil {
			return f, err
		}
		if f.Revision, err = a.change(quota.ChangeCatalogue, ""); err != nil {
			return f, err
		}
		f.CreateTime = a.now
		return f, a.insert("feature", f.ID, insertFeatureSQL,
			f.ID, int64(f.Kind), f.DisplayName, f.Description, meters, f.CreateTime, f.Revision)
	})
}

// UpdateFeature see [quota.CatalogueStore]. The kind stays; a meter that a plan or rate card
// names cannot be taken away.
func (s *Store) UpdateFeature(ctx context.Context, m quota.Mutation, f authz.Feature, etag int64) (authz.Feature, error) {
	return admin(ctx, s, m, func(a *adminTx) (authz.Feature, error) {
		snap, err := readSnapshot(ctx, a)
		if err != nil {
			return f, err
		}
		old, err := snap.feature(f.ID)
		if err != nil {
			return f, err
		}
		if err := snap.checkUpdate(old, &f, etag); err != nil {
			return f, err
		}
		meters, err := asJSON(f.Meters)
		if err != nil {
			return f, err
		}
		if f.Revision, err = a.change(quota.ChangeCatalogue, ""); err != nil {
			return f, err
		}
		f.CreateTime = old.CreateTime
		return f, a.exec(updateFeatureSQL, f.ID, f.DisplayName, f.Description, meters, f.Revision)
	})
}

func (s *snapshot) checkUpdate(old, f *authz.Feature, etag int64) error {
	if err := checkETag(etag, old.Revision); err != nil {
		return err
	}
	if f.Kind != old.Kind {
		return quota.Errorf(quota.ReasonRequestInvalid,
			fmt.Sprintf("feature %s is %s and stays so: make another feature", quoted(f.ID), old.Kind))
	}
	for _, meter := range old.Meters {
		if slices.Contains(f.Meters, meter) {
			continue
		}
		if user, used := s.user(f.ID, meter); used {
			return inUse(f.ID, user+", with the meter "+quoted(meter)+" that would go")
		}
	}
	return nil
}

// DeleteFeature see [quota.CatalogueStore].
func (s *Store) DeleteFeature(ctx context.Context, m quota.Mutation, id string, etag int64) error {
	_, err := admin(ctx, s, m, func(a *adminTx) (struct{}, error) {
		snap, err := readSnapshot(ctx, a)
		if err != nil {
			return struct{}{}, err
		}
		old, err := snap.feature(id)
		if err != nil {
			return struct{}{}, err
		}
		if err := checkETag(etag, old.Revision); err != nil {
			return struct{}{}, err
		}
		if user, used := snap.user(id, ""); used {
			return struct{}{}, inUse(id, user)
		}
		if _, err := a.change(quota.ChangeCatalogue, ""); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, a.exec(deleteFeatureSQL, id)
	})
	return err
}

// PublishPlan see [quota.CatalogueStore].
func (s *Store) PublishPlan(ctx context.Context, m quota.Mutation, p authz.Plan) (authz.Plan, error) {
	return admin(ctx, s, m, func(a *adminTx) (authz.Plan, error) {
		snap, err := readSnapshot(ctx, a)
		if err != nil {
			return p, err
		}
		if err := snap.checkPlan(&p); err != nil {
			return p, err
		}
		var latest int64
		if _, err := queryRow(ctx, a, latestPlanSQL, []any{p.ID}, &latest); err != nil {
			return p, err
		}
		if p.Revision, err = a.change(quota.ChangeCatalogue, ""); err != nil {
			return p, err
		}
		p.Version, p.CreateTime = latest+1, a.now
		return p, a.insertPlan(&p)
	})
}

// checkPlan checks what a plan names.
func (s *snapshot) checkPlan(p *authz.Plan) error {
	named := func(c quota.RateCard) bool { return c.ID == p.RateCard }
	if p.RateCard != "" && !slices.ContainsFunc(s.cards, named) {
		return refuse(quota.ReasonRateCardNotFound, "there is no rate card "+quoted(p.RateCard), "rate_card", p.RateCard)
	}
	for _, id := range p.Fallback {
		if _, err := s.feature(id); err != nil {
			return err
		}
	}
	for i := range p.Entitlements {
		e := &p.Entitlements[i]
		if _, err := s.feature(e.Feature); err != nil {
			return err
		}
		for _, q := range e.Quotas {
			if err := s.meter(e.Feature, q.Meter); err != nil {
				return err
			}
			if err := s.sameQuota(&q); err != nil {
				return err
			}
		}
		for _, r := range e.Limits.Rates {
			if err := s.meter(e.Feature, r.Meter); err != nil {
				return err
			}
		}
	}
	return s.checkRates(p)
}

// sameQuota: a quota keeps what it counts (meter, window) in all plans, as a budget does. Its
// windows' pots are named by the account and its id (R33), so that who changes plans keeps what
// was used, and would count on in something else.
func (s *snapshot) sameQuota(q *authz.Quota) error {
	for i := range s.plans {
		p := &s.plans[i]
		for _, e := range p.Entitlements {
			for _, old := range e.Quotas {
				if old.ID == q.ID && (old.Meter != q.Meter || old.Window != q.Window) {
					return quota.Errorf(quota.ReasonRequestInvalid, fmt.Sprintf("quota %s keeps its meter and window, %s by %s in plan %s@%d: give this one another id",
						quoted(q.ID), quoted(old.Meter), old.Window, p.ID, p.Version))
				}
			}
		}
	}
	return nil
}

// checkRates: what all features are counted in together, one of them at least has to have.
func (s *snapshot) checkRates(p *authz.Plan) error {
	for _, r := range p.Limits.Rates {
		has := func(e authz.Entitlement) bool { return s.meter(e.Feature, r.Meter) == nil }
		if r.Meter != authz.MeterRequests && !slices.ContainsFunc(p.Entitlements, has) {
			return quota.Errorf(quota.ReasonUnitUnknown, "no feature of the plan has the meter "+quoted(r.Meter)+" of rate "+quoted(r.ID))
		}
	}
	return nil
}

func (a *adminTx) insertPlan(p *authz.Plan) error {
	entitlements, err := asJSON(toEntitlements(p.Entitlements))
	if err != nil {
		return err
	}
	limits, err := asJSON(toLimits(&p.Limits))
	if err != nil {
		return err
	}
	fallback, err := asJSON(p.Fallback)
	if err != nil {
		return err
	}
	return a.insert("plan", p.ID, insertPlanSQL, p.ID, p.Version, p.DisplayName, p.RateCard,
		entitlements, limits, fallback, p.CreateTime, p.Revision)
}

// PublishRateCard see [quota.CatalogueStore].
func (s *Store) PublishRateCard(ctx context.Context, m quota.Mutation, r quota.RateCard) (quota.RateCard, error) {
	return admin(ctx, s, m, func(a *adminTx) (quota.RateCard, error) {
		snap, err := readSnapshot(ctx, a)
		if err != nil {
			return r, err
		}
		for _, p := range r.Prices {
			if err := snap.meter(p.Feature, p.Meter); err != nil {
				return r, err
			}
		}
		var version, price int64
		if _, err := queryRow(ctx, a, latestRateCardSQL, []any{r.ID}, &version); err != nil {
			return r, err
		}
		if _, err := queryRow(ctx, a, latestPriceSQL, nil, &price); err != nil {
			return r, err
		}
		if r.Revision, err = a.change(quota.ChangeCatalogue, ""); err != nil {
			return r, err
		}
		prices, err := asJSON(toPrices(r.Prices))
		if err != nil {
			return r, err
		}
		r.Version, r.PriceVersion, r.CreateTime = version+1, price+1, a.now
		return r, a.insert("rate card", r.ID, insertRateCardSQL,
			r.ID, r.Version, r.PriceVersion, r.EffectiveTime, prices, r.CreateTime, r.Revision)
	})
}

func scanFeature(r Rows) (f authz.Feature, err error) {
	var kind int64
	var meters string
	if err := r.Scan(&f.ID, &kind, &f.DisplayName, &f.Description, &meters, &f.CreateTime, &f.Revision); err != nil {
		return f, err
	}
	f.Kind = authz.FeatureKind(kind)
	return f, json.Unmarshal([]byte(meters), &f.Meters)
}

func scanPlan(r Rows) (p authz.Plan, err error) {
	var entitlements, limits, fallback string
	err = r.Scan(&p.ID, &p.Version, &p.DisplayName, &p.RateCard, &entitlements, &limits, &fallback, &p.CreateTime, &p.Revision)
	if err != nil {
		return p, err
	}
	var shared limitRows
	if err := json.Unmarshal([]byte(limits), &shared); err != nil {
		return p, err
	}
	p.Limits = fromLimits(shared)
	var rows []entitlementRow
	if err := json.Unmarshal([]byte(entitlements), &rows); err != nil {
		return p, err
	}
	p.Entitlements = fromEntitlements(rows)
	return p, json.Unmarshal([]byte(fallback), &p.Fallback)
}

func scanRateCard(r Rows) (c quota.RateCard, err error) {
	var prices string
	err = r.Scan(&c.ID, &c.Version, &c.PriceVersion, &c.EffectiveTime, &prices, &c.CreateTime, &c.Revision)
	if err != nil {
		return c, err
	}
	var rows []priceRow
	if err := json.Unmarshal([]byte(prices), &rows); err != nil {
		return c, err
	}
	c.Prices = fromPrices(rows)
	return c, nil
}

// The forms in JSON columns. They are stored: fields are added, never renamed.
type (
	entitlementRow struct {
		Feature string     `json:"feature"`
		Config  string     `json:"config,omitempty"`
		Quotas  []quotaRow `json:"quotas,omitempty"`
		limitRows
	}
	quotaRow struct {
		ID     string `json:"id"`
		Meter  string `json:"meter"`
		Limit  int64  `json:"limit"`
		Window uint8  `json:"window"`
	}
	priceRow struct {
		Feature     string `json:"feature"`
		Meter       string `json:"meter"`
		PriceMicros int64  `json:"price_micros"`
		Per         int64  `json:"per"`
	}
)

func toEntitlements(es []authz.Entitlement) []entitlementRow {
	rows := make([]entitlementRow, len(es))
	for i := range es {
		rows[i] = entitlementRow{Feature: es[i].Feature, Config: es[i].Config, limitRows: toLimits(&es[i].Limits)}
		for _, q := range es[i].Quotas {
			rows[i].Quotas = append(rows[i].Quotas, quotaRow{ID: q.ID, Meter: q.Meter, Limit: q.Limit, Window: uint8(q.Window)})
		}
	}
	return rows
}

func fromEntitlements(rows []entitlementRow) []authz.Entitlement {
	var es []authz.Entitlement
	for _, r := range rows {
		e := authz.Entitlement{Feature: r.Feature, Config: r.Config, Limits: fromLimits(r.limitRows)}
		for _, q := range r.Quotas {
			e.Quotas = append(e.Quotas, authz.Quota{ID: q.ID, Meter: q.Meter, Limit: q.Limit, Window: window.Kind(q.Window)})
		}
		es = append(es, e)
	}
	return es
}

func toPrices(ps []quota.Price) []priceRow {
	rows := make([]priceRow, len(ps))
	for i, p := range ps {
		rows[i] = priceRow{Feature: p.Feature, Meter: p.Meter, PriceMicros: p.Rate.PriceMicros, Per: p.Rate.Per}
	}
	return rows
}

func fromPrices(rows []priceRow) []quota.Price {
	var ps []quota.Price
	for _, r := range rows {
		ps = append(ps, quota.Price{Feature: r.Feature, Meter: r.Meter, Rate: pricing.Rate{PriceMicros: r.PriceMicros, Per: r.Per}})
	}
	return ps
}
