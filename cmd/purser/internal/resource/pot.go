package resource

import (
	"context"
	"strconv"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

func grants() Kind {
	type T = *purserv1.Grant
	return &kind[T]{
		about: About{Name: "grant", Plural: "grants", Aliases: []string{"gr", "g"}, Scoped: true, Shared: true, Removal: "voided",
			Warning: "what is left of it is taken back, and it can never be used again"},
		id:   func(g T) string { return g.GetAccount() + "/" + g.GetId() },
		list: func(ctx context.Context, s *Server, account string) ([]T, error) { return s.ListGrants(ctx, account) },
		columns: []column[T]{
			col("grant", said(func(g T) string { return g.GetAccount() + "/" + g.GetId() })),
			col("kind", said(func(g T) string { return Word(g.GetKind()) })),
			right("credits", said(func(g T) string { return amount.FormatCredits(g.GetAmountMicros()) })),
			right("priority", said(func(g T) string { return strconv.Itoa(int(g.GetPriority())) })),
			col("state", func(s *Server, g T) string { return s.grantState(g) }),
			col("expires", said(func(g T) string { return expiry(instant(g.GetExpireTime())) })),
			col("age", func(s *Server, g T) string { return s.age(g.GetCreateTime()) }),
			wide("created", said(func(g T) string { return stamp(instant(g.GetCreateTime())) })),
			wide("effective", said(func(g T) string { return stamp(instant(g.GetEffectiveTime())) })),
			wide("cost basis", said(T.GetCostBasis)),
			wide("note", said(T.GetNote)),
		},
		document: func(m *manifest.Manifest, g T) {
			d := FromGrant(g)
			d.Status = status{CreateTime: instant(g.GetCreateTime())}
			m.Grants = append(m.Grants, d)
		},
		describe: describeGrant,
		remove: func(ctx context.Context, s *Server, g T, dry bool) error {
			_, err := s.Accounts.VoidGrant(ctx, &purserv1.VoidGrantRequest{Account: g.GetAccount(), Grant: g.GetId(), ValidateOnly: dry})
			return err
		},
	}
}

func (s *Server) grantState(g *purserv1.Grant) string {
	expires := instant(g.GetExpireTime())
	switch {
	case g.GetVoided():
		return "VOIDED"
	case !expires.IsZero() && !expires.After(s.Now):
		return "EXPIRED"
	case instant(g.GetEffectiveTime()).After(s.Now):
		return "PENDING"
	default:
		return "OPEN"
	}
}

func describeGrant(ctx context.Context, s *Server, g *purserv1.Grant, d *Description) error {
	balance, err := s.Authority.GetBalance(ctx, &purserv1.GetBalanceRequest{Account: g.GetAccount()})
	if err != nil {
		return err
	}
	for _, b := range balance.GetGrants() { // open ones
		if b.GetGrant().GetId() == g.GetId() {
			d.field("spent", amount.FormatCredits(b.GetSpentMicros()))
			d.field("set aside by nodes", amount.FormatCredits(b.GetEscrowedMicros()))
			d.field("not set aside", amount.FormatCredits(b.GetAvailableMicros()))
		}
	}
	return nil
}

func budgets() Kind {
	type T = *purserv1.Budget
	return &kind[T]{
		about: About{Name: "budget", Plural: "budgets", Aliases: []string{"bud", "b"}, Scoped: true, Removal: "deleted",
			Warning: "nothing is capped by it any more"},
		id:   budgetID,
		list: func(ctx context.Context, s *Server, account string) ([]T, error) { return s.ListBudgets(ctx, account) },
		columns: []column[T]{
			col("budget", said(budgetID)),
			right("cap", said(func(b T) string { return Quantity(b.GetUnit(), b.GetCap()) })),
			col("unit", said(func(b T) string { return unit(b.GetUnit()) })),
			col("window", said(func(b T) string { return Word(b.GetWindow()) })),
			col("label", said(func(b T) string { return FromBudget(b).Label() })),
			col("enforcement", said(func(b T) string { return Word(b.GetEnforcement()) })),
			col("warns at", said(warnsAt)),
			col("age", func(s *Server, b T) string { return s.age(b.GetCreateTime()) }),
			wide("created", said(func(b T) string { return stamp(instant(b.GetCreateTime())) })),
		},
		document: func(m *manifest.Manifest, b T) {
			d := FromBudget(b)
			d.Status = status{CreateTime: instant(b.GetCreateTime())}
			m.Budgets = append(m.Budgets, d)
		},
		describe: describeBudget,
		remove: func(ctx context.Context, s *Server, b T, dry bool) error {
			_, err := s.Accounts.DeleteBudget(ctx, &purserv1.DeleteBudgetRequest{Account: b.GetAccount(), Id: b.GetId(), Etag: b.GetEtag(), ValidateOnly: dry})
			return err
		},
	}
}

func budgetID(b *purserv1.Budget) string { return b.GetAccount() + "/" + b.GetId() }

func warnsAt(b *purserv1.Budget) string {
	if b.GetWarnPercent() == 0 {
		return ""
	}
	return strconv.Itoa(int(b.GetWarnPercent())) + "%"
}

func describeBudget(ctx context.Context, s *Server, b *purserv1.Budget, d *Description) error {
	balance, err := s.Authority.GetBalance(ctx, &purserv1.GetBalanceRequest{Account: b.GetAccount()})
	if err != nil {
		return err
	}
	windows := d.section("open windows", "label", "used", "start", "end")
	for _, w := range balance.GetBudgets() {
		if budgetID(w.GetBudget()) == budgetID(b) {
			windows.add(w.GetLabelValue(), Quantity(b.GetUnit(), w.GetTaken()), stamp(instant(w.GetStartTime())), expiry(instant(w.GetEndTime())))
		}
	}
	return nil
}

// expiry is a time, or never.
func expiry(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return stamp(t)
}
