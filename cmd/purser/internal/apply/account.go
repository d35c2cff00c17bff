package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

func (s *Server) accountsAndPots(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	for _, a := range m.Accounts {
		if err := s.account(ctx, a, p); err != nil {
			return fmt.Errorf("%s:%d: account %s: %w", m.Name, a.Line, a.ID, err)
		}
	}
	return nil
}

func (s *Server) account(ctx context.Context, a manifest.Account, p *Plan) error {
	r, err := s.accounts.GetAccount(ctx, &purserv1.GetAccountRequest{Id: a.ID})
	have := r.GetAccount()
	switch {
	case status.Code(err) == codes.NotFound:
		p.add(Create, "account", a.ID, "", a.Pos, call(s.accounts.CreateAccount, &purserv1.CreateAccountRequest{
			Id: a.ID, Parent: a.Parent, TimeZone: a.TimeZone, DisplayName: a.DisplayName}))
	case err != nil:
		return err
	case have.GetParent() != a.Parent:
		return fmt.Errorf("its parent is %q on the server, and a parent never changes", have.GetParent())
	default:
		s.updateAccount(a, have, p)
	}
	s.subscription(a, have, p)
	if err := s.grants(ctx, a, have != nil, p); err != nil {
		return err
	}
	return s.budgets(ctx, a, have != nil, p)
}

func (s *Server) updateAccount(a manifest.Account, have *purserv1.Account, p *Plan) {
	var paths []string
	if have.GetDisplayName() != a.DisplayName {
		paths = append(paths, "display_name")
	}
	if a.TimeZone != "" && have.GetTimeZone() != a.TimeZone {
		paths = append(paths, "time_zone")
	}
	if len(paths) == 0 {
		p.Unchanged++
		return
	}
	p.add(Update, "account", a.ID, strings.Join(paths, ", "), a.Pos, call(s.accounts.UpdateAccount, &purserv1.UpdateAccountRequest{
		Id: a.ID, DisplayName: a.DisplayName, TimeZone: a.TimeZone, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: have.GetEtag()}))
}

// subscription subscribes to another plan, or to the version named; without one, an account
// stays on the version it has.
func (s *Server) subscription(a manifest.Account, have *purserv1.Account, p *Plan) {
	if a.Plan == "" {
		return
	}
	if have.GetPlan() == a.Plan && (a.PlanVersion == 0 || have.GetPlanVersion() == a.PlanVersion) {
		p.Unchanged++
		return
	}
	verb, detail := Create, a.Plan
	if have.GetPlan() != "" {
		verb, detail = Update, fmt.Sprintf("from %s version %d to %s", have.GetPlan(), have.GetPlanVersion(), a.Plan)
	}
	if a.PlanVersion > 0 {
		detail += fmt.Sprintf(" version %d", a.PlanVersion)
	}
	p.add(verb, "subscription", a.ID, detail, a.Pos, call(s.accounts.SetSubscription,
		&purserv1.SetSubscriptionRequest{Account: a.ID, Plan: a.Plan, Version: a.PlanVersion}))
}

func (s *Server) grants(ctx context.Context, a manifest.Account, exists bool, p *Plan) error {
	var have []*purserv1.Grant
	if exists && len(a.Grants) > 0 {
		var err error
		have, err = pages(func(token string) ([]*purserv1.Grant, string, error) {
			r, err := s.accounts.ListGrants(ctx, &purserv1.ListGrantsRequest{Account: a.ID, PageSize: pageSize, PageToken: token})
			return r.GetGrants(), r.GetNextPageToken(), err
		})
		if err != nil {
			return fmt.Errorf("list grants: %w", err)
		}
	}
	for _, g := range a.Grants {
		i := slices.IndexFunc(have, func(h *purserv1.Grant) bool { return h.GetId() == g.ID })
		switch {
		case i < 0:
			p.add(Create, "grant", g.ID, amount.FormatCredits(g.Micros)+" credits to "+a.ID, g.Pos, call(s.accounts.CreateGrant, grantRequest(a.ID, g)))
		case have[i].GetAmountMicros() != g.Micros || have[i].GetKind() != grantKind(g.Kind) || int64(have[i].GetPriority()) != g.Priority:
			return fmt.Errorf("line %d: grant %s exists with %s credits, %s, priority %d, and a grant never changes: choose another id",
				g.Line, g.ID, amount.FormatCredits(have[i].GetAmountMicros()), have[i].GetKind(), have[i].GetPriority())
		default:
			p.Unchanged++
		}
	}
	return nil
}

