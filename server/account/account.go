package account

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/grpcerr"
)

// CreateAccount see the contract.
func (s *Service) CreateAccount(ctx context.Context, req *purserv1.CreateAccountRequest) (*purserv1.CreateAccountResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	zone, err := fromAPIZone(req.GetTimeZone())
	if err != nil {
		return nil, err
	}
	a, err := s.Store.CreateAccount(ctx, m, quota.Account{
		ID: req.GetId(), Parent: req.GetParent(), DisplayName: req.GetDisplayName(), TimeZone: zone,
	})
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.CreateAccountResponse{Account: toAPIAccount(&a)}, nil
}

// GetAccount see the contract.
func (s *Service) GetAccount(ctx context.Context, req *purserv1.GetAccountRequest) (*purserv1.GetAccountResponse, error) {
	p, err := s.Store.Profile(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &purserv1.GetAccountResponse{Account: toAPIAccount(p.Account())}, nil
}

// ListAccounts see the contract.
func (s *Service) ListAccounts(ctx context.Context, req *purserv1.ListAccountsRequest) (*purserv1.ListAccountsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.ListAccounts(ctx, admin.OneMore(page))
	if err != nil {
		return nil, err
	}
	rows, next := admin.Cut(rows, page.Size, func(a *quota.Account) string { return a.ID })
	out := &purserv1.ListAccountsResponse{NextPageToken: next}
	for i := range rows {
		out.Accounts = append(out.Accounts, toAPIAccount(&rows[i]))
	}
	return out, nil
}

// updateTries bounds how often an update without an etag reads the account anew because
// somebody else changed it in between.
const updateTries = 5

// UpdateAccount see the contract. The store sets all fields at once; those not in the mask
// are sent back as read, under the etag read, so that no change of another is lost.
func (s *Service) UpdateAccount(ctx context.Context, req *purserv1.UpdateAccountRequest) (*purserv1.UpdateAccountResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	etag, err := admin.ParseETag(req.GetEtag())
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		a, err := s.update(ctx, m, req, etag)
		if errors.Is(err, quota.ReasonETagMismatch) && etag == 0 && try < updateTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Desk.Written(ctx, m)
		return &purserv1.UpdateAccountResponse{Account: toAPIAccount(&a)}, nil
	}
}

func (s *Service) update(ctx context.Context, m quota.Mutation, req *purserv1.UpdateAccountRequest, etag int64) (quota.Account, error) {
	p, err := s.Store.Profile(ctx, req.GetId())
	if err != nil {
		return quota.Account{}, err
	}
	a := *p.Account()
	if etag == 0 {
		etag = a.Revision
	}
	mask := req.GetUpdateMask().GetPaths()
	if slices.Contains(mask, "display_name") {
		a.DisplayName = req.GetDisplayName()
	}
	if slices.Contains(mask, "time_zone") {
		if a.TimeZone, err = fromAPIZone(req.GetTimeZone()); err != nil {
			return a, err
		}
	}
	return s.Store.UpdateAccount(ctx, m, a, etag)
}

// SetSubscription see the contract.
func (s *Service) SetSubscription(ctx context.Context, req *purserv1.SetSubscriptionRequest) (*purserv1.SetSubscriptionResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	if req.GetPlan() == "" && req.GetVersion() != 0 {
		return nil, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "version",
			Description: "it names a version of no plan; leave it out to end the subscription"})
	}
	a, err := s.Store.Subscribe(ctx, m, req.GetAccount(), authz.PlanRef{ID: req.GetPlan(), Version: req.GetVersion()})
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.SetSubscriptionResponse{Account: toAPIAccount(&a)}, nil
}

// SuspendAccount see the contract. With sync it answers when no node can issue any more (I13);
// if the deadline comes first, the suspension stands all the same: repeat the call.
func (s *Service) SuspendAccount(ctx context.Context, req *purserv1.SuspendAccountRequest) (*purserv1.SuspendAccountResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	a, revision, err := s.Store.SetStatus(ctx, m, req.GetAccount(), quota.AccountSuspended, req.GetReason())
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	if req.GetSync() && !m.ValidateOnly {
		if err := s.Waiter.AwaitRevision(ctx, revision); err != nil {
			return nil, err
		}
	}
	return &purserv1.SuspendAccountResponse{Account: toAPIAccount(&a)}, nil
}

// ResumeAccount see the contract.
func (s *Service) ResumeAccount(ctx context.Context, req *purserv1.ResumeAccountRequest) (*purserv1.ResumeAccountResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	a, _, err := s.Store.SetStatus(ctx, m, req.GetAccount(), quota.AccountActive, "")
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.ResumeAccountResponse{Account: toAPIAccount(&a)}, nil
}

// fromAPIZone checks a time zone against this machine's zone data; empty is UTC. "Local" would
// be another zone on another node.
func fromAPIZone(name string) (string, error) {
	if name == "" {
		return "UTC", nil
	}
	if _, err := time.LoadLocation(name); err != nil || name == "Local" {
		return "", grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "time_zone",
			Description: "\"" + name + "\" is no IANA time zone, such as \"Europe/Berlin\""})
	}
	return name, nil
}
