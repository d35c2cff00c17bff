package authority

import (
	"context"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
)

// CheckAndReserve see the contract. A denial is an answer, with a nil error.
func (s *Service) CheckAndReserve(ctx context.Context, req *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	p, account, err := whose(ctx, req.GetAccount())
	if err != nil {
		return nil, err
	}
	r, err := fromAPICheckAndReserve(account, req)
	if err != nil {
		return nil, err
	}
	var d quota.Decision
	if err := s.Authority.Reserve(ctx, p, r, &d); err != nil {
		return nil, err
	}
	if !d.Allowed {
		s.logDenial(ctx, p.Name, r, &d)
	}
	return toAPICheckAndReserve(r, &d), nil
}

// logDenial gives a sample of denials a line, without amounts: the log is read by more
// people than the books.
func (s *Service) logDenial(ctx context.Context, principal string, r *quota.Request, d *quota.Decision) {
	seen, ok := s.Denials.Take()
	if !ok {
		return
	}
	s.Logger.InfoContext(ctx, "denied", "principal", principal, "account", r.Account, "feature", r.Candidates[0],
		"reason", d.Denial.Reason.String(), "transient", d.Denial.Transient, "limit", d.Denial.Level.Limit, "denied_so_far", seen)
}

// Check see the contract: a quote that holds nothing (R39).
func (s *Service) Check(ctx context.Context, req *purserv1.CheckRequest) (*purserv1.CheckResponse, error) {
	p, account, err := whose(ctx, req.GetAccount())
	if err != nil {
		return nil, err
	}
	r, err := fromAPICheck(account, req)
	if err != nil {
		return nil, err
	}
	var d quota.Decision
	if err := s.Authority.Check(ctx, p, r, &d); err != nil {
		return nil, err
	}
	return toAPICheck(r, &d), nil
}