func grantRequest(account string, g manifest.Grant) *purserv1.CreateGrantRequest {
	return &purserv1.CreateGrantRequest{Account: account, Grant: g.ID, AmountMicros: g.Micros, Kind: grantKind(g.Kind),
		Priority: int32(g.Priority), EffectiveTime: timestamp(g.EffectiveTime), ExpireTime: timestamp(g.ExpireTime),
		CostBasis: g.CostBasis, Note: g.Note}
}

func grantKind(name string) purserv1.GrantKind {
	return purserv1.GrantKind(purserv1.GrantKind_value["GRANT_KIND_"+name])
}

func (s *Server) budgets(ctx context.Context, a manifest.Account, exists bool, p *Plan) error {
	var have []*purserv1.Budget
	if exists && len(a.Budgets) > 0 {
		var err error
		have, err = pages(func(token string) ([]*purserv1.Budget, string, error) {
			r, err := s.accounts.ListBudgets(ctx, &purserv1.ListBudgetsRequest{Account: a.ID, PageSize: pageSize, PageToken: token})
			return r.GetBudgets(), r.GetNextPageToken(), err
		})
		if err != nil {
			return fmt.Errorf("list budgets: %w", err)
		}
	}
	for _, b := range a.Budgets {
		want := budgetRequest(a.ID, b)
		i := slices.IndexFunc(have, func(h *purserv1.Budget) bool { return h.GetId() == b.ID })
		switch {
		case i < 0:
			p.add(Create, "budget", a.ID+"/"+b.ID, "", b.Pos, call(s.accounts.PutBudget, want))
		case sameBudget(have[i], want):
			p.Unchanged++
		default:
			want.Etag = have[i].GetEtag()
			p.add(Update, "budget", a.ID+"/"+b.ID, "", b.Pos, call(s.accounts.PutBudget, want))
		}
	}
	return nil
}

func budgetRequest(account string, b manifest.Budget) *purserv1.PutBudgetRequest {
	out := &purserv1.PutBudgetRequest{Account: account, Id: b.ID, Unit: b.Unit, Cap: b.Cap, Window: window(b.Window),
		Enforcement: purserv1.Enforcement(purserv1.Enforcement_value["ENFORCEMENT_"+b.Enforcement]), WarnPercent: int32(b.WarnPercent)}
	if b.LabelKey != "" {
		out.Selector = &purserv1.Selector{LabelKey: b.LabelKey, LabelValue: b.LabelValue}
	}
	return out
}

func sameBudget(have *purserv1.Budget, want *purserv1.PutBudgetRequest) bool {
	return have.GetUnit() == want.Unit && have.GetCap() == want.Cap && have.GetWindow() == want.Window &&
		have.GetEnforcement() == want.Enforcement && have.GetWarnPercent() == want.WarnPercent &&
		have.GetSelector().GetLabelKey() == want.GetSelector().GetLabelKey() &&
		have.GetSelector().GetLabelValue() == want.GetSelector().GetLabelValue()
}

func (s *Server) apiKeys(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	if len(m.Keys) == 0 {
		return nil
	}
	have, err := pages(func(token string) ([]*purserv1.Key, string, error) {
		r, err := s.keys.ListKeys(ctx, &purserv1.ListKeysRequest{PageSize: pageSize, PageToken: token})
		return r.GetKeys(), r.GetNextPageToken(), err
	})
	if err != nil {
		return fmt.Errorf("list keys: %w", err)
	}
	for _, k := range m.Keys {
		want := &purserv1.CreateKeyRequest{Principal: k.Principal, Role: purserv1.Role(purserv1.Role_value["ROLE_"+k.Role]),
			Account: k.Account, Labels: k.Labels, ExpireTime: timestamp(k.ExpireTime)}
		if slices.ContainsFunc(have, func(h *purserv1.Key) bool { return sameKey(h, want) }) {
			p.Unchanged++
			continue
		}
		p.add(Create, "key", k.Principal, strings.ToLower(k.Role), k.Pos, func(ctx context.Context, a *Action) error {
			r, err := s.keys.CreateKey(ctx, want)
			a.Secret = r.GetSecret()
			return err
		})
	}
	return nil
}

// sameKey ignores times but that of revocation: an expired key is still the one asked for.
func sameKey(have *purserv1.Key, want *purserv1.CreateKeyRequest) bool {
	return have.GetRevokeTime() == nil && have.GetPrincipal() == want.Principal && have.GetRole() == want.Role &&
		have.GetAccount() == want.Account && maps.Equal(have.GetLabels(), want.Labels) &&
		(want.ExpireTime == nil || proto.Equal(have.GetExpireTime(), want.ExpireTime))
}
