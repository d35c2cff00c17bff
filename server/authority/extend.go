package authority

import (
	"context"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/caller"
)

// Extend see the contract. A denial is an answer, with a nil error, and changes nothing.
func (s *Service) Extend(ctx context.Context, req *purserv1.ExtendRequest) (*purserv1.ExtendResponse, error) {
	p, ok := caller.From(ctx)
	if !ok {
		return nil, errNobody
	}
	x, err := fromAPIExtend(req)
	if err != nil {
		return nil, err
	}
	var d quota.Decision
	if err := s.Authority.Extend(ctx, p, x, &d); err != nil {
		return nil, err
	}
	// Whose reservation of what it is stands in the token: the decision says it.
	r := &quota.Request{Account: d.Denial.Level.Account, Candidates: []string{d.Feature}}
	if !d.Allowed {
		s.logDenial(ctx, p.Name, r, &d)
	}
	return toAPIExtend(r, &d), nil
}
