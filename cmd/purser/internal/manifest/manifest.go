// Package manifest reads the YAML files of `purser apply`: what a catalogue and its accounts
// should look like.
//
// It checks form and bounds, and names file, line and column of everything it refuses.
// Whether a name stands for something that exists is for the server to say.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/purser-io/purser/quota/amount"
)

// Manifest is a whole file. It is also what `purser get -o yaml` writes, so every field has the
// name that it has in a file.
type Manifest struct {
	Name      string     `json:"-"` // of the file, for messages
	Features  []Feature  `json:"features,omitempty"`
	RateCards []RateCard `json:"rate_cards,omitempty"`
	Plans     []Plan     `json:"plans,omitempty"`
	Accounts  []Account  `json:"accounts,omitempty"`
	Grants    []Grant    `json:"grants,omitempty"`  // with those of the accounts
	Budgets   []Budget   `json:"budgets,omitempty"` // with those of the accounts
	Keys      []Key      `json:"keys,omitempty"`
}

// Pos is where something stands in the file, counted from 1.
type Pos struct{ Line, Column int }

// Status is what a server says of a resource beside what a file can ask for. It is written and,
// when a file is read, passed over.
type Status = any

// Credits are micros of a credit, written as a decimal number of credits. In JSON it is a
// string, so that no reader makes a float of it.
type Credits int64

// MarshalText implements encoding.TextMarshaler.
func (c Credits) MarshalText() ([]byte, error) { return []byte(amount.FormatCredits(int64(c))), nil }

// Feature is something a plan may allow.
type Feature struct {
	Pos         `json:"-"`
	ID          string   `json:"id"`
	Kind        string   `json:"kind"`
	DisplayName string   `json:"display_name,omitempty"`
	Description string   `json:"description,omitempty"`
	Meters      []string `json:"meters,omitempty"`
	Status      Status   `json:"status,omitempty"`
}

// RateCard is the next version of a rate card, unless the last one says the same.
type RateCard struct {
	Pos           `json:"-"`
	ID            string    `json:"id"`
	EffectiveTime time.Time `json:"effective_time,omitzero"` // zero = at once
	Prices        []Price   `json:"prices"`
	Status        Status    `json:"status,omitempty"`
}

// Price is what a feature's meter costs: Micros for each Per units.
type Price struct {
	Feature string  `json:"feature"`
	Meter   string  `json:"meter"`
	Micros  Credits `json:"credits"`
	Per     int64   `json:"per"`
}

// Plan is the next version of a plan, unless the last one says the same.
type Plan struct {
	Pos          `json:"-"`
	ID           string        `json:"id"`
	DisplayName  string        `json:"display_name,omitempty"`
	RateCard     string        `json:"rate_card,omitempty"`
	Fallback     []string      `json:"fallback,omitempty"`
	Entitlements []Entitlement `json:"entitlements"`
	Limits                     // of all features together
	Status       Status        `json:"status,omitempty"`
}

// Entitlement is what a plan says about one feature.
type Entitlement struct {
	Feature string  `json:"feature"`
	Config  string  `json:"config,omitempty"`
	Quotas  []Quota `json:"quotas,omitempty"`
	Limits          // of this feature alone
}

// Quota is a plan's cap over a window on one meter of a feature.
type Quota struct {
	ID     string `json:"id"`
	Meter  string `json:"meter"`
	Limit  int64  `json:"limit"`
	Window string `json:"window"`
}

// Account is who pays, or a member of one who pays.
type Account struct {
	Pos         `json:"-"`
	ID          string `json:"id"`
	Parent      string `json:"parent,omitempty"`
	DisplayName string `json:"display_name,omitempty"`
	TimeZone    string `json:"time_zone,omitempty"`
	Plan        string `json:"plan,omitempty"`
	PlanVersion int64  `json:"plan_version,omitempty"` // 0 = the latest when it is subscribed to
	Status      Status `json:"status,omitempty"`

	grants  []Grant // for Manifest.Grants
	budgets []Budget
}

