package relational_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/relational"
)

func TestMain(m *testing.M) { testdb.Main(m) }

// now is the time of every admin call here.
const now = int64(1_800_000_000_000_000_000)

// open is a store on an empty PostgreSQL database: the one with real concurrency.
func open(t *testing.T) *relational.Store {
	t.Helper()
	u := testdb.PostgreSQL(t)
	if err := cockroach.Migrate(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	s, err := cockroach.Open(t.Context(), cockroach.Options{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.Store
}

// plain is a mutation that is not repeatable.
func plain() quota.Mutation { return quota.Mutation{Principal: "tester", Now: now} }

// request is a repeatable mutation; content stands for what it asks.
func request(id string, content byte) quota.Mutation {
	return quota.Mutation{Principal: "tester", RequestID: id, Digest: [32]byte{content}, Now: now}
}

func refused(t *testing.T, what string, err error, want quota.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

// must is for the steps that only set the scene.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func account(t *testing.T, s *relational.Store, id, parent string) quota.Account {
	t.Helper()
	return must[quota.Account](t)(s.CreateAccount(t.Context(), plain(), quota.Account{ID: id, Parent: parent, TimeZone: "UTC"}))
}

func newGrant(id string, micros int64) quota.Pot {
	return quota.Pot{ID: quota.GrantPotID(id), Kind: quota.PotWallet, Granted: micros, Start: now, End: quota.Never, GrantKind: quota.GrantPurchased}
}

func revision(t *testing.T, s *relational.Store) int64 {
	t.Helper()
	return must[*quota.Catalogue](t)(s.Catalogue(t.Context())).Revision
}

func TestRequestIsAppliedOnceWhoeverRaces(t *testing.T) {
	s := open(t)
	account(t, s, "acme", "")
	const callers = 8
	pots, errs := make([]quota.Pot, callers), make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() { pots[i], errs[i] = s.CreateGrant(t.Context(), request("r1", 1), "acme", newGrant("g1", 500)) })
	}
	wg.Wait()
	for i := range callers {
		if errs[i] != nil || !reflect.DeepEqual(pots[i], pots[0]) {
			t.Errorf("caller %d: got %+v, %v; want %+v", i, pots[i], errs[i], pots[0])
		}
	}
	if got := revision(t, s); got != 2 {
		t.Errorf("revision %d, want 2: the account and one grant", got)
	}
	_, err := s.CreateGrant(t.Context(), request("r1", 2), "acme", newGrant("g2", 500))
	refused(t, "other content", err, quota.ReasonIdempotencyKeyReused)
	other := request("r1", 2)
	other.Principal = "somebody else"
	if _, err := s.CreateGrant(t.Context(), other, "acme", newGrant("g2", 500)); err != nil {
		t.Errorf("another principal's request of the same id: %v", err)
	}
}

// unsure loses the answer of the next commits, which have happened.
type unsure struct {
	relational.Driver
	lose int
}

func (u *unsure) Write(ctx context.Context, fn func(relational.Tx) error) error {
	err := u.Driver.Write(ctx, fn)
	if err == nil && u.lose > 0 {
		u.lose--
		return quota.Errorf(quota.ReasonOutcomeUnknown, "lost")
	}
	return err
}

func TestRequestAfterUnknownOutcome(t *testing.T) {
	s := open(t)
	account(t, s, "acme", "")
	lossy := relational.New(&unsure{Driver: s.Driver, lose: 1})
	g, err := lossy.CreateGrant(t.Context(), request("r1", 1), "acme", newGrant("g1", 500))
	if err != nil || g.Available != 500 {
		t.Errorf("repeatable: got %+v, %v; want the answer of the first run", g, err)
	}
	lossy = relational.New(&unsure{Driver: s.Driver, lose: 1})
	_, err = lossy.CreateGrant(t.Context(), plain(), "acme", newGrant("g2", 500))
	refused(t, "not repeatable", err, quota.ReasonOutcomeUnknown)
	if grants := must[[]quota.Pot](t)(s.ListGrants(t.Context(), "acme", quota.Page{Size: 9})); len(grants) != 2 {
		t.Errorf("%d grants, want 2", len(grants))
	}
}

func TestValidateOnlyChangesNothing(t *testing.T) {
	s := open(t)
	account(t, s, "acme", "")
	m := request("r1", 1)
	m.ValidateOnly = true
	if g, err := s.CreateGrant(t.Context(), m, "acme", newGrant("g1", 500)); err != nil || g.Available != 500 {
		t.Fatalf("valid: got %+v, %v", g, err)
	}
	_, err := s.CreateGrant(t.Context(), m, "nobody", newGrant("g1", 500))
	refused(t, "not valid", err, quota.ReasonAccountNotFound)
	if grants := must[[]quota.Pot](t)(s.ListGrants(t.Context(), "acme", quota.Page{Size: 9})); len(grants) != 0 || revision(t, s) != 1 {
		t.Errorf("something was changed: %+v", grants)
	}
	m.ValidateOnly = false
	if _, err := s.CreateGrant(t.Context(), m, "acme", newGrant("g1", 500)); err != nil {
		t.Errorf("for good, under the id that was tried: %v", err)
	}
}

// R32: the order of admin transactions is the revision, without gaps, however they race.
func TestRevisionsHaveNoGaps(t *testing.T) {
	s := open(t)
	const writers, each = 4, 5
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				for {
					_, err := s.CreateAccount(t.Context(), plain(), quota.Account{ID: fmt.Sprintf("a%d-%d", i, n), TimeZone: "UTC"})
					if !errors.Is(err, quota.ReasonContention) {
						errs[i] = errors.Join(errs[i], err)
						break
					}
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	seen := map[int64]bool{}
	for _, a := range must[[]quota.Account](t)(s.ListAccounts(t.Context(), quota.Page{Size: 100})) {
		seen[a.Revision] = true
	}
	for r := int64(1); r <= writers*each; r++ {
		if !seen[r] {
			t.Errorf("no account has revision %d", r)
		}
	}
}

func TestAccountsListByKey(t *testing.T) {
	s := open(t)
	for _, id := range []string{"c", "a", "e", "b", "d"} {
		account(t, s, id, "")
	}
	var got []string
	for after := ""; ; {
		page := must[[]quota.Account](t)(s.ListAccounts(t.Context(), quota.Page{After: after, Size: 2}))
		for _, a := range page {
			got = append(got, a.ID)
			after = a.ID
		}
		if len(page) < 2 {
			break
		}
	}
	if want := []string{"a", "b", "c", "d", "e"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err := s.ListAccounts(t.Context(), quota.Page{})
	refused(t, "a page without size", err, quota.ReasonRequestInvalid)
}

func TestChainIsBoundedAndProfiled(t *testing.T) {
	s := open(t)
	parent := ""
	for i := range quota.MaxAccountDepth {
		parent = account(t, s, fmt.Sprintf("a%d", i), parent).ID
	}
	_, err := s.CreateAccount(t.Context(), plain(), quota.Account{ID: "deep", Parent: parent})
	refused(t, "too deep", err, quota.ReasonRequestInvalid)
	_, err = s.CreateAccount(t.Context(), plain(), quota.Account{ID: "orphan", Parent: "nobody"})
	refused(t, "no parent", err, quota.ReasonAccountNotFound)
	_, err = s.CreateAccount(t.Context(), plain(), quota.Account{ID: "a0"})
	refused(t, "taken", err, quota.ReasonResourceExists)

	for _, b := range []quota.Budget{
		{Account: "a0", ID: "z", Cap: 10, Window: window.Month},
		{Account: "a0", ID: "b", Cap: 20, Window: window.Day, LabelKey: "team", LabelValue: "search", Soft: true, WarnPercent: 80},
		{Account: parent, ID: "own", Unit: "images", Cap: 30, Window: window.Lifetime},
	} {
		must[quota.Budget](t)(s.PutBudget(t.Context(), plain(), b, 0))
	}
	p := must[*quota.Profile](t)(s.Profile(t.Context(), parent))
	if len(p.Chain) != quota.MaxAccountDepth || p.Account().ID != parent || p.Payer().ID != "a0" || p.Account().Payer != "a0" {
		t.Fatalf("chain %+v", p.Chain)
	}
	if p.Revision != revision(t, s) {
		t.Errorf("revision %d, want %d", p.Revision, revision(t, s))
	}
	own, root := p.Budgets[0], p.Budgets[len(p.Budgets)-1]
	if len(own) != 1 || own[0].Unit != "images" || own[0].Account != parent || len(p.Budgets[3]) != 0 {
		t.Errorf("own budgets %+v", own)
	}
	if len(root) != 2 || root[0].ID != "b" || root[0].LabelValue != "search" || !root[0].Soft || root[0].WarnPercent != 80 || root[1].Window != window.Month {
		t.Errorf("the payer's budgets %+v", root)
	}
	if p.Payer().Epoch != 3 || p.Account().Epoch != 2 {
		t.Errorf("epochs %d and %d; each budget moves its account's", p.Payer().Epoch, p.Account().Epoch)
	}
}

func TestBudgetKeepsWhatItCounts(t *testing.T) {
	s := open(t)
	account(t, s, "acme", "")
	b := must[quota.Budget](t)(s.PutBudget(t.Context(), plain(), quota.Budget{Account: "acme", ID: "b", Cap: 10, Window: window.Day}, 0))
	changed := b
	changed.Cap = 20
	changed = must[quota.Budget](t)(s.PutBudget(t.Context(), plain(), changed, b.Revision))
	if changed.Cap != 20 || changed.Revision <= b.Revision || changed.CreateTime != b.CreateTime {
		t.Errorf("changed: %+v", changed)
	}
	_, err := s.PutBudget(t.Context(), plain(), changed, b.Revision)
	refused(t, "stale etag", err, quota.ReasonETagMismatch)
	for name, edit := range map[string]func(*quota.Budget){
		"unit":   func(b *quota.Budget) { b.Unit = "images" },
		"window": func(b *quota.Budget) { b.Window = window.Month },
		"label":  func(b *quota.Budget) { b.LabelKey = "team" },
	} {
		other := changed
		edit(&other)
		_, err := s.PutBudget(t.Context(), plain(), other, 0)
		refused(t, "other "+name, err, quota.ReasonRequestInvalid)
	}
	// A window that was counted outlives the budget, and bars its id for other units.
	pot := quota.WindowPot{Kind: quota.PotBudget, Account: "acme", Limit: "b"}
	exec(t, s, `INSERT INTO pots (payer_id, pot_id, kind, unit, granted, available, escrowed, spent, expired, refunded, direct,
start_time, end_time, account_id, limit_id, selector, grant_kind, priority, cost_basis, note, voided, create_time)
VALUES ('acme', $1, 2, '', 0, 0, 0, 5, 0, 0, 0, 0, 9, 'acme', 'b', '', 0, 0, '', '', 0, 0)`, pot.ID())
	refused(t, "delete with a stale etag", s.DeleteBudget(t.Context(), plain(), "acme", "b", b.Revision), quota.ReasonETagMismatch)
	if err := s.DeleteBudget(t.Context(), plain(), "acme", "b", changed.Revision); err != nil {
		t.Fatal(err)
	}
	refused(t, "deleted", s.DeleteBudget(t.Context(), plain(), "acme", "b", 0), quota.ReasonBudgetNotFound)
	_, err = s.PutBudget(t.Context(), plain(), quota.Budget{Account: "acme", ID: "b", Unit: "images", Cap: 1, Window: window.Day}, 0)
	refused(t, "the id again in another unit", err, quota.ReasonResourceInUse)
	_, err = s.PutBudget(t.Context(), plain(), quota.Budget{Account: "acme", ID: "b", Cap: 1, Window: window.Day}, 7)
	refused(t, "an etag of nothing", err, quota.ReasonBudgetNotFound)
}

func exec(t *testing.T, s *relational.Store, sql string, args ...any) {
	t.Helper()
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), sql, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// R50, and I1 at every step.
func TestGrantPaysDebtFirst(t *testing.T) {
	s := open(t)
	account(t, s, "acme", "")
	account(t, s, "team", "acme")
	exec(t, s, `INSERT INTO debts (payer_id, debt) VALUES ('acme', 700)`)
	for _, c := range []struct {
		id                       string
		granted, direct, debtNow int64
	}{{"g1", 500, 500, 200}, {"g2", 500, 200, 0}, {"g3", 500, 0, 0}} {
		g, err := s.CreateGrant(t.Context(), plain(), "team", newGrant(c.id, c.granted))
		if err != nil {
			t.Fatal(err)
		}
		if g.Payer != "acme" || g.Account != "team" || g.Direct != c.direct || g.Available != c.granted-c.direct || !g.Balanced() {
			t.Errorf("%s: %+v", c.id, g)
		}
		pots, debt, err := s.Pots(t.Context(), "acme", now)
		if err != nil || debt != c.debtNow {
			t.Errorf("%s: debt %d, %v; want %d", c.id, debt, err, c.debtNow)
		}
		g.Projected = g.Direct // which only Pots reads; a debt that is paid counts as spent
		if last := pots[len(pots)-1]; !reflect.DeepEqual(last, g) {
			t.Errorf("%s: kept as %+v, answered %+v", c.id, last, g)
		}
	}
	_, err := s.CreateGrant(t.Context(), plain(), "acme", newGrant("g1", 500))
	refused(t, "taken", err, quota.ReasonResourceExists)
	late := newGrant("g4", 500)
	late.Start, late.End = now-2, now
	_, err = s.CreateGrant(t.Context(), plain(), "acme", late)
	refused(t, "expired", err, quota.ReasonRequestInvalid)
	_, err = s.CreateGrant(t.Context(), plain(), "acme", newGrant("g5", 0))
	refused(t, "of nothing", err, quota.ReasonAmountInvalid)
}

func TestVoidGrant(t *testing.T) {
	s := open(t)
	epoch := account(t, s, "acme", "").Epoch
	must[quota.Pot](t)(s.CreateGrant(t.Context(), plain(), "acme", newGrant("g1", 500)))
	exec(t, s, `UPDATE pots SET available = 380, escrowed = 120`)
	g := must[quota.Pot](t)(s.VoidGrant(t.Context(), plain(), "acme", "g1"))
	if !g.Voided || g.Available != 0 || g.Refunded != 380 || g.Escrowed != 120 || !g.Balanced() {
		t.Errorf("voided: %+v", g)
	}
	before := revision(t, s)
	if again := must[quota.Pot](t)(s.VoidGrant(t.Context(), plain(), "acme", "g1")); !reflect.DeepEqual(again, g) || revision(t, s) != before {
		t.Errorf("voided again: %+v, want %+v and no change", again, g)
	}
	if p := must[*quota.Profile](t)(s.Profile(t.Context(), "acme")); p.Payer().Epoch != epoch+1 {
		t.Errorf("epoch %d, want %d", p.Payer().Epoch, epoch+1)
	}
	if pots, _, err := s.Pots(t.Context(), "acme", now); err != nil || len(pots) != 0 {
		t.Errorf("open pots %+v, %v; a voided grant is not open", pots, err)
	}
	_, err := s.VoidGrant(t.Context(), plain(), "acme", "g2")
	refused(t, "unknown", err, quota.ReasonGrantNotFound)
}

func TestStatusAndSubscription(t *testing.T) {
	s := open(t)
	a := account(t, s, "acme", "")
	suspended, rev, err := s.SetStatus(t.Context(), plain(), "acme", quota.AccountSuspended, "unpaid")
	if err != nil || suspended.Status != quota.AccountSuspended || suspended.SuspendReason != "unpaid" || suspended.Epoch != a.Epoch+1 || rev != revision(t, s) {
		t.Errorf("suspended: %+v, %d, %v", suspended, rev, err)
	}
	resumed, _, err := s.SetStatus(t.Context(), plain(), "acme", quota.AccountActive, "paid")
	if err != nil || resumed.Status != quota.AccountActive || resumed.SuspendReason != "" {
		t.Errorf("resumed: %+v, %v", resumed, err)
	}
	_, _, err = s.SetStatus(t.Context(), plain(), "nobody", quota.AccountActive, "")
	refused(t, "unknown", err, quota.ReasonAccountNotFound)
	for range 2 {
		must[authz.Plan](t)(s.PublishPlan(t.Context(), plain(), authz.Plan{ID: "pro"}))
	}
	if a := must[quota.Account](t)(s.Subscribe(t.Context(), plain(), "acme", authz.PlanRef{ID: "pro"})); a.Plan.Version != 2 {
		t.Errorf("latest: %+v", a.Plan)
	}
	_, err = s.Subscribe(t.Context(), plain(), "acme", authz.PlanRef{ID: "pro", Version: 3})
	refused(t, "no such version", err, quota.ReasonPlanNotFound)
	if a := must[quota.Account](t)(s.Subscribe(t.Context(), plain(), "acme", authz.PlanRef{})); a.Plan != (authz.PlanRef{}) {
		t.Errorf("ended: %+v", a.Plan)
	}
}

func TestCatalogueChecksWhatIsNamed(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	chat := authz.Feature{ID: "chat", Kind: authz.FeatureMetered, Meters: []string{"input", "output"}}
	chat = must[authz.Feature](t)(s.CreateFeature(ctx, plain(), chat))
	price := func(feature, meter string) quota.RateCard {
		return quota.RateCard{ID: "std", Prices: []quota.Price{{Feature: feature, Meter: meter, Rate: pricing.Rate{PriceMicros: 3, Per: 1000}}}}
	}
	_, err := s.PublishRateCard(ctx, plain(), price("nothing", "input"))
	refused(t, "price of no feature", err, quota.ReasonFeatureNotFound)
	_, err = s.PublishRateCard(ctx, plain(), price("chat", "images"))
	refused(t, "price of no meter", err, quota.ReasonUnitUnknown)
	card := must[quota.RateCard](t)(s.PublishRateCard(ctx, plain(), price("chat", "output")))
	second := must[quota.RateCard](t)(s.PublishRateCard(ctx, plain(), price("chat", "requests")))
	if card.Version != 1 || second.Version != 2 || second.PriceVersion != 2 {
		t.Errorf("versions %d, %d; price version %d", card.Version, second.Version, second.PriceVersion)
	}
	plan := authz.Plan{ID: "pro", DisplayName: "Pro", RateCard: "std", Fallback: []string{"chat"}, Entitlements: []authz.Entitlement{
		{Feature: "chat", Config: "x", Quotas: []authz.Quota{{ID: "q", Meter: "input", Limit: 7, Window: window.Month}}}}}
	for name, c := range map[string]struct {
		edit func(*authz.Plan)
		want quota.Reason
	}{
		"rate card":   {func(p *authz.Plan) { p.RateCard = "none" }, quota.ReasonRateCardNotFound},
		"fallback":    {func(p *authz.Plan) { p.Fallback = []string{"none"} }, quota.ReasonFeatureNotFound},
		"entitlement": {func(p *authz.Plan) { p.Entitlements = []authz.Entitlement{{Feature: "none"}} }, quota.ReasonFeatureNotFound},
		"meter of the quotas": {func(p *authz.Plan) {
			p.Entitlements = []authz.Entitlement{{Feature: "chat", Quotas: []authz.Quota{{Meter: "none"}}}}
		}, quota.ReasonUnitUnknown},
	} {
		bad := plan
		c.edit(&bad)
		_, err := s.PublishPlan(ctx, plain(), bad)
		refused(t, "unknown "+name, err, c.want)
	}
	plan = must[authz.Plan](t)(s.PublishPlan(ctx, plain(), plan))
	cat := must[*quota.Catalogue](t)(s.Catalogue(ctx))
	if got, ok := cat.Plan(authz.PlanRef{ID: "pro", Version: 1}); !ok || !reflect.DeepEqual(*got, plan) {
		t.Errorf("plan read back as %+v, want %+v", got, plan)
	}
	if got := cat.Features["chat"]; !reflect.DeepEqual(*got, chat) {
		t.Errorf("feature read back as %+v, want %+v", got, chat)
	}
	if r, ok := cat.Rate(1, "chat", "output"); !ok || r != (pricing.Rate{PriceMicros: 3, Per: 1000}) {
		t.Errorf("rate read back as %+v, %t", r, ok)
	}
	fewer := chat
	fewer.Meters = []string{"input"}
	_, err = s.UpdateFeature(ctx, plain(), fewer, 0)
	refused(t, "a priced meter goes", err, quota.ReasonResourceInUse)
	fewer.Meters = []string{"output"}
	_, err = s.UpdateFeature(ctx, plain(), fewer, 0)
	refused(t, "a meter with a quota goes", err, quota.ReasonResourceInUse)
	refused(t, "delete in use", s.DeleteFeature(ctx, plain(), "chat", 0), quota.ReasonResourceInUse)
	free := must[authz.Feature](t)(s.CreateFeature(ctx, plain(), authz.Feature{ID: "free", Kind: authz.FeatureBoolean}))
	refused(t, "delete with a stale etag", s.DeleteFeature(ctx, plain(), "free", free.Revision+1), quota.ReasonETagMismatch)
	if err := s.DeleteFeature(ctx, plain(), "free", free.Revision); err != nil {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	k := authz.Key{ID: "k1", Hash: authz.HashSecret("s"), Role: authz.RoleAdmin, Principal: "ops", ExpireTime: now + 10}
	_, err := s.CreateKey(ctx, plain(), authz.Key{ID: "k0", Account: "nobody"})
	refused(t, "bound to no account", err, quota.ReasonAccountNotFound)
	k = must[authz.Key](t)(s.CreateKey(ctx, plain(), k))
	if got := must[authz.Key](t)(s.FindKey(ctx, "k1")); !reflect.DeepEqual(got, k) {
		t.Errorf("read back as %+v, want %+v", got, k)
	}
	if !must[bool](t)(s.HasAdminKey(ctx, now)) || must[bool](t)(s.HasAdminKey(ctx, now+10)) {
		t.Error("an admin key counts until it expires")
	}
	revoked := must[authz.Key](t)(s.RevokeKey(ctx, plain(), "k1"))
	if again := must[authz.Key](t)(s.RevokeKey(ctx, plain(), "k1")); revoked.RevokeTime != now || !reflect.DeepEqual(again, revoked) {
		t.Errorf("revoked: %+v, then %+v", revoked, again)
	}
	if must[bool](t)(s.HasAdminKey(ctx, now)) {
		t.Error("a revoked key counts")
	}
	_, err = s.FindKey(ctx, "k2")
	refused(t, "unknown", err, quota.ReasonKeyNotFound)
}

func TestFirstMACKeyIsOne(t *testing.T) {
	s := open(t)
	const nodes = 6
	keys, errs := make([][]quota.MACKey, nodes), make([]error, nodes)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() { keys[i], errs[i] = s.MACKeys(t.Context(), [32]byte{byte(i + 1)}, now) })
	}
	wg.Wait()
	for i := range nodes {
		if errs[i] != nil || len(keys[i]) != 1 || keys[i][0] != keys[0][0] || keys[i][0].SignFrom != now {
			t.Errorf("node %d: %+v, %v", i, keys[i], errs[i])
		}
	}
}

func TestUsagePagesAreStable(t *testing.T) {
	s := open(t)
	for i, at := range []int64{50, 10, 50, 30, 50, 20} {
		exec(t, s, `INSERT INTO usage_events (lane_id, sequence, phase, account_id, payer_id, principal, feature, labels, price_version,
usage, charged, covered, uncovered, grants, outcome, reserve_time, settle_time, nonce)
VALUES ($1, $2, 0, 'acme', 'acme', 'p', 'chat', '{"team":"a"}', 1, '[{"meter":"m","quantity":4,"micros":9}]', 9, 9, 0,
'[{"grant":"g","micros":9}]', 1, 1, $3, 7)`, int64(i%2)-5, int64(i), at)
		exec(t, s, `INSERT INTO rollups (account_id, hour, feature, meter, quantity, micros, events) VALUES ('acme', $1, 'chat', $2, 1, 2, 3)`,
			at, fmt.Sprint(i))
	}
	for _, q := range []quota.UsageQuery{{}, {Account: "acme"}, {Account: "acme", Feature: "chat", From: 10, To: 51}} {
		var got []quota.EntryKey
		var times []int64
		for after, more := "", true; more; more = after != "" {
			events, next, err := s.UsageEvents(t.Context(), q, quota.Page{After: after, Size: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				got, times = append(got, e.Key), append(times, e.SettledAt)
			}
			after = next
		}
		want := []quota.EntryKey{{Lane: -4, Sequence: 1}, {Lane: -4, Sequence: 5}, {Lane: -4, Sequence: 3}, {Lane: -5, Sequence: 0}, {Lane: -5, Sequence: 2}, {Lane: -5, Sequence: 4}}
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(times, []int64{10, 20, 30, 50, 50, 50}) {
			t.Errorf("%+v: got %v at %v, want %v", q, got, times, want)
		}
		n := 0
		for after, more := "", true; more; more = after != "" {
			rollups, next, err := s.Rollups(t.Context(), q, quota.Page{After: after, Size: 4})
			if err != nil {
				t.Fatal(err)
			}
			n, after = n+len(rollups), next
		}
		if n != 6 {
			t.Errorf("%+v: %d rollups, want 6", q, n)
		}
	}
	if events, _, err := s.UsageEvents(t.Context(), quota.UsageQuery{From: 20, To: 50}, quota.Page{Size: 9}); err != nil || len(events) != 2 {
		t.Errorf("a stretch of time: %d events, %v; want 2", len(events), err)
	}
	_, _, err := s.UsageEvents(t.Context(), quota.UsageQuery{}, quota.Page{Size: 1, After: "%"})
	refused(t, "a page token that is none", err, quota.ReasonRequestInvalid)
}
