package relational

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
)

const (
	// readProfileSQL reads an account's chain, the account first, each with its budgets or
	// one row of empty columns, and the revision, so that one round trip sees one state.
	readProfileSQL = `WITH RECURSIVE chain AS (
    SELECT 0 AS depth, a.id, a.parent_id FROM accounts a WHERE a.id = $1
    UNION ALL
    SELECT c.depth + 1, p.id, p.parent_id FROM chain c JOIN accounts p ON p.id = c.parent_id WHERE c.depth < 8
)
SELECT chain.depth, a.id, a.parent_id, a.payer_id, a.display_name, a.time_zone, a.status, a.suspend_reason, a.epoch,
       a.plan_id, a.plan_version, a.create_time, a.revision,
       COALESCE(b.id, ''), COALESCE(b.unit, ''), COALESCE(b.cap, 0), COALESCE(b.window_kind, 0), COALESCE(b.label_key, ''),
       COALESCE(b.label_value, ''), COALESCE(b.soft, 0), COALESCE(b.warn_percent, 0), COALESCE(b.create_time, 0),
       COALESCE(b.revision, 0), r.value
FROM chain JOIN accounts a ON a.id = chain.id JOIN revision r ON r.id = 1 LEFT JOIN budgets b ON b.account_id = chain.id
ORDER BY chain.depth`

	findAccountSQL = `SELECT id, parent_id, payer_id, display_name, time_zone, status, suspend_reason, epoch, plan_id,
       plan_version, create_time, revision
FROM accounts WHERE id = $1`

	listAccountsSQL = `SELECT id, parent_id, payer_id, display_name, time_zone, status, suspend_reason, epoch, plan_id,
       plan_version, create_time, revision
FROM accounts WHERE id > $1 ORDER BY id LIMIT $2`

	insertAccountSQL = `INSERT INTO accounts (id, parent_id, payer_id, display_name, time_zone, status, suspend_reason, epoch,
       plan_id, plan_version, create_time, revision)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`

	updateAccountSQL = `UPDATE accounts SET display_name = $2, time_zone = $3, status = $4, suspend_reason = $5, epoch = $6,
       plan_id = $7, plan_version = $8, revision = $9
WHERE id = $1`
)

// Profile see [quota.AccountStore].
func (s *Store) Profile(ctx context.Context, account string) (profile *quota.Profile, err error) {
	err = s.read(ctx, "read profile", func(tx Tx) error {
		profile, err = readProfile(ctx, tx, account)
		return err
	})
	return profile, err
}

// Profiles see [quota.AccountStore].
func (s *Store) Profiles(ctx context.Context, accounts []string) (found []quota.ProfileResult, err error) {
	err = s.read(ctx, "read profiles", func(tx Tx) error {
		found, err = readProfiles(ctx, tx, accounts)
		return err
	})
	return found, err
}

func readProfile(ctx context.Context, tx Tx, account string) (*quota.Profile, error) {
	found, err := readProfiles(ctx, tx, []string{account})
	if err != nil {
		return nil, err
	}
	return found[0].Profile, found[0].Err
}

func readProfiles(ctx context.Context, tx Tx, accounts []string) ([]quota.ProfileResult, error) {
	queries := make([]Query, len(accounts))
	found := make([]quota.ProfileResult, len(accounts))
	for i, account := range accounts {
		queries[i] = Query{SQL: readProfileSQL, Args: []any{account}}
		found[i].Profile = new(quota.Profile) // by itself: they are kept for different times
	}
	if err := tx.Queries(ctx, queries, func(q int, r Rows) error { return scanProfile(r, found[q].Profile) }); err != nil {
		return nil, err
	}
	for i := range found {
		if err := wholeProfile(accounts[i], found[i].Profile); err != nil {
			found[i] = quota.ProfileResult{Err: err}
		}
	}
	return found, nil
}

// wholeProfile says whether an account is there with all its chain, and puts its budgets in order.
func wholeProfile(account string, p *quota.Profile) error {
	if len(p.Chain) == 0 {
		return noAccount(account)
	}
	if p.Payer().Parent != "" {
		return violated("the parent chain of account %q does not end within %d accounts", account, quota.MaxAccountDepth)
	}
	for i := range p.Budgets { // collations differ between databases; the order is ours
		slices.SortFunc(p.Budgets[i], func(a, b quota.Budget) int { return strings.Compare(a.ID, b.ID) })
	}
	return nil
}

