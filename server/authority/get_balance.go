package authority

import (
	"context"
	"slices"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/account"
	"github.com/purser-io/purser/server/admin"
)

// GetBalance see the contract (R40). It reads the store: for people and dashboards, not for
// every request.
func (s *Service) GetBalance(ctx context.Context, req *purserv1.GetBalanceRequest) (*purserv1.GetBalanceResponse, error) {
	_, id, err := whose(ctx, req.GetAccount())
	if err != nil {
		return nil, err
	}
	balance, err := s.Authority.Balance(ctx, id)
	if err != nil {
		return nil, err
	}
	profile, err := s.Profiles.Profile(ctx, id)
	if err != nil {
		return nil, err
	}
	return toAPIBalance(&balance, profile), nil
}

func toAPIBalance(b *quota.Balance, p *quota.Profile) *purserv1.GetBalanceResponse {
	out := &purserv1.GetBalanceResponse{
		TotalMicros:     b.Total,
		AvailableMicros: b.Available,
		ElsewhereMicros: b.Elsewhere,
		HeldMicros:      b.Held,
		DebtMicros:      b.Debt,
		AsOf:            admin.Time(b.AsOf),
		Payer:           b.Payer,
	}
	grants := slices.Clone(b.Grants)
	slices.SortFunc(grants, func(p, q quota.Pot) int {
		if p.Before(&q) {
			return -1
		}
		return 1
	})
	for i := range grants {
		g := &grants[i]
		// What is settled stays in an allotment until that closes; the projector knows it earlier
		// (R21), and never counts more than the row does.
		out.Grants = append(out.Grants, &purserv1.GrantBalance{
			Grant: account.ToAPIGrant(g), AvailableMicros: g.Available,
			EscrowedMicros: max(g.Escrowed+g.Spent+g.Direct-g.Projected, 0), SpentMicros: g.Projected,
		})
	}
	for i := range b.Windows {
		if w := toAPIBudgetBalance(&b.Windows[i], p); w != nil {
			out.Budgets = append(out.Budgets, w)
		}
	}
	return out
}

// toAPIBudgetBalance is nil for what is no budget of the account or those above it: quotas,
// budgets of its siblings, and budgets that were deleted.
func toAPIBudgetBalance(w *quota.Pot, p *quota.Profile) *purserv1.BudgetBalance {
	b := budgetOf(w, p)
	if b == nil {
		return nil
	}
	out := &purserv1.BudgetBalance{Budget: account.ToAPIBudget(b), StartTime: admin.Time(w.Start), EndTime: admin.Time(w.End), Taken: w.Projected}
	if b.LabelKey != "" {
		out.LabelValue = w.Selector
	}
	return out
}

func budgetOf(w *quota.Pot, p *quota.Profile) *quota.Budget {
	if w.Kind != quota.PotBudget {
		return nil
	}
	for i := range p.Chain {
		if p.Chain[i].ID != w.Account {
			continue
		}
		for j := range p.Budgets[i] {
			if p.Budgets[i][j].ID == w.Limit {
				return &p.Budgets[i][j]
			}
		}
	}
	return nil
}
