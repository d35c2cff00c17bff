package storagetest

import (
	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
)

func requestTests() []Test {
	return []Test{
		{"RepeatedIsAnsweredTheSame", requestRepeated},
		{"OtherContentIsRefused", requestReused},
		{"PerPrincipal", requestPrincipals},
		{"RefusedIsNotKept", requestRefused},
		{"ValidateOnlyWritesNothing", requestValidate},
		{"ValidateOnlyFindsFaults", requestValidateFaults},
	}
}

// write is one kind of admin write, as it would be done for a given request.
type write struct {
	name string
	do   func(e *Env, m quota.Mutation) (any, error)
}

// writes lists every kind, in an order in which each finds what it needs.
func writes() []write {
	now := int64(1e18)
	return []write{
		{"CreateFeature", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.CreateFeature(e.ctx, m, authz.Feature{ID: "chat", Kind: authz.FeatureMetered, Meters: []string{"output_tokens"}})
		}},
		{"UpdateFeature", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.UpdateFeature(e.ctx, m, authz.Feature{ID: "chat", Kind: authz.FeatureMetered, DisplayName: "x", Meters: []string{"output_tokens"}}, 0)
		}},
		{"PublishRateCard", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.PublishRateCard(e.ctx, m, quota.RateCard{ID: "standard", EffectiveTime: now,
				Prices: []quota.Price{{Feature: "chat", Meter: "output_tokens", Rate: pricing.Rate{PriceMicros: 3, Per: 1000}}}})
		}},
		{"PublishPlan", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.PublishPlan(e.ctx, m, authz.Plan{ID: "basic", RateCard: "standard", Entitlements: []authz.Entitlement{{Feature: "chat"}}})
		}},
		{"CreateAccount", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.CreateAccount(e.ctx, m, quota.Account{ID: "acme", TimeZone: "UTC"})
		}},
		{"UpdateAccount", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.UpdateAccount(e.ctx, m, quota.Account{ID: "acme", DisplayName: "A", TimeZone: "UTC"}, 0)
		}},
		{"Subscribe", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.Subscribe(e.ctx, m, "acme", authz.PlanRef{ID: "basic"})
		}},
		{"SetStatus", func(e *Env, m quota.Mutation) (any, error) {
			a, revision, err := e.Store.SetStatus(e.ctx, m, "acme", quota.AccountSuspended, "why")
			return []any{a, revision}, err
		}},
		{"CreateGrant", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.CreateGrant(e.ctx, m, "acme", e.newGrantAt("one", 500, now))
		}},
		{"VoidGrant", func(e *Env, m quota.Mutation) (any, error) { return e.Store.VoidGrant(e.ctx, m, "acme", "one") }},
		{"PutBudget", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.PutBudget(e.ctx, m, quota.Budget{Account: "acme", ID: "daily", Cap: 5, Window: window.Day}, 0)
		}},
		{"DeleteBudget", func(e *Env, m quota.Mutation) (any, error) {
			return nil, e.Store.DeleteBudget(e.ctx, m, "acme", "daily", 0)
		}},
		{"CreateKey", func(e *Env, m quota.Mutation) (any, error) {
			return e.Store.CreateKey(e.ctx, m, authz.Key{ID: "k", Role: authz.RoleGate, Principal: "p", ExpireTime: authz.Never})
		}},
		{"RevokeKey", func(e *Env, m quota.Mutation) (any, error) { return e.Store.RevokeKey(e.ctx, m, "k") }},
	}
}

func (e *Env) newGrantAt(id string, amount, start int64) quota.Pot {
	g := e.newGrant(id, amount)
	g.Start = start
	return g
}

func (e *Env) request(id string, digest byte) quota.Mutation {
	m := e.mutation()
	m.RequestID, m.Digest = id, [32]byte{digest}
	return m
}

// requestRepeated: an answer that was lost is asked for again, and nothing is done twice.
func requestRepeated(e *Env) {
	for i, w := range writes() {
		m := e.request("r-"+w.name, byte(i))
		first, err := w.do(e, m)
		if err != nil {
			e.Fatalf("%s: %v", w.name, err)
		}
		revision := e.catalogue().Revision
		for range 2 {
			m.Now += 1e9
			again, err := w.do(e, m)
			if err != nil {
				e.Fatalf("%s again: %v", w.name, err)
			}
			e.same(w.name+" again", again, first)
		}
		e.same(w.name+": revision after the repetition", e.catalogue().Revision, revision)
		e.check(revision == int64(i)+1, "%s: revision %d after %d writes", w.name, revision, i+1)
	}
	m := e.request("r-DeleteFeature", 99)
	e.feature("unused")
	for range 2 {
		e.must(e.Store.DeleteFeature(e.ctx, m, "unused", 0))
	}
}

func requestReused(e *Env) {
	for _, w := range writes() {
		if _, err := w.do(e, e.request("r-"+w.name, 1)); err != nil {
			e.Fatalf("%s: %v", w.name, err)
		}
		_, err := w.do(e, e.request("r-"+w.name, 2))
		if err == nil {
			e.Fatalf("%s: the same request with other content was done", w.name)
		}
		e.refused(err, quota.ReasonIdempotencyKeyReused)
	}
}

func requestPrincipals(e *Env) {
	m := e.request("r", 1)
	_, err := e.Store.CreateAccount(e.ctx, m, quota.Account{ID: "acme", TimeZone: "UTC"})
	e.must(err)
	m.Principal, m.Digest = "another", [32]byte{2}
	_, err = e.Store.CreateAccount(e.ctx, m, quota.Account{ID: "beta", TimeZone: "UTC"})
	e.must(err)
}

func requestRefused(e *Env) {
	m := e.request("r", 1)
	grant := e.newGrant("one", 5)
	_, err := e.Store.CreateGrant(e.ctx, m, "acme", grant)
	e.refused(err, quota.ReasonAccountNotFound)
	e.account("acme", "")
	_, err = e.Store.CreateGrant(e.ctx, m, "acme", grant)
	e.must(err)
	e.figures("acme", "one", 5, 0, 0, 0, 0, 0)
}

// requestValidate: each write is tried before it is done; the trial leaves nothing, not even
// its request id.
func requestValidate(e *Env) {
	for i, w := range writes() {
		before := e.catalogue().Revision
		m := e.request("r-"+w.name, byte(i))
		m.ValidateOnly = true
		if _, err := w.do(e, m); err != nil {
			e.Fatalf("%s: validate: %v", w.name, err)
		}
		e.same(w.name+": revision after a trial", e.catalogue().Revision, before)
		m.ValidateOnly = false
		if _, err := w.do(e, m); err != nil {
			e.Fatalf("%s: after a trial: %v", w.name, err)
		}
		e.check(e.catalogue().Revision > before, "%s: nothing was done after a trial", w.name)
	}
	e.figures("acme", "one", 0, 0, 0, 0, 500, 0)
}

func requestValidateFaults(e *Env) {
	m := e.mutation()
	m.ValidateOnly = true
	_, err := e.Store.CreateGrant(e.ctx, m, "none", e.newGrant("one", 5))
	e.refused(err, quota.ReasonAccountNotFound)
	e.account("acme", "")
	_, err = e.Store.CreateAccount(e.ctx, m, quota.Account{ID: "acme", TimeZone: "UTC"})
	e.refused(err, quota.ReasonResourceExists)
}