// scanProfile adds a row of readProfileSQL.
func scanProfile(r Rows, p *quota.Profile) error {
	var depth int
	var account accountRow
	var budget budgetRow
	dest := append([]any{&depth}, account.dest()...)
	dest = append(append(dest, budget.dest()...), &p.Revision)
	if err := r.Scan(dest...); err != nil {
		return err
	}
	if depth == len(p.Chain) {
		p.Chain, p.Budgets = append(p.Chain, account.toAccount()), append(p.Budgets, nil)
	}
	if budget.id != "" {
		p.Budgets[depth] = append(p.Budgets[depth], budget.toBudget(p.Chain[depth].ID))
	}
	return nil
}

// noPlan names the version only if one was asked for: 0 stands for the latest.
func noPlan(ref authz.PlanRef) error {
	if ref.Version == 0 {
		return refuse(quota.ReasonPlanNotFound, "there is no plan "+quoted(ref.ID), "plan", ref.ID)
	}
	version := strconv.FormatInt(ref.Version, 10)
	return refuse(quota.ReasonPlanNotFound, "there is no version "+version+" of plan "+quoted(ref.ID), "plan", ref.ID, "version", version)
}

func noAccount(id string) error {
	return refuse(quota.ReasonAccountNotFound, "there is no account "+quoted(id), "account", id)
}

// findAccount reads one account.
func findAccount(ctx context.Context, tx Tx, id string) (quota.Account, error) {
	var row accountRow
	found, err := queryRow(ctx, tx, findAccountSQL, []any{id}, row.dest()...)
	switch {
	case err != nil:
		return quota.Account{}, fmt.Errorf("read account: %w", err)
	case !found:
		return quota.Account{}, noAccount(id)
	}
	return row.toAccount(), nil
}

// ListAccounts see [quota.AccountStore]. The page's key is the account's id.
func (s *Store) ListAccounts(ctx context.Context, p quota.Page) (accounts []quota.Account, err error) {
	limit, err := limitOf(p)
	if err != nil {
		return nil, err
	}
	err = s.read(ctx, "list accounts", func(tx Tx) error {
		accounts = nil
		return each(ctx, tx, listAccountsSQL, []any{p.After, limit}, func(r Rows) error {
			var row accountRow
			err := r.Scan(row.dest()...)
			accounts = append(accounts, row.toAccount())
			return err
		})
	})
	return accounts, err
}

// CreateAccount see [quota.AccountStore]. A plan named in a is subscribed to.
func (s *Store) CreateAccount(ctx context.Context, m quota.Mutation, account quota.Account) (quota.Account, error) {
	return admin(ctx, s, m, func(tx *adminTx) (quota.Account, error) {
		a := account
		var err error
		if a.Payer, err = tx.payerFor(&a); err != nil {
			return a, err
		}
		if a.Plan, err = tx.resolvePlan(a.Plan); err != nil {
			return a, err
		}
		if a.Revision, err = tx.change(quota.ChangeAccount, a.ID); err != nil {
			return a, err
		}
		a.Status, a.SuspendReason, a.Epoch, a.CreateTime = quota.AccountActive, "", 1, tx.now
		return a, tx.insert("account", a.ID, insertAccountSQL, a.ID, a.Parent, a.Payer, a.DisplayName, a.TimeZone,
			int64(a.Status), a.SuspendReason, a.Epoch, a.Plan.ID, a.Plan.Version, a.CreateTime, a.Revision)
	})
}

// payerFor finds who pays for a new account, and refuses a chain that would be too deep (R36).
func (a *adminTx) payerFor(account *quota.Account) (string, error) {
	if account.Parent == "" {
		return account.ID, nil
	}
	parent, err := readProfile(a.ctx, a, account.Parent)
	if err != nil {
		return "", err
	}
	if len(parent.Chain) >= quota.MaxAccountDepth {
		return "", quota.Errorf(quota.ReasonRequestInvalid, fmt.Sprintf(
			"account %s would be more than %d accounts away from who pays", quoted(account.ID), quota.MaxAccountDepth))
	}
	return parent.Payer().ID, nil
}

// resolvePlan checks that a plan version exists; version 0 is the latest.
func (a *adminTx) resolvePlan(ref authz.PlanRef) (authz.PlanRef, error) {
	if ref.ID == "" {
		return authz.PlanRef{}, nil
	}
	var latest int64
	if _, err := queryRow(a.ctx, a, latestPlanSQL, []any{ref.ID}, &latest); err != nil {
		return ref, fmt.Errorf("read plan: %w", err)
	}
	if latest == 0 || ref.Version < 0 || ref.Version > latest {
		return ref, noPlan(ref)
	}
	if ref.Version == 0 {
		ref.Version = latest
	}
	return ref, nil
}

