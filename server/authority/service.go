// Package authority serves purser.v1.AuthorityService: it converts, checks bounds by hand,
// and calls the authority. It decides nothing.
package authority

import (
	"context"
	"log/slog"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	engine "github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server/caller"
	"github.com/purser-io/purser/server/interceptor"
	"github.com/purser-io/purser/server/session"
)

// Authority is the engine as this service needs it; see package quota/authority.
type Authority interface {
	Reserve(ctx context.Context, p *authz.Principal, r *quota.Request, d *quota.Decision) error
	Extend(ctx context.Context, p *authz.Principal, x *quota.Extension, d *quota.Decision) error
	Check(ctx context.Context, p *authz.Principal, r *quota.Request, d *quota.Decision) error
	Commit(ctx context.Context, p *authz.Principal, s *quota.Settle) (quota.Receipt, error)
	Interim(ctx context.Context, p *authz.Principal, s *quota.Settle) error
	Release(ctx context.Context, p *authz.Principal, s *quota.Settle) (quota.Receipt, error)
	Balance(ctx context.Context, account string) (quota.Balance, error)

	// The same in steps that do not block, for sessions.
	Attempt(p *authz.Principal, r *quota.Request, t *engine.Attempt, d *quota.Decision) (engine.Progress, error)
	BeginCommit(p *authz.Principal, s *quota.Settle, told engine.Settled) (engine.Progress, error)
	BeginRelease(p *authz.Principal, s *quota.Settle, told engine.Settled) (engine.Progress, error)
	PrefetchAccount(ctx context.Context, account string) error
	PrefetchToken(ctx context.Context, p *authz.Principal, token []byte) error
}

// Profiles reads accounts with their budgets; a balance names them.
type Profiles interface {
	Profile(ctx context.Context, account string) (*quota.Profile, error)
}

// Service implements purserv1.AuthorityServiceServer.
type Service struct {
	purserv1.UnimplementedAuthorityServiceServer
	Authority Authority
	Profiles  Profiles
	Logger    *slog.Logger
	Denials   *interceptor.Sampler // which denials get a line in the log
	Sessions  *session.Server      // whose Operations are this service's
}

// errNobody says that a call came past authentication: a fault of the wiring.
var errNobody = quota.Errorf(quota.ReasonInternal, "")

// whose finds out who calls and for which account: a key bound to one may leave it out, and
// may name no other (R38). The account is checked.
func whose(ctx context.Context, account string) (*authz.Principal, string, error) {
	p, ok := caller.From(ctx)
	if !ok {
		return nil, "", errNobody
	}
	account, err := accountOf(p, account)
	return p, account, err
}

// accountOf is the account that p names, or the one its key is bound to.
func accountOf(p *authz.Principal, account string) (string, error) {
	if account == "" {
		account = p.Account
	}
	if err := checkAccount("account", account); err != nil {
		return "", err
	}
	if !p.MayUseAccount(account) {
		return "", &quota.Error{Reason: quota.ReasonCallerNotAllowed, NotApplied: true,
			Message: "the key is bound to account " + p.Account + " and may name no other",
			Meta:    map[string]string{"account": account, "bound_account": p.Account}}
	}
	return account, nil
}
