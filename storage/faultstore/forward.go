package faultstore

import (
	"context"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

var _ quota.Store = (*Store)(nil)

// Close closes the wrapped store; it meets no faults.
func (store *Store) Close() error { return store.inner.Close() }

// FindKey: see authz.KeyStore.
func (store *Store) FindKey(ctx context.Context, id string) (authz.Key, error) {
	return do(ctx, store, "FindKey", func(ctx context.Context) (authz.Key, error) { return store.inner.FindKey(ctx, id) })
}

// Draw: see quota.DrawStore.
func (store *Store) Draw(ctx context.Context, draws []quota.Draw) ([]quota.DrawResult, error) {
	return do(ctx, store, "Draw", func(ctx context.Context) ([]quota.DrawResult, error) { return store.inner.Draw(ctx, draws) })
}

// Return: see quota.DrawStore.
func (store *Store) Return(ctx context.Context, lane quota.LaneID, shrinks []quota.Shrink) error {
	return run(ctx, store, "Return", func(ctx context.Context) error { return store.inner.Return(ctx, lane, shrinks) })
}

// Append: see quota.JournalStore.
func (store *Store) Append(ctx context.Context, lane quota.LaneID, no int64, records []quota.Record) (quota.AppendResult, error) {
	return do(ctx, store, "Append", func(ctx context.Context) (quota.AppendResult, error) {
		return store.inner.Append(ctx, lane, no, records)
	})
}

// Settle: see quota.JournalStore.
func (store *Store) Settle(ctx context.Context, guest quota.LaneID, no int64, records []quota.Record) ([]quota.Settlement, bool, error) {
	return two(ctx, store, "Settle", func(ctx context.Context) ([]quota.Settlement, bool, error) {
		return store.inner.Settle(ctx, guest, no, records)
	})
}

// Interim: see quota.JournalStore.
func (store *Store) Interim(ctx context.Context, lane quota.LaneID, interims []quota.Interim) ([]quota.Entry, error) {
	return do(ctx, store, "Interim", func(ctx context.Context) ([]quota.Entry, error) {
		return store.inner.Interim(ctx, lane, interims)
	})
}

// Whereabouts: see quota.JournalStore.
func (store *Store) Whereabouts(ctx context.Context, lane quota.LaneID, sequence uint64) (quota.Whereabouts, bool, error) {
	return two(ctx, store, "Whereabouts", func(ctx context.Context) (quota.Whereabouts, bool, error) {
		return store.inner.Whereabouts(ctx, lane, sequence)
	})
}

// Register: see quota.LeaseStore.
func (store *Store) Register(ctx context.Context, r quota.Registration) (quota.LeaseGrant, error) {
	return do(ctx, store, "Register", func(ctx context.Context) (quota.LeaseGrant, error) { return store.inner.Register(ctx, r) })
}

// Renew: see quota.LeaseStore.
func (store *Store) Renew(ctx context.Context, r quota.Renewal) (quota.LeaseGrant, error) {
	return do(ctx, store, "Renew", func(ctx context.Context) (quota.LeaseGrant, error) { return store.inner.Renew(ctx, r) })
}

// Poll: see quota.LeaseStore.
func (store *Store) Poll(ctx context.Context, p quota.PollRequest) (quota.PollResult, error) {
	return do(ctx, store, "Poll", func(ctx context.Context) (quota.PollResult, error) { return store.inner.Poll(ctx, p) })
}

// Drain: see quota.LeaseStore.
func (store *Store) Drain(ctx context.Context, incarnation string, holdUntil int64) error {
	return run(ctx, store, "Drain", func(ctx context.Context) error { return store.inner.Drain(ctx, incarnation, holdUntil) })
}

// Unacked: see quota.LeaseStore.
func (store *Store) Unacked(ctx context.Context, revision int64) (int, error) {
	return do(ctx, store, "Unacked", func(ctx context.Context) (int, error) { return store.inner.Unacked(ctx, revision) })
}

// MarkDead: see quota.ReaperStore.
func (store *Store) MarkDead(ctx context.Context, self string, skew time.Duration) (int, error) {
	return do(ctx, store, "MarkDead", func(ctx context.Context) (int, error) { return store.inner.MarkDead(ctx, self, skew) })
}

// BuryPredecessors: see quota.ReaperStore.
func (store *Store) BuryPredecessors(ctx context.Context, self string, hold time.Duration) error {
	return run(ctx, store, "BuryPredecessors", func(ctx context.Context) error { return store.inner.BuryPredecessors(ctx, self, hold) })
}

// Closable: see quota.ReaperStore.
func (store *Store) Closable(ctx context.Context, skew time.Duration, limit int) ([]quota.LaneID, error) {
	return do(ctx, store, "Closable", func(ctx context.Context) ([]quota.LaneID, error) { return store.inner.Closable(ctx, skew, limit) })
}

// Fence: see quota.ReaperStore.
func (store *Store) Fence(ctx context.Context, lane quota.LaneID) error {
	return run(ctx, store, "Fence", func(ctx context.Context) error { return store.inner.Fence(ctx, lane) })
}

// CloseLane: see quota.ReaperStore.
func (store *Store) CloseLane(ctx context.Context, lane quota.LaneID, now int64, limit int) (bool, error) {
	return do(ctx, store, "CloseLane", func(ctx context.Context) (bool, error) { return store.inner.CloseLane(ctx, lane, now, limit) })
}

// ExpireGrants: see quota.ReaperStore.
func (store *Store) ExpireGrants(ctx context.Context, now int64, limit int) (int, error) {
	return do(ctx, store, "ExpireGrants", func(ctx context.Context) (int, error) { return store.inner.ExpireGrants(ctx, now, limit) })
}

// NextClose: see quota.ReaperStore.
func (store *Store) NextClose(ctx context.Context, payer string) (int64, error) {
	return do(ctx, store, "NextClose", func(ctx context.Context) (int64, error) { return store.inner.NextClose(ctx, payer) })
}

// Projectable: see quota.ProjectionStore.
func (store *Store) Projectable(ctx context.Context, self string) ([]quota.Cursor, error) {
	return do(ctx, store, "Projectable", func(ctx context.Context) ([]quota.Cursor, error) { return store.inner.Projectable(ctx, self) })
}

// Batches: see quota.ProjectionStore.
func (store *Store) Batches(ctx context.Context, c quota.Cursor, limit int) ([]quota.Batch, error) {
	return do(ctx, store, "Batches", func(ctx context.Context) ([]quota.Batch, error) { return store.inner.Batches(ctx, c, limit) })
}

// PotsOf: see quota.ProjectionStore.
func (store *Store) PotsOf(ctx context.Context, refs []quota.AllotmentRef) (map[quota.AllotmentRef]quota.PotRef, error) {
	return do(ctx, store, "PotsOf", func(ctx context.Context) (map[quota.AllotmentRef]quota.PotRef, error) {
		return store.inner.PotsOf(ctx, refs)
	})
}

// Project: see quota.ProjectionStore.
func (store *Store) Project(ctx context.Context, p *quota.Projection) (bool, error) {
	return do(ctx, store, "Project", func(ctx context.Context) (bool, error) { return store.inner.Project(ctx, p) })
}

// Finished: see quota.ProjectionStore.
func (store *Store) Finished(ctx context.Context, c quota.Cursor) error {
	return run(ctx, store, "Finished", func(ctx context.Context) error { return store.inner.Finished(ctx, c) })
}

// Catalogue: see quota.CatalogueStore.
func (store *Store) Catalogue(ctx context.Context) (*quota.Catalogue, error) {
	return do(ctx, store, "Catalogue", func(ctx context.Context) (*quota.Catalogue, error) { return store.inner.Catalogue(ctx) })
}

// CreateFeature: see quota.CatalogueStore.
func (store *Store) CreateFeature(ctx context.Context, m quota.Mutation, f authz.Feature) (authz.Feature, error) {
	return do(ctx, store, "CreateFeature", func(ctx context.Context) (authz.Feature, error) { return store.inner.CreateFeature(ctx, m, f) })
}

// UpdateFeature: see quota.CatalogueStore.
func (store *Store) UpdateFeature(ctx context.Context, m quota.Mutation, f authz.Feature, etag int64) (authz.Feature, error) {
	return do(ctx, store, "UpdateFeature", func(ctx context.Context) (authz.Feature, error) { return store.inner.UpdateFeature(ctx, m, f, etag) })
}

// DeleteFeature: see quota.CatalogueStore.
func (store *Store) DeleteFeature(ctx context.Context, m quota.Mutation, id string, etag int64) error {
	return run(ctx, store, "DeleteFeature", func(ctx context.Context) error { return store.inner.DeleteFeature(ctx, m, id, etag) })
}

// PublishPlan: see quota.CatalogueStore.
func (store *Store) PublishPlan(ctx context.Context, m quota.Mutation, p authz.Plan) (authz.Plan, error) {
	return do(ctx, store, "PublishPlan", func(ctx context.Context) (authz.Plan, error) { return store.inner.PublishPlan(ctx, m, p) })
}

// PublishRateCard: see quota.CatalogueStore.
func (store *Store) PublishRateCard(ctx context.Context, m quota.Mutation, r quota.RateCard) (quota.RateCard, error) {
	return do(ctx, store, "PublishRateCard", func(ctx context.Context) (quota.RateCard, error) { return store.inner.PublishRateCard(ctx, m, r) })
}

// Profile: see quota.AccountStore.
func (store *Store) Profile(ctx context.Context, account string) (*quota.Profile, error) {
	return do(ctx, store, "Profile", func(ctx context.Context) (*quota.Profile, error) { return store.inner.Profile(ctx, account) })
}

// Profiles: see quota.AccountStore.
func (store *Store) Profiles(ctx context.Context, accounts []string) ([]quota.ProfileResult, error) {
	return do(ctx, store, "Profiles", func(ctx context.Context) ([]quota.ProfileResult, error) { return store.inner.Profiles(ctx, accounts) })
}

// ListAccounts: see quota.AccountStore.
func (store *Store) ListAccounts(ctx context.Context, p quota.Page) ([]quota.Account, error) {
	return do(ctx, store, "ListAccounts", func(ctx context.Context) ([]quota.Account, error) { return store.inner.ListAccounts(ctx, p) })
}

// CreateAccount: see quota.AccountStore.
func (store *Store) CreateAccount(ctx context.Context, m quota.Mutation, a quota.Account) (quota.Account, error) {
	return do(ctx, store, "CreateAccount", func(ctx context.Context) (quota.Account, error) { return store.inner.CreateAccount(ctx, m, a) })
}

// UpdateAccount: see quota.AccountStore.
func (store *Store) UpdateAccount(ctx context.Context, m quota.Mutation, a quota.Account, etag int64) (quota.Account, error) {
	return do(ctx, store, "UpdateAccount", func(ctx context.Context) (quota.Account, error) { return store.inner.UpdateAccount(ctx, m, a, etag) })
}

// Subscribe: see quota.AccountStore.
func (store *Store) Subscribe(ctx context.Context, m quota.Mutation, account string, plan authz.PlanRef) (quota.Account, error) {
	return do(ctx, store, "Subscribe", func(ctx context.Context) (quota.Account, error) { return store.inner.Subscribe(ctx, m, account, plan) })
}

// SetStatus: see quota.AccountStore.
func (store *Store) SetStatus(ctx context.Context, m quota.Mutation, account string, s quota.AccountStatus, reason string) (quota.Account, int64, error) {
	return two(ctx, store, "SetStatus", func(ctx context.Context) (quota.Account, int64, error) {
		return store.inner.SetStatus(ctx, m, account, s, reason)
	})
}

// CreateGrant: see quota.AccountStore.
func (store *Store) CreateGrant(ctx context.Context, m quota.Mutation, account string, g quota.Pot) (quota.Pot, error) {
	return do(ctx, store, "CreateGrant", func(ctx context.Context) (quota.Pot, error) { return store.inner.CreateGrant(ctx, m, account, g) })
}

// VoidGrant: see quota.AccountStore.
func (store *Store) VoidGrant(ctx context.Context, m quota.Mutation, account, grant string) (quota.Pot, error) {
	return do(ctx, store, "VoidGrant", func(ctx context.Context) (quota.Pot, error) { return store.inner.VoidGrant(ctx, m, account, grant) })
}

// ListGrants: see quota.AccountStore.
func (store *Store) ListGrants(ctx context.Context, account string, p quota.Page) ([]quota.Pot, error) {
	return do(ctx, store, "ListGrants", func(ctx context.Context) ([]quota.Pot, error) { return store.inner.ListGrants(ctx, account, p) })
}

// PutBudget: see quota.AccountStore.
func (store *Store) PutBudget(ctx context.Context, m quota.Mutation, b quota.Budget, etag int64) (quota.Budget, error) {
	return do(ctx, store, "PutBudget", func(ctx context.Context) (quota.Budget, error) { return store.inner.PutBudget(ctx, m, b, etag) })
}

// DeleteBudget: see quota.AccountStore.
func (store *Store) DeleteBudget(ctx context.Context, m quota.Mutation, account, id string, etag int64) error {
	return run(ctx, store, "DeleteBudget", func(ctx context.Context) error { return store.inner.DeleteBudget(ctx, m, account, id, etag) })
}

// Pots: see quota.AccountStore.
func (store *Store) Pots(ctx context.Context, payer string, now int64) ([]quota.Pot, int64, error) {
	return two(ctx, store, "Pots", func(ctx context.Context) ([]quota.Pot, int64, error) { return store.inner.Pots(ctx, payer, now) })
}

// CreateKey: see quota.KeyAdminStore.
func (store *Store) CreateKey(ctx context.Context, m quota.Mutation, k authz.Key) (authz.Key, error) {
	return do(ctx, store, "CreateKey", func(ctx context.Context) (authz.Key, error) { return store.inner.CreateKey(ctx, m, k) })
}

// RevokeKey: see quota.KeyAdminStore.
func (store *Store) RevokeKey(ctx context.Context, m quota.Mutation, id string) (authz.Key, error) {
	return do(ctx, store, "RevokeKey", func(ctx context.Context) (authz.Key, error) { return store.inner.RevokeKey(ctx, m, id) })
}

// ListKeys: see quota.KeyAdminStore.
func (store *Store) ListKeys(ctx context.Context, p quota.Page) ([]authz.Key, error) {
	return do(ctx, store, "ListKeys", func(ctx context.Context) ([]authz.Key, error) { return store.inner.ListKeys(ctx, p) })
}

// HasAdminKey: see quota.KeyAdminStore.
func (store *Store) HasAdminKey(ctx context.Context, now int64) (bool, error) {
	return do(ctx, store, "HasAdminKey", func(ctx context.Context) (bool, error) { return store.inner.HasAdminKey(ctx, now) })
}

// MACKeys: see quota.KeyAdminStore.
func (store *Store) MACKeys(ctx context.Context, secret [32]byte, now int64) ([]quota.MACKey, error) {
	return do(ctx, store, "MACKeys", func(ctx context.Context) ([]quota.MACKey, error) { return store.inner.MACKeys(ctx, secret, now) })
}

// UsageEvents: see quota.UsageStore.
func (store *Store) UsageEvents(ctx context.Context, q quota.UsageQuery, p quota.Page) ([]quota.UsageEvent, string, error) {
	return two(ctx, store, "UsageEvents", func(ctx context.Context) ([]quota.UsageEvent, string, error) {
		return store.inner.UsageEvents(ctx, q, p)
	})
}

// Rollups: see quota.UsageStore.
func (store *Store) Rollups(ctx context.Context, q quota.UsageQuery, p quota.Page) ([]quota.Rollup, string, error) {
	return two(ctx, store, "Rollups", func(ctx context.Context) ([]quota.Rollup, string, error) { return store.inner.Rollups(ctx, q, p) })
}

// Audit: see quota.AuditStore.
func (store *Store) Audit(ctx context.Context, fn func(quota.AuditReader) error) error {
	return run(ctx, store, "Audit", func(ctx context.Context) error { return store.inner.Audit(ctx, fn) })
}