// Grant is a block of credits. It is created once; a grant never changes.
type Grant struct {
	Pos           `json:"-"`
	ID            string    `json:"id"`
	Account       string    `json:"account"`
	Micros        Credits   `json:"credits"`
	Kind          string    `json:"kind"`
	Priority      int64     `json:"priority"`
	EffectiveTime time.Time `json:"effective_time,omitzero"` // zero = at once
	ExpireTime    time.Time `json:"expire_time,omitzero"`    // zero = never
	CostBasis     string    `json:"cost_basis,omitempty"`
	Note          string    `json:"note,omitempty"`
	Voided        bool      `json:"voided,omitempty"` // a record of one that was taken back: it is not created
	Status        Status    `json:"status,omitempty"`
}

// Budget is a cap over a window on credits (Unit "") or on a meter.
type Budget struct {
	Pos                           `json:"-"`
	Account                       string
	ID, Unit, Window, Enforcement string
	Cap                           int64
	LabelKey, LabelValue          string
	WarnPercent                   int64
	Status                        Status
}

// Key is an API key: created unless its principal has a live one of the same role, account
// and labels.
type Key struct {
	Pos        `json:"-"`
	Principal  string            `json:"principal"`
	Role       string            `json:"role"`
	Account    string            `json:"account,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	ExpireTime time.Time         `json:"expire_time,omitzero"` // zero = never
	Revoked    bool              `json:"revoked,omitempty"`    // a record of one that was revoked: it is not created
	Status     Status            `json:"status,omitempty"`
}

// MarshalJSON writes the cap as `credits`, or as `unit` and `cap`, and the selector as one label.
func (b Budget) MarshalJSON() ([]byte, error) {
	out := struct {
		ID          string  `json:"id"`
		Account     string  `json:"account"`
		Credits     Credits `json:"credits,omitempty"`
		Unit        string  `json:"unit,omitempty"`
		Cap         int64   `json:"cap,omitempty"`
		Window      string  `json:"window"`
		Label       string  `json:"label,omitempty"`
		Enforcement string  `json:"enforcement"`
		WarnPercent int64   `json:"warn_percent,omitempty"`
		Status      Status  `json:"status,omitempty"`
	}{ID: b.ID, Account: b.Account, Window: b.Window, Label: b.Label(), Enforcement: b.Enforcement, WarnPercent: b.WarnPercent, Status: b.Status}
	if b.Unit == "" {
		out.Credits = Credits(b.Cap)
	} else {
		out.Unit, out.Cap = b.Unit, b.Cap
	}
	return json.Marshal(out)
}

// Label is the selector as a file has it: `user`, or `team=search`; empty if there is none.
func (b Budget) Label() string {
	if b.LabelValue == "" {
		return b.LabelKey
	}
	return b.LabelKey + "=" + b.LabelValue
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
	m.gather()
	return m, errors.Join(r.errs...)
}

// gather puts grants and budgets that stand inside accounts beside those that name one.
func (m *Manifest) gather() {
	for i := range m.Accounts {
		a := &m.Accounts[i]
		for _, g := range a.grants {
			g.Account = a.ID
			m.Grants = append(m.Grants, g)
		}
		for _, b := range a.budgets {
			b.Account = a.ID
			m.Budgets = append(m.Budgets, b)
		}
		a.grants, a.budgets = nil, nil
	}
}

func (r *reader) manifest(m *Manifest) visit {
	return r.mapping(fields{
		"features":   {visit: list(r, &m.Features, r.feature)},
		"rate_cards": {visit: list(r, &m.RateCards, r.rateCard)},
		"plans":      {visit: list(r, &m.Plans, r.plan)},
		"accounts":   {visit: list(r, &m.Accounts, r.account)},
		"grants":     {visit: list(r, &m.Grants, func(g *Grant) visit { return r.grant(g, true) })},
		"budgets":    {visit: list(r, &m.Budgets, func(b *Budget) visit { return r.budget(b, true) })},
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
		"status":       {visit: passOver},
	})
}

func (r *reader) rateCard(c *RateCard) visit {
	return r.at(&c.Pos, fields{
		"id":             {visit: r.id(&c.ID), required: true},
		"effective_time": {visit: r.time(&c.EffectiveTime)},
		"prices":         {visit: list(r, &c.Prices, r.price), required: true},
		"status":         {visit: passOver},
	})
}

func (r *reader) price(p *Price) visit {
	p.Per = 1
	return r.mapping(fields{
		"feature": {visit: r.id(&p.Feature), required: true},
		"meter":   {visit: r.id(&p.Meter), required: true},
		"credits": {visit: r.credits((*int64)(&p.Micros), 0), required: true},
		"per":     {visit: r.integer(&p.Per, 1, maxAmount)},
	})
}

func (r *reader) plan(p *Plan) visit {
	return r.at(&p.Pos, fields{
		"id":           {visit: r.id(&p.ID), required: true},
		"display_name": {visit: r.text(&p.DisplayName)},
		"rate_card":    {visit: r.id(&p.RateCard)},
		"fallback":     {visit: list(r, &p.Fallback, r.id)},
		"rates":        {visit: list(r, &p.Rates, r.rate)},
		"concurrency":  {visit: list(r, &p.Concurrency, r.concurrency)},
		"entitlements": {visit: list(r, &p.Entitlements, r.entitlement), required: true},
		"status":       {visit: passOver},
	})
}

func (r *reader) entitlement(e *Entitlement) visit {
	return r.mapping(fields{
		"feature":     {visit: r.id(&e.Feature), required: true},
		"config":      {visit: r.text(&e.Config)},
		"quotas":      {visit: list(r, &e.Quotas, r.quota)},
		"rates":       {visit: list(r, &e.Rates, r.rate)},
		"concurrency": {visit: list(r, &e.Concurrency, r.concurrency)},
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
		"grants":       {visit: list(r, &a.grants, func(g *Grant) visit { return r.grant(g, false) })},
		"budgets":      {visit: list(r, &a.budgets, func(b *Budget) visit { return r.budget(b, false) })},
		"status":       {visit: passOver},
	})
}

// grant reads one that stands inside its account, or alone, and then names it.
func (r *reader) grant(g *Grant, alone bool) visit {
	g.Kind, g.Priority = "PURCHASED", 100
	return r.at(&g.Pos, r.in(&g.Account, alone, fields{
		"id":             {visit: r.accountID(&g.ID), required: true},
		"credits":        {visit: r.credits((*int64)(&g.Micros), 1), required: true},
		"kind":           {visit: r.oneOf(&g.Kind, "PROMOTIONAL", "PLAN", "ROLLOVER", "PURCHASED", "REFUND", "ADJUSTMENT")},
		"priority":       {visit: r.integer(&g.Priority, 0, 1000)},
		"cost_basis":     {visit: r.text(&g.CostBasis)},
		"note":           {visit: r.text(&g.Note)},
		"effective_time": {visit: r.time(&g.EffectiveTime)},
		"expire_time":    {visit: r.time(&g.ExpireTime)},
		"voided":         {visit: r.boolean(&g.Voided)},
		"status":         {visit: passOver},
	}))
}

func (r *reader) budget(b *Budget, alone bool) visit {
	b.Enforcement = "HARD"
	read := r.at(&b.Pos, r.in(&b.Account, alone, fields{
		"id":           {visit: r.id(&b.ID), required: true},
		"credits":      {visit: r.credits(&b.Cap, 1)},
		"unit":         {visit: r.id(&b.Unit)},
		"cap":          {visit: r.integer(&b.Cap, 1, maxAmount)},
		"window":       {visit: r.window(&b.Window), required: true},
		"label":        {visit: r.selector(&b.LabelKey, &b.LabelValue)},
		"enforcement":  {visit: r.oneOf(&b.Enforcement, "HARD", "SOFT")},
		"warn_percent": {visit: r.integer(&b.WarnPercent, 1, 100)},
		"status":       {visit: passOver},
	}))
	return func(n *yaml.Node) {
		read(n)
		r.budgetCap(n)
	}
}

// in adds the account to the keys of what stands alone.
func (r *reader) in(account *string, alone bool, f fields) fields {
	if alone {
		f["account"] = field{visit: r.accountID(account), required: true}
	}
	return f
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
		"revoked":     {visit: r.boolean(&k.Revoked)},
		"status":      {visit: passOver},
	})
}
