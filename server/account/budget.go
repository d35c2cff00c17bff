package account

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/server/admin"
)

// PutBudget see the contract.
func (s *Service) PutBudget(ctx context.Context, req *purserv1.PutBudgetRequest) (*purserv1.PutBudgetResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	etag, err := admin.ParseETag(req.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := s.checkUnit(ctx, req.GetUnit()); err != nil {
		return nil, err
	}
	b, err := s.Store.PutBudget(ctx, m, fromAPIPutBudget(req), etag)
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.PutBudgetResponse{Budget: ToAPIBudget(&b)}, nil
}

// checkUnit refuses a meter that nothing is measured in: a budget on it would never count.
func (s *Service) checkUnit(ctx context.Context, unit string) error {
	if unit == quota.UnitCredits {
		return nil
	}
	c, err := s.Meters.Catalogue(ctx)
	if err != nil || c.MeterKnown(unit) {
		return err
	}
	return &quota.Error{Reason: quota.ReasonUnitUnknown, NotApplied: true, Meta: map[string]string{"meter": unit},
		Message: fmt.Sprintf("meter %q is not one that any feature is measured in", unit)}
}

// ListBudgets see the contract. An account has few budgets; they come with its profile.
func (s *Service) ListBudgets(ctx context.Context, req *purserv1.ListBudgetsRequest) (*purserv1.ListBudgetsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	p, err := s.Store.Profile(ctx, req.GetAccount())
	if err != nil {
		return nil, err
	}
	rows := slices.Clone(p.Budgets[0])
	slices.SortFunc(rows, func(a, b quota.Budget) int { return cmp.Compare(a.ID, b.ID) })
	rows, next := admin.After(rows, page, func(b *quota.Budget) string { return b.ID })
	out := &purserv1.ListBudgetsResponse{NextPageToken: next}
	for i := range rows {
		out.Budgets = append(out.Budgets, ToAPIBudget(&rows[i]))
	}
	return out, nil
}

// DeleteBudget see the contract.
func (s *Service) DeleteBudget(ctx context.Context, req *purserv1.DeleteBudgetRequest) (*purserv1.DeleteBudgetResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	etag, err := admin.ParseETag(req.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteBudget(ctx, m, req.GetAccount(), req.GetId(), etag); err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.DeleteBudgetResponse{}, nil
}

func fromAPIPutBudget(req *purserv1.PutBudgetRequest) quota.Budget {
	return quota.Budget{
		Account:     req.GetAccount(),
		ID:          req.GetId(),
		Unit:        req.GetUnit(),
		Cap:         req.GetCap(),
		Window:      window.Kind(req.GetWindow()),
		LabelKey:    req.GetSelector().GetLabelKey(),
		LabelValue:  req.GetSelector().GetLabelValue(),
		Soft:        req.GetEnforcement() == purserv1.Enforcement_ENFORCEMENT_SOFT,
		WarnPercent: int(req.GetWarnPercent()),
	}
}

// ToAPIBudget converts a budget.
func ToAPIBudget(b *quota.Budget) *purserv1.Budget {
	out := &purserv1.Budget{
		Account:     b.Account,
		Id:          b.ID,
		Unit:        b.Unit,
		Cap:         b.Cap,
		Window:      purserv1.Window(b.Window),
		Enforcement: purserv1.Enforcement_ENFORCEMENT_HARD,
		WarnPercent: int32(b.WarnPercent),
		Etag:        admin.ETag(b.Revision),
		CreateTime:  admin.Time(b.CreateTime),
	}
	if b.Soft {
		out.Enforcement = purserv1.Enforcement_ENFORCEMENT_SOFT
	}
	if b.LabelKey != "" {
		out.Selector = &purserv1.Selector{LabelKey: b.LabelKey, LabelValue: b.LabelValue}
	}
	return out
}
