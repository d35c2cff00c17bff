// Package manifest reads the YAML files of `purser apply`: what a catalogue and its accounts
// should look like.
//
// It checks form and bounds, and names file, line and column of everything it refuses.
// Whether a name stands for something that exists is for the server to say.
package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v4"
)

// Manifest is a whole file.
type Manifest struct {
	Name      string // of the file, for messages
	Features  []Feature
	RateCards []RateCard
	Plans     []Plan
	Accounts  []Account
	Keys      []Key
}

// Pos is where something stands in the file, counted from 1.
type Pos struct{ Line, Column int }

// Feature is something a plan may allow.
type Feature struct {
	Pos
	ID, Kind, DisplayName, Description string
	Meters                             []string
}

// RateCard is the next version of a rate card, unless the last one says the same.
type RateCard struct {
	Pos
	ID            string
	EffectiveTime time.Time // zero = at once
	Prices        []Price
}

// Price is what a feature's meter costs: Micros for each Per units.
type Price struct {
	Feature, Meter string
	Micros, Per    int64
}

// Plan is the next version of a plan, unless the last one says the same.
type Plan struct {
	Pos
	ID, DisplayName, RateCard string
	Fallback                  []string
	Entitlements              []Entitlement
}

// Entitlement is what a plan says about one feature.
type Entitlement struct {
	Feature, Config string
	Quotas          []Quota
}

// Quota is a plan's cap over a window on one meter of a feature.
type Quota struct {
	ID, Meter, Window string
	Limit             int64
}

// Account is who pays, or a member of one who pays.
type Account struct {
	Pos
	ID, Parent, DisplayName, TimeZone string
	Plan                              string
	PlanVersion                       int64 // 0 = the latest when it is subscribed to
	Grants                            []Grant
	Budgets                           []Budget
}

// Grant is a block of credits. It is created once; a grant never changes.
type Grant struct {
	Pos
	ID, Kind, CostBasis, Note string
	Micros, Priority          int64
	EffectiveTime, ExpireTime time.Time // zero = at once, never
}

// Budget is a cap over a window on credits (Unit "") or on a meter.
type Budget struct {
	Pos
	ID, Unit, Window, Enforcement string
	Cap                           int64
	LabelKey, LabelValue          string
	WarnPercent                   int64
}

// Key is an API key: created unless its principal has a live one of the same role, account
// and labels.
type Key struct {
	Pos
	Principal, Role, Account string
	Labels                   map[string]string
	ExpireTime               time.Time // zero = never
}

// Parse reads a manifest. The error lists every problem found, one to a line, each as
// name:line:column: what is wrong.
func Parse(name string, data []byte) (*Manifest, error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	if err := d.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: the file is empty", name)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: one document to a file, please: there is a second one behind ---", name)
	}
	m := &Manifest{Name: name}
	r := &reader{name: name}
	r.manifest(m)(root.Content[0])
	return m, errors.Join(r.errs...)
}

func (r *reader) manifest(m *Manifest) visit {
	return r.mapping(fields{
		"features":   {visit: list(r, &m.Features, r.feature)},
		"rate_cards": {visit: list(r, &m.RateCards, r.rateCard)},
		"plans":      {visit: list(r, &m.Plans, r.plan)},
		"accounts":   {visit: list(r, &m.Accounts, r.account)},
		"keys":       {visit: list(r, &m.Keys, r.key)},
	})
}

func (r *reader) feature(f *Feature) visit {
	f.Kind = "METERED"
	return r.at(&f.Pos, fields{
		"id":           {visit: r.id(&f.ID), required: true},
		"kind":         {visit: r.oneOf(&f.Kind, "BOOLEAN", "METERED", "CONFIG")},
		"display_name": {visit: r.text(&f.DisplayName)},
		"description":  {visit: r.text(&f.Description)},
		"meters":       {visit: list(r, &f.Meters, r.id)},
	})
}

func (r *reader) rateCard(c *RateCard) visit {
	return r.at(&c.Pos, fields{
		"id":             {visit: r.id(&c.ID), required: true},
		"effective_time": {visit: r.time(&c.EffectiveTime)},
		"prices":         {visit: list(r, &c.Prices, r.price), required: true},
	})
}

func (r *reader) price(p *Price) visit {
	p.Per = 1
	return r.mapping(fields{
		"feature": {visit: r.id(&p.Feature), required: true},
		"meter":   {visit: r.id(&p.Meter), required: true},
		"credits": {visit: r.credits(&p.Micros, 0), required: true},
		"per":     {visit: r.integer(&p.Per, 1, maxAmount)},
	})
}

