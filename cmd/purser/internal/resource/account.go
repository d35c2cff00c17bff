package resource

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

func accounts() Kind {
	type T = *purserv1.Account
	return &kind[T]{
		about: About{Name: "account", Plural: "accounts", Aliases: []string{"acct", "acc", "a"},
			Refusal: "an account stays, because its books do: purser suspend denies it new work, and purser resume ends that"},
		id:   T.GetId,
		list: func(ctx context.Context, s *Server, _ string) ([]T, error) { return s.ListAccounts(ctx) },
		get: func(ctx context.Context, s *Server, id string) (T, error) {
			r, err := s.Accounts.GetAccount(ctx, &purserv1.GetAccountRequest{Id: id})
			return r.GetAccount(), err
		},
		columns: []column[T]{
			col("account", said(T.GetId)),
			col("payer", said(T.GetPayer)),
			col("plan", said(planOf)),
			col("state", said(func(a T) string { return Word(a.GetState()) })),
			col("time zone", said(T.GetTimeZone)),
			col("name", said(T.GetDisplayName)),
			col("age", func(s *Server, a T) string { return s.age(a.GetCreateTime()) }),
			wide("created", said(func(a T) string { return stamp(instant(a.GetCreateTime())) })),
			wide("parent", said(T.GetParent)),
			wide("suspended because", said(T.GetSuspendReason)),
		},
		document: func(m *manifest.Manifest, a T) {
			d := FromAccount(a)
			d.Status = status{State: Word(a.GetState()), Reason: a.GetSuspendReason(), Payer: a.GetPayer(),
				PlanVersion: a.GetPlanVersion(), CreateTime: instant(a.GetCreateTime())}
			m.Accounts = append(m.Accounts, d)
		},
		describe: describeAccount,
	}
}

func planOf(a *purserv1.Account) string {
	if a.GetPlan() == "" {
		return ""
	}
	return fmt.Sprintf("%s@%d", a.GetPlan(), a.GetPlanVersion())
}

// recently is how far back describe looks for usage.
const recently = 24 * time.Hour

func describeAccount(ctx context.Context, s *Server, a *purserv1.Account, d *Description) error {
	balance, err := s.Authority.GetBalance(ctx, &purserv1.GetBalanceRequest{Account: a.GetId()})
	if err != nil {
		return fmt.Errorf("balance of %s: %w", a.GetId(), err)
	}
	money := d.section("balance", "of", "credits")
	for _, line := range Wallet(balance) {
		money.add(line[0], line[1])
	}
	own, err := s.ListBudgets(ctx, a.GetId())
	if err != nil {
		return err
	}
	d.Sections = append(d.Sections, GrantSection(balance), BudgetSection(balance, own))
	if err := s.usageSection(ctx, a.GetId(), d); err != nil {
		return err
	}
	all, err := s.ListAccounts(ctx)
	if err != nil {
		return err
	}
	below := d.section("accounts below", "account", "state", "name")
	for _, b := range all {
		if b.GetParent() == a.GetId() {
			below.add(b.GetId(), Word(b.GetState()), b.GetDisplayName())
		}
	}
	return nil
}

// Wallet is the figures of a balance, each with its name.
func Wallet(b *purserv1.GetBalanceResponse) [][2]string {
	return [][2]string{
		{"total", amount.FormatCredits(b.GetTotalMicros())},
		{"available", amount.FormatCredits(b.GetAvailableMicros())},
		{"held", amount.FormatCredits(b.GetHeldMicros())},
		{"elsewhere", amount.FormatCredits(b.GetElsewhereMicros())},
		{"debt", amount.FormatCredits(b.GetDebtMicros())},
	}
}

// GrantSection is the open grants of a wallet, in burn order.
func GrantSection(b *purserv1.GetBalanceResponse) *Section {
	out := newSection("grants", "grant", "kind", "credits", "spent", "left", "priority", "expires")
	for _, g := range b.GetGrants() {
		grant := g.GetGrant()
		left := g.GetAvailableMicros() + g.GetEscrowedMicros() // parts of one grant, so no more than it
		out.add(grant.GetId(), Word(grant.GetKind()), amount.FormatCredits(grant.GetAmountMicros()), amount.FormatCredits(g.GetSpentMicros()),
			amount.FormatCredits(left), strconv.Itoa(int(grant.GetPriority())), expiry(instant(grant.GetExpireTime())))
	}
	return out
}

// BudgetSection is the windows of budgets that are open, of the account and those above it, and
// the account's own budgets of which none is.
func BudgetSection(b *purserv1.GetBalanceResponse, own []*purserv1.Budget) *Section {
	out := newSection("budgets", "budget", "label", "used", "cap", "unit", "window", "ends")
	add := func(budget *purserv1.Budget, label string, taken int64, ends string) {
		out.add(budgetID(budget), label, Quantity(budget.GetUnit(), taken), Quantity(budget.GetUnit(), budget.GetCap()),
			unit(budget.GetUnit()), Word(budget.GetWindow()), ends)
	}
	open := map[string]bool{}
	for _, w := range b.GetBudgets() {
		open[budgetID(w.GetBudget())] = true
		label := w.GetBudget().GetSelector().GetLabelKey()
		if label != "" {
			label += "=" + w.GetLabelValue()
		}
		add(w.GetBudget(), label, w.GetTaken(), expiry(instant(w.GetEndTime())))
	}
	for _, budget := range own {
		if !open[budgetID(budget)] {
			add(budget, FromBudget(budget).Label(), 0, "")
		}
	}
	return out
}

func (s *Server) usageSection(ctx context.Context, account string, d *Description) error {
	from := s.Now.Add(-recently).Truncate(time.Hour)
	rollups, err := s.AccountRollups(ctx, account, from, time.Time{})
	if err != nil {
		return err
	}
	type key struct{ feature, meter string }
	sums, order := map[key]*[2]int64{}, []key{}
	for _, r := range rollups {
		k := key{r.GetFeature(), r.GetMeter()}
		if sums[k] == nil {
			sums[k], order = new([2]int64), append(order, k)
		}
		if err := AddTo(&sums[k][0], r.GetQuantity()); err != nil {
			return err
		}
		if err := AddTo(&sums[k][1], r.GetChargedMicros()); err != nil {
			return err
		}
	}
	out := d.section("usage since "+stamp(from), "feature", "meter", "quantity", "credits")
	for _, k := range order {
		out.add(k.feature, k.meter, strconv.FormatInt(sums[k][0], 10), amount.FormatCredits(sums[k][1]))
	}
	return nil
}

// AddTo adds to a sum, or fails if it would not fit.
func AddTo(sum *int64, v int64) error {
	next, ok := amount.Add(*sum, v)
	if !ok {
		return fmt.Errorf("the sum of %d and %d does not fit 64 bits", *sum, v)
	}
	*sum = next
	return nil
}

// Quantity is an amount for people: credits, or a count if a meter is named.
func Quantity(meter string, v int64) string {
	if meter == "" {
		return amount.FormatCredits(v)
	}
	return strconv.FormatInt(v, 10)
}

func unit(meter string) string {
	if meter == "" {
		return "credits"
	}
	return meter
}