// updateAccount reads an account, lets edit change it, and writes it with the next epoch and
// revision (R12).
func (s *Store) updateAccount(ctx context.Context, m quota.Mutation, id string, edit func(*adminTx, *quota.Account) error) (quota.Account, error) {
	return admin(ctx, s, m, func(tx *adminTx) (quota.Account, error) {
		a, err := findAccount(ctx, tx, id)
		if err != nil {
			return a, err
		}
		if err := edit(tx, &a); err != nil {
			return a, err
		}
		if a.Revision, err = tx.change(quota.ChangeAccount, a.ID); err != nil {
			return a, err
		}
		a.Epoch++
		return a, tx.exec(updateAccountSQL, a.ID, a.DisplayName, a.TimeZone, int64(a.Status), a.SuspendReason, a.Epoch,
			a.Plan.ID, a.Plan.Version, a.Revision)
	})
}

// UpdateAccount see [quota.AccountStore]. The epoch moves because a time zone moves windows.
func (s *Store) UpdateAccount(ctx context.Context, m quota.Mutation, account quota.Account, etag int64) (quota.Account, error) {
	return s.updateAccount(ctx, m, account.ID, func(_ *adminTx, a *quota.Account) error {
		a.DisplayName, a.TimeZone = account.DisplayName, account.TimeZone
		return checkETag(etag, a.Revision)
	})
}

// Subscribe see [quota.AccountStore].
func (s *Store) Subscribe(ctx context.Context, m quota.Mutation, account string, plan authz.PlanRef) (quota.Account, error) {
	return s.updateAccount(ctx, m, account, func(tx *adminTx, a *quota.Account) (err error) {
		a.Plan, err = tx.resolvePlan(plan)
		return err
	})
}

// SetStatus see [quota.AccountStore]. Setting the status in force again is a change too: its
// revision is new, and so can be waited for.
func (s *Store) SetStatus(ctx context.Context, m quota.Mutation, account string, status quota.AccountStatus, reason string) (quota.Account, int64, error) {
	a, err := s.updateAccount(ctx, m, account, func(_ *adminTx, a *quota.Account) error {
		a.Status, a.SuspendReason = status, reason
		if status == quota.AccountActive {
			a.SuspendReason = ""
		}
		return nil
	})
	return a, a.Revision, err
}

// touchAccount moves an account's epoch and revision for a change that stands elsewhere.
func (a *adminTx) touchAccount(id string) (revision int64, err error) {
	if revision, err = a.change(quota.ChangeAccount, id); err != nil {
		return 0, err
	}
	return revision, a.exec(bumpEpoch, id, revision)
}

// accountRow is an account as stored.
type accountRow struct {
	account     quota.Account
	status      int16
	planVersion int64
}

// dest lists where the columns of findAccountSQL go.
func (r *accountRow) dest() []any {
	a := &r.account
	return []any{&a.ID, &a.Parent, &a.Payer, &a.DisplayName, &a.TimeZone, &r.status, &a.SuspendReason, &a.Epoch,
		&a.Plan.ID, &r.planVersion, &a.CreateTime, &a.Revision}
}

func (r *accountRow) toAccount() quota.Account {
	a := r.account
	a.Status, a.Plan.Version = quota.AccountStatus(r.status), r.planVersion
	return a
}

// budgetRow is a budget as stored, without its account.
type budgetRow struct {
	id, unit, labelKey, labelValue string
	cap, createTime, revision      int64
	window, soft, warnPercent      int16
}

// dest lists where the budget's columns go, in the order of the schema.
func (r *budgetRow) dest() []any {
	return []any{&r.id, &r.unit, &r.cap, &r.window, &r.labelKey, &r.labelValue, &r.soft, &r.warnPercent, &r.createTime, &r.revision}
}

func (r *budgetRow) toBudget(account string) quota.Budget {
	return quota.Budget{Account: account, ID: r.id, Unit: r.unit, Cap: r.cap, Window: window.Kind(r.window),
		LabelKey: r.labelKey, LabelValue: r.labelValue, Soft: r.soft != 0, WarnPercent: int(r.warnPercent),
		CreateTime: r.createTime, Revision: r.revision}
}