func (r *reader) plan(p *Plan) visit {
	return r.at(&p.Pos, fields{
		"id":           {visit: r.id(&p.ID), required: true},
		"display_name": {visit: r.text(&p.DisplayName)},
		"rate_card":    {visit: r.id(&p.RateCard)},
		"fallback":     {visit: list(r, &p.Fallback, r.id)},
		"entitlements": {visit: list(r, &p.Entitlements, r.entitlement), required: true},
	})
}

func (r *reader) entitlement(e *Entitlement) visit {
	return r.mapping(fields{
		"feature": {visit: r.id(&e.Feature), required: true},
		"config":  {visit: r.text(&e.Config)},
		"quotas":  {visit: list(r, &e.Quotas, r.quota)},
	})
}

func (r *reader) quota(q *Quota) visit {
	return r.mapping(fields{
		"id":     {visit: r.id(&q.ID), required: true},
		"meter":  {visit: r.id(&q.Meter), required: true},
		"limit":  {visit: r.integer(&q.Limit, 1, maxAmount), required: true},
		"window": {visit: r.window(&q.Window), required: true},
	})
}

func (r *reader) account(a *Account) visit {
	return r.at(&a.Pos, fields{
		"id":           {visit: r.accountID(&a.ID), required: true},
		"parent":       {visit: r.accountID(&a.Parent)},
		"display_name": {visit: r.text(&a.DisplayName)},
		"time_zone":    {visit: r.timeZone(&a.TimeZone)},
		"plan":         {visit: r.id(&a.Plan)},
		"plan_version": {visit: r.integer(&a.PlanVersion, 1, maxAmount)},
		"grants":       {visit: list(r, &a.Grants, r.grant)},
		"budgets":      {visit: list(r, &a.Budgets, r.budget)},
	})
}

func (r *reader) grant(g *Grant) visit {
	g.Kind, g.Priority = "PURCHASED", 100
	return r.at(&g.Pos, fields{
		"id":             {visit: r.accountID(&g.ID), required: true},
		"credits":        {visit: r.credits(&g.Micros, 1), required: true},
		"kind":           {visit: r.oneOf(&g.Kind, "PROMOTIONAL", "PLAN", "ROLLOVER", "PURCHASED", "REFUND", "ADJUSTMENT")},
		"priority":       {visit: r.integer(&g.Priority, 0, 1000)},
		"cost_basis":     {visit: r.text(&g.CostBasis)},
		"note":           {visit: r.text(&g.Note)},
		"effective_time": {visit: r.time(&g.EffectiveTime)},
		"expire_time":    {visit: r.time(&g.ExpireTime)},
	})
}

func (r *reader) budget(b *Budget) visit {
	b.Enforcement = "HARD"
	read := r.at(&b.Pos, fields{
		"id":           {visit: r.id(&b.ID), required: true},
		"credits":      {visit: r.credits(&b.Cap, 1)},
		"unit":         {visit: r.id(&b.Unit)},
		"cap":          {visit: r.integer(&b.Cap, 1, maxAmount)},
		"window":       {visit: r.window(&b.Window), required: true},
		"label":        {visit: r.selector(&b.LabelKey, &b.LabelValue)},
		"enforcement":  {visit: r.oneOf(&b.Enforcement, "HARD", "SOFT")},
		"warn_percent": {visit: r.integer(&b.WarnPercent, 1, 100)},
	})
	return func(n *yaml.Node) {
		read(n)
		r.budgetCap(n)
	}
}

// budgetCap: a cap is either `credits`, or `unit` (a meter) with `cap`.
func (r *reader) budgetCap(n *yaml.Node) {
	credits, unit, limit := has(n, "credits"), has(n, "unit"), has(n, "cap")
	if n.Kind == yaml.MappingNode && (credits == limit || limit != unit) {
		r.errorf(n, "a budget needs either credits, or unit (a meter) and cap")
	}
}

func (r *reader) key(k *Key) visit {
	return r.at(&k.Pos, fields{
		"principal":   {visit: r.accountID(&k.Principal), required: true},
		"role":        {visit: r.oneOf(&k.Role, "GATE", "VIEWER", "ADMIN"), required: true},
		"account":     {visit: r.accountID(&k.Account)},
		"labels":      {visit: r.labels(&k.Labels)},
		"expire_time": {visit: r.time(&k.ExpireTime)},
	})
}
