package catalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
)

// PublishPlanVersion see the contract.
func (s *Service) PublishPlanVersion(ctx context.Context, req *purserv1.PublishPlanVersionRequest) (*purserv1.PublishPlanVersionResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	plan, err := fromAPIPublishPlanVersion(req)
	if err != nil {
		return nil, err
	}
	if plan, err = s.Store.PublishPlan(ctx, m, plan); err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.PublishPlanVersionResponse{PlanVersion: toAPIPlanVersion(&plan)}, nil
}

// GetPlan see the contract. Versions are numbered from 1 without gaps.
func (s *Service) GetPlan(ctx context.Context, req *purserv1.GetPlanRequest) (*purserv1.GetPlanResponse, error) {
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	var latest *authz.Plan
	for v := int64(1); ; v++ {
		p, ok := c.Plan(authz.PlanRef{ID: req.GetPlan(), Version: v})
		if !ok {
			break
		}
		latest = p
	}
	if latest == nil {
		return nil, notFound(quota.ReasonPlanNotFound, "plan", req.GetPlan(), 0)
	}
	return &purserv1.GetPlanResponse{PlanVersion: toAPIPlanVersion(latest)}, nil
}

// GetPlanVersion see the contract.
func (s *Service) GetPlanVersion(ctx context.Context, req *purserv1.GetPlanVersionRequest) (*purserv1.GetPlanVersionResponse, error) {
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	p, ok := c.Plan(authz.PlanRef{ID: req.GetPlan(), Version: req.GetVersion()})
	if !ok {
		return nil, notFound(quota.ReasonPlanNotFound, "plan", req.GetPlan(), req.GetVersion())
	}
	return &purserv1.GetPlanVersionResponse{PlanVersion: toAPIPlanVersion(p)}, nil
}

// ListPlans see the contract.
func (s *Service) ListPlans(ctx context.Context, req *purserv1.ListPlansRequest) (*purserv1.ListPlansResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	rows, next := admin.After(latestPlans(c.Plans()), page, func(p **authz.Plan) string { return (*p).ID })
	out := &purserv1.ListPlansResponse{NextPageToken: next}
	for _, p := range rows {
		out.PlanVersions = append(out.PlanVersions, toAPIPlanVersion(p))
	}
	return out, nil
}

// latestPlans keeps the last version of each plan, by id.
func latestPlans(all []*authz.Plan) []*authz.Plan {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b *authz.Plan) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(b.Version, a.Version))
	})
	return slices.CompactFunc(all, func(a, b *authz.Plan) bool { return a.ID == b.ID })
}
