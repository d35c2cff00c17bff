package apply

import (
	"context"
	"fmt"
	"slices"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// perAccount keeps what was read of accounts, so that each is asked for once.
type perAccount[T any] map[string][]T

// of reads the resources of an account; one that is yet to be created has none.
func (c perAccount[T]) of(ctx context.Context, p *Plan, account string, list func(context.Context, string) ([]T, error)) ([]T, error) {
	if have, ok := c[account]; ok || p.created[account] {
		return have, nil
	}
	have, err := list(ctx, account)
	if err == nil {
		c[account] = have
	}
	return have, err
}

func (s *Server) grants(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	read := perAccount[*purserv1.Grant]{}
	for _, g := range m.Grants {
		have, err := read.of(ctx, p, g.Account, s.ListGrants)
		if err == nil {
			err = s.grant(g, have, p)
		}
		if err != nil {
			return p.at(g.Pos, fmt.Errorf("grant %s of account %s: %w", g.ID, g.Account, err))
		}
	}
	return nil
}

func (s *Server) grant(g manifest.Grant, list []*purserv1.Grant, p *Plan) error {
	i := slices.IndexFunc(list, func(h *purserv1.Grant) bool { return h.GetId() == g.ID })
	if i < 0 {
		if g.Voided { // there is nothing to take back
			p.Unchanged++
			return nil
		}
		after := g
		after.Pos, after.Status = manifest.Pos{}, nil
		p.add(g.Pos, call(Action{Verb: Create, Kind: "grant", ID: g.Account + "/" + g.ID,
			Detail: amount.FormatCredits(int64(g.Micros)) + " credits", After: after}, s.Accounts.CreateGrant, grantRequest(g)))
		return nil
	}
	have := resource.FromGrant(list[i])
	if have.Micros != g.Micros || have.Kind != g.Kind || have.Priority != g.Priority {
		return fmt.Errorf("%s exists with %s credits, %s, priority %d, and a grant never changes: choose another id",
			g.ID, amount.FormatCredits(int64(have.Micros)), have.Kind, have.Priority)
	}
	if g.Voided && !have.Voided {
		return fmt.Errorf("it is voided in the file and not on the server: purser delete grant %s/%s voids it", g.Account, g.ID)
	}
	p.Unchanged++
	return nil
}

func grantRequest(g manifest.Grant) *purserv1.CreateGrantRequest {
	return &purserv1.CreateGrantRequest{Account: g.Account, Grant: g.ID, AmountMicros: int64(g.Micros),
		Kind:     purserv1.GrantKind(purserv1.GrantKind_value["GRANT_KIND_"+g.Kind]),
		Priority: int32(g.Priority), EffectiveTime: timestamp(g.EffectiveTime), ExpireTime: timestamp(g.ExpireTime),
		CostBasis: g.CostBasis, Note: g.Note}
}

func (s *Server) budgets(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	read := perAccount[*purserv1.Budget]{}
	for _, b := range m.Budgets {
		have, err := read.of(ctx, p, b.Account, s.ListBudgets)
		if err != nil {
			return p.at(b.Pos, fmt.Errorf("budget %s of account %s: %w", b.ID, b.Account, err))
		}
		s.budget(b, have, p)
	}
	return nil
}

func (s *Server) budget(b manifest.Budget, list []*purserv1.Budget, p *Plan) {
	after, request := b, budgetRequest(b)
	after.Pos, after.Status = manifest.Pos{}, nil
	change := Action{Verb: Create, Kind: "budget", ID: b.Account + "/" + b.ID, After: after}
	if i := slices.IndexFunc(list, func(h *purserv1.Budget) bool { return h.GetId() == b.ID }); i >= 0 {
		before := resource.FromBudget(list[i])
		if same(before, after) {
			p.Unchanged++
			return
		}
		change.Verb, change.Before, request.Etag = Update, before, list[i].GetEtag()
	}
	p.add(b.Pos, call(change, s.Accounts.PutBudget, request))
}

func budgetRequest(b manifest.Budget) *purserv1.PutBudgetRequest {
	out := &purserv1.PutBudgetRequest{Account: b.Account, Id: b.ID, Unit: b.Unit, Cap: b.Cap, Window: window(b.Window),
		Enforcement: purserv1.Enforcement(purserv1.Enforcement_value["ENFORCEMENT_"+b.Enforcement]), WarnPercent: int32(b.WarnPercent)}
	if b.LabelKey != "" {
		out.Selector = &purserv1.Selector{LabelKey: b.LabelKey, LabelValue: b.LabelValue}
	}
	return out
}
