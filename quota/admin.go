package quota

import (
	"context"

	"github.com/purser-io/purser/authz"
)

// Mutation goes with every admin write. The store keeps (Principal, RequestID) with Digest
// and the outcome in the same transaction: the same request again gets the same answer, with
// other content IDEMPOTENCY_KEY_REUSED.
type Mutation struct {
	Principal    string
	RequestID    string // "" = not repeatable
	Digest       [32]byte
	ValidateOnly bool // do everything, then roll back
	Now          int64
}

// Page bounds a listing: at most Size rows behind the key After ("" = from the start).
type Page struct {
	After string
	Size  int
}

// CatalogueStore keeps features, plans and rate cards. Every write bumps the revision and
// leaves a change row in its transaction (R32). An etag is the Revision the caller saw; 0
// means not checked. Reasons: RESOURCE_EXISTS, ETAG_MISMATCH, *_NOT_FOUND, RESOURCE_IN_USE.
type CatalogueStore interface {
	Catalogue(ctx context.Context) (*Catalogue, error)
	CreateFeature(ctx context.Context, m Mutation, f authz.Feature) (authz.Feature, error)
	UpdateFeature(ctx context.Context, m Mutation, f authz.Feature, etag int64) (authz.Feature, error)
	// DeleteFeature refuses while a plan version or rate card names it.
	DeleteFeature(ctx context.Context, m Mutation, id string, etag int64) error
	// PublishPlan adds the next version; features, meters and the rate card it names must exist, and
	// a quota whose id another plan or version has must count the same: REQUEST_INVALID (R33).
	PublishPlan(ctx context.Context, m Mutation, p authz.Plan) (authz.Plan, error)
	// PublishRateCard adds the next version; features and meters it names must exist.
	PublishRateCard(ctx context.Context, m Mutation, r RateCard) (RateCard, error)
}

// AccountStore keeps accounts with their subscriptions, budgets and grants. Changes a draw
// has to notice bump the account's epoch (R12); budget changes do, grants do not.
type AccountStore interface {
	// Profile reads an account with its chain and budgets in one round trip and one
	// consistent state; ACCOUNT_NOT_FOUND.
	Profile(ctx context.Context, account string) (*Profile, error)
	// Profiles is Profile for many accounts, in their order, in one round trip and one consistent state.
	Profiles(ctx context.Context, accounts []string) ([]ProfileResult, error)
	ListAccounts(ctx context.Context, p Page) ([]Account, error)
	// CreateAccount fills in Payer from the parent, which must exist; REQUEST_INVALID if the
	// chain would be deeper than MaxAccountDepth. A parent never changes, so no cycle can be.
	CreateAccount(ctx context.Context, m Mutation, a Account) (Account, error)
	// UpdateAccount sets display name and time zone.
	UpdateAccount(ctx context.Context, m Mutation, a Account, etag int64) (Account, error)
	// Subscribe pins the account to a plan version; Version 0 = the latest. An empty ID ends
	// the subscription.
	Subscribe(ctx context.Context, m Mutation, account string, plan authz.PlanRef) (Account, error)
	// SetStatus suspends or resumes; the returned revision is what nodes must acknowledge.
	SetStatus(ctx context.Context, m Mutation, account string, s AccountStatus, reason string) (Account, int64, error)

	// CreateGrant adds a grant to the account's payer's wallet, paying debt first (R50). The
	// pot's ID is GrantPotID of the grant's id; RESOURCE_EXISTS if it is taken.
	CreateGrant(ctx context.Context, m Mutation, account string, g Pot) (Pot, error)
	// VoidGrant stops draws from a grant and moves what is available to refunded; what is out
	// in allotments follows when it comes home (race 27). It bumps the payer's epoch.
	VoidGrant(ctx context.Context, m Mutation, account, grant string) (Pot, error)
	ListGrants(ctx context.Context, account string, p Page) ([]Pot, error)

	PutBudget(ctx context.Context, m Mutation, b Budget, etag int64) (Budget, error)
	DeleteBudget(ctx context.Context, m Mutation, account, id string, etag int64) error

	// Pots reads all open pots of a payer, and its debt, in one consistent state.
	Pots(ctx context.Context, payer string, now int64) (pots []Pot, debt int64, err error)
}

// KeyAdminStore keeps API keys and the keys that tokens are signed with.
type KeyAdminStore interface {
	authz.KeyStore
	CreateKey(ctx context.Context, m Mutation, k authz.Key) (authz.Key, error)
	RevokeKey(ctx context.Context, m Mutation, id string) (authz.Key, error)
	ListKeys(ctx context.Context, p Page) ([]authz.Key, error)
	// HasAdminKey reports whether any live key has the admin role.
	HasAdminKey(ctx context.Context, now int64) (bool, error)
	// MACKeys reads the token keys, making the first one, from secret, if there is none.
	MACKeys(ctx context.Context, secret [32]byte, now int64) ([]MACKey, error)
}

// MACKey signs or verifies tokens. The live key with the highest id whose SignFrom has
// passed signs; the others verify (race 40).
type MACKey struct {
	ID         uint32
	Secret     [32]byte
	SignFrom   int64
	CreateTime int64
}

// UsageQuery selects usage. Zero times and empty names select all.
type UsageQuery struct {
	Account  string
	Feature  string
	From, To int64 // [From, To) by settling time (events) or hour (rollups)
}

// UsageStore reads what the projector wrote.
type UsageStore interface {
	UsageEvents(ctx context.Context, q UsageQuery, p Page) (events []UsageEvent, next string, err error)
	Rollups(ctx context.Context, q UsageQuery, p Page) (rollups []Rollup, next string, err error)
}

// Store is everything a server needs of storage.
type Store interface {
	DrawStore
	JournalStore
	LeaseStore
	ReaperStore
	ProjectionStore
	CatalogueStore
	AccountStore
	KeyAdminStore
	UsageStore
	AuditStore
	Close() error
}
