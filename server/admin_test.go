package server_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
)

func TestReserveCommitReleaseAndReadItAgain(t *testing.T) {
	w := newWorld(t)
	w.chat(100)
	gate := w.gate("", map[string]string{"team": "search"})

	req := ask(1000, 1000)
	req.IdempotencyKey, req.Labels = "k1", map[string]string{"team": "mine", "user": "bob"}
	got, err := w.gates.CheckAndReserve(gate, req)
	if err != nil || got.GetDecision() != purserv1.Decision_DECISION_ALLOWED || got.GetReservation().GetHeldMicros() != 4_000_000 {
		t.Fatalf("reserve: %v, %v", got, err)
	}
	again, err := w.gates.CheckAndReserve(gate, req)
	if err != nil || !again.GetReplayed() || !proto.Equal(again.GetReservation().GetExpireTime(), got.GetReservation().GetExpireTime()) ||
		again.GetReservation().GetReservationId() != got.GetReservation().GetReservationId() {
		t.Errorf("replay: %v, %v", again, err)
	}
	req.Estimates[0].Quantity++
	_, err = w.gates.CheckAndReserve(gate, req)
	wantReason(t, "the same key with other content", err, quota.ReasonIdempotencyKeyReused)

	token := got.GetReservation().GetToken()
	commit := &purserv1.CommitRequest{Token: token, Outcome: purserv1.Outcome_OUTCOME_SUCCESS,
		Usage: []*purserv1.MeterQuantity{{Meter: "input_tokens", Quantity: 1000}, {Meter: "output_tokens", Quantity: 500}}}
	done, err := w.gates.Commit(gate, commit)
	if err != nil || done.GetChargedMicros() != 2_500_000 || done.GetCoveredMicros() != 2_500_000 || done.GetState() != purserv1.ReservationState_RESERVATION_STATE_COMMITTED {
		t.Fatalf("commit: %v, %v", done, err)
	}
	if done, err = w.gates.Commit(gate, commit); err != nil || !done.GetReplayed() || done.GetChargedMicros() != 2_500_000 {
		t.Errorf("commit again: %v, %v", done, err)
	}
	commit.Usage[1].Quantity = 600
	_, err = w.gates.Commit(gate, commit)
	wantReason(t, "commit with other usage", err, quota.ReasonReservationCommitted)
	_, err = w.gates.Commit(w.with(w.key(authz.Key{Role: authz.RoleGate, Principal: "thief"})), commit)
	wantReason(t, "another's token", err, quota.ReasonCallerNotAllowed)
	commit.Token = append([]byte(nil), token...)
	commit.Token[len(token)/2] ^= 1
	_, err = w.gates.Commit(gate, commit)
	wantReason(t, "tampered token", err, quota.ReasonTokenInvalid)

	if err := w.authority.Quiesce(t.Context()); err != nil {
		t.Fatal(err)
	}
	events, err := w.usage.ListUsageEvents(w.admin, &purserv1.ListUsageEventsRequest{Account: "acme"})
	if err != nil || len(events.GetUsageEvents()) != 1 {
		t.Fatalf("events: %v, %v", events, err)
	}
	e := events.GetUsageEvents()[0]
	if e.GetChargedMicros() != 2_500_000 || e.GetLabels()["team"] != "search" || e.GetLabels()["user"] != "bob" || e.GetPrincipal() != "gateway" ||
		e.GetReservationId() != got.GetReservation().GetReservationId() || len(e.GetGrantUses()) != 1 || e.GetGrantUses()[0].GetGrant() != "welcome" {
		t.Errorf("event %v", e)
	}
	rollups, err := w.usage.GetRollups(w.admin, &purserv1.GetRollupsRequest{Account: "acme", Feature: "chat"})
	sum := int64(0)
	for _, r := range rollups.GetRollups() {
		sum += r.GetChargedMicros()
	}
	if err != nil || sum != 2_500_000 {
		t.Errorf("rollups: %v, %v", rollups, err)
	}
	b, err := w.gates.GetBalance(w.admin, &purserv1.GetBalanceRequest{Account: "acme"})
	if err != nil || b.GetTotalMicros() != 97_500_000 || b.GetPayer() != "acme" || b.GetGrants()[0].GetGrant().GetId() != "welcome" {
		t.Errorf("balance: %v, %v", b, err)
	}
}

func TestAKeyBoundToAnAccount(t *testing.T) {
	w := newWorld(t)
	w.chat(100)
	must(t)(w.accounts.CreateAccount(w.admin, &purserv1.CreateAccountRequest{Id: "other"}))
	gate := w.gate("acme", nil)
	req := ask(1, 1)
	req.Account = ""
	got, err := w.gates.CheckAndReserve(gate, req)
	if err != nil || got.GetDecision() != purserv1.Decision_DECISION_ALLOWED {
		t.Errorf("the account left out: %v, %v", got, err)
	}
	if b, err := w.gates.GetBalance(gate, &purserv1.GetBalanceRequest{}); err != nil || b.GetPayer() != "acme" {
		t.Errorf("balance: %v, %v", b, err)
	}
	req.Account = "other"
	_, err = w.gates.CheckAndReserve(gate, req)
	wantReason(t, "reserve for another", err, quota.ReasonCallerNotAllowed)
	_, err = w.gates.Check(gate, &purserv1.CheckRequest{Account: "other", Candidates: []string{"chat"}})
	wantReason(t, "check another", err, quota.ReasonCallerNotAllowed)
	_, err = w.gates.GetBalance(gate, &purserv1.GetBalanceRequest{Account: "other"})
	wantReason(t, "balance of another", err, quota.ReasonCallerNotAllowed)
	_, err = w.gates.CheckAndReserve(w.gate("", nil), &purserv1.CheckAndReserveRequest{Candidates: []string{"chat"}})
	wantReason(t, "no account at all", err, quota.ReasonRequestInvalid)
}

func TestSuspendWithSyncIsObeyedWhenItReturns(t *testing.T) {
	w := newWorld(t)
	w.chat(100)
	gate := w.gate("", nil)
	held, err := w.gates.CheckAndReserve(gate, ask(10, 10))
	if err != nil || held.GetDecision() != purserv1.Decision_DECISION_ALLOWED {
		t.Fatalf("%v, %v", held, err)
	}
	a, err := w.accounts.SuspendAccount(w.admin, &purserv1.SuspendAccountRequest{Account: "acme", Reason: "unpaid", Sync: true})
	if err != nil || a.GetAccount().GetState() != purserv1.AccountState_ACCOUNT_STATE_SUSPENDED || a.GetAccount().GetSuspendReason() != "unpaid" {
		t.Fatalf("%v, %v", a, err)
	}
	got, err := w.gates.CheckAndReserve(gate, ask(10, 10))
	if err != nil || got.GetDenial().GetReason() != purserv1.DenialReason_DENIAL_REASON_ACCOUNT_SUSPENDED {
		t.Errorf("after the suspension: %v, %v", got, err)
	}
	if _, err := w.gates.Release(gate, &purserv1.ReleaseRequest{Token: held.GetReservation().GetToken()}); err != nil {
		t.Errorf("what was held cannot be settled: %v", err)
	}
	must(t)(w.accounts.ResumeAccount(w.admin, &purserv1.ResumeAccountRequest{Account: "acme"}))
	if got, err = w.gates.CheckAndReserve(gate, ask(10, 10)); err != nil || got.GetDecision() != purserv1.Decision_DECISION_ALLOWED {
		t.Errorf("after it ended: %v, %v", got, err)
	}
}

func TestWritesAreRepeatable(t *testing.T) {
	w := newWorld(t)
	create := &purserv1.CreateAccountRequest{Id: "acme", TimeZone: "Europe/Berlin", RequestId: "r1", ValidateOnly: true}
	must(t)(w.accounts.CreateAccount(w.admin, create))
	_, err := w.accounts.GetAccount(w.admin, &purserv1.GetAccountRequest{Id: "acme"})
	wantReason(t, "validate_only created it", err, quota.ReasonAccountNotFound)

	create.ValidateOnly = false
	first, err := w.accounts.CreateAccount(w.admin, create)
	if err != nil || first.GetAccount().GetTimeZone() != "Europe/Berlin" || first.GetAccount().GetPayer() != "acme" {
		t.Fatalf("%v, %v", first, err)
	}
	second, err := w.accounts.CreateAccount(w.admin, create)
	if err != nil || !proto.Equal(first, second) {
		t.Errorf("the same request again: %v, %v", second, err)
	}
	create.DisplayName = "Acme"
	_, err = w.accounts.CreateAccount(w.admin, create)
	wantReason(t, "other content", err, quota.ReasonIdempotencyKeyReused)
	create.RequestId = "r2"
	_, err = w.accounts.CreateAccount(w.admin, create)
	wantReason(t, "another request", err, quota.ReasonResourceExists)

	// The id is the server's: a repeated request must not make a second grant.
	grant := &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 5, Kind: purserv1.GrantKind_GRANT_KIND_REFUND, RequestId: "g1"}
	one, err := w.accounts.CreateGrant(w.admin, grant)
	if err != nil || !strings.HasPrefix(one.GetGrant().GetId(), "gr-") {
		t.Fatalf("%v, %v", one, err)
	}
	two, err := w.accounts.CreateGrant(w.admin, grant)
	list, _ := w.accounts.ListGrants(w.admin, &purserv1.ListGrantsRequest{Account: "acme"})
	if err != nil || !proto.Equal(one, two) || len(list.GetGrants()) != 1 {
		t.Errorf("the same grant again: %v, %v; there are %d", two, err, len(list.GetGrants()))
	}
}

func TestUpdatesChangeWhatTheMaskNames(t *testing.T) {
	w := newWorld(t)
	made, err := w.accounts.CreateAccount(w.admin, &purserv1.CreateAccountRequest{Id: "acme", DisplayName: "Acme", TimeZone: "Asia/Tokyo"})
	if err != nil {
		t.Fatal(err)
	}
	up, err := w.accounts.UpdateAccount(w.admin, &purserv1.UpdateAccountRequest{Id: "acme", DisplayName: "New", TimeZone: "UTC",
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}}, Etag: made.GetAccount().GetEtag()})
	if err != nil || up.GetAccount().GetDisplayName() != "New" || up.GetAccount().GetTimeZone() != "Asia/Tokyo" {
		t.Fatalf("%v, %v", up, err)
	}
	stale := &purserv1.UpdateAccountRequest{Id: "acme", UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"display_name"}}, Etag: made.GetAccount().GetEtag()}
	_, err = w.accounts.UpdateAccount(w.admin, stale)
	wantReason(t, "a stale etag", err, quota.ReasonETagMismatch)
	stale.Etag = "nonsense"
	_, err = w.accounts.UpdateAccount(w.admin, stale)
	wantReason(t, "no etag", err, quota.ReasonRequestInvalid)
	stale.Etag, stale.UpdateMask.Paths = "", []string{"time_zone"}
	for _, zone := range []string{"Mars/Olympus", "Local", "../etc/passwd"} {
		stale.TimeZone = zone
		_, err = w.accounts.UpdateAccount(w.admin, stale)
		wantReason(t, "time zone "+zone, err, quota.ReasonRequestInvalid)
	}
	must(t)(w.catalog.CreateFeature(w.admin, &purserv1.CreateFeatureRequest{Id: "chat", Kind: purserv1.FeatureKind_FEATURE_KIND_METERED,
		Description: "talk", Meters: []string{"a"}}))
	f, err := w.catalog.UpdateFeature(w.admin, &purserv1.UpdateFeatureRequest{Id: "chat", Meters: []string{"a", "b"}, Description: "ignored",
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"meters"}}})
	if err != nil || len(f.GetFeature().GetMeters()) != 2 || f.GetFeature().GetDescription() != "talk" {
		t.Errorf("%v, %v", f, err)
	}
}

func TestKeysShowTheirSecretOnce(t *testing.T) {
	w := newWorld(t)
	req := &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_VIEWER, Principal: "auditor", Labels: map[string]string{"team": "fin"},
		ExpireTime: timestamppb.New(time.Now().Add(time.Hour)), RequestId: "r1"}
	dry := proto.Clone(req).(*purserv1.CreateKeyRequest)
	dry.RequestId, dry.ValidateOnly = "", true
	if k, err := w.keys.CreateKey(w.admin, dry); err != nil || k.GetSecret() != "" {
		t.Errorf("validate_only: %v, %v", k, err)
	}
	made, err := w.keys.CreateKey(w.admin, req)
	if err != nil || made.GetSecret() == "" {
		t.Fatalf("%v, %v", made, err)
	}
	again, err := w.keys.CreateKey(w.admin, req)
	if err != nil || again.GetSecret() != "" || again.GetKey().GetId() != made.GetKey().GetId() {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	viewer := w.with(made.GetSecret())
	if _, err := w.accounts.ListAccounts(viewer, &purserv1.ListAccountsRequest{}); err != nil {
		t.Errorf("the key does not work: %v", err)
	}
	revoke := &purserv1.RevokeKeyRequest{Id: made.GetKey().GetId()}
	if k, err := w.keys.RevokeKey(w.admin, revoke); err != nil || k.GetKey().GetRevokeTime() == nil {
		t.Errorf("revoke: %v, %v", k, err)
	}
	_, err = w.accounts.ListAccounts(viewer, &purserv1.ListAccountsRequest{})
	wantReason(t, "a revoked key on the node that revoked it", err, quota.ReasonCredentialsInvalid)
	req.RequestId, req.ExpireTime = "r2", timestamppb.New(time.Now().Add(-time.Hour))
	_, err = w.keys.CreateKey(w.admin, req)
	wantReason(t, "a key that has expired", err, quota.ReasonRequestInvalid)
}

func TestListsPage(t *testing.T) {
	w := newWorld(t)
	w.chat(1)
	for i := range 4 {
		must(t)(w.accounts.CreateAccount(w.admin, &purserv1.CreateAccountRequest{Id: "acme-" + strconv.Itoa(i), Parent: "acme"}))
		must(t)(w.accounts.PutBudget(w.admin, &purserv1.PutBudgetRequest{Account: "acme", Id: "b" + strconv.Itoa(i), Cap: 5,
			Window: purserv1.Window_WINDOW_DAY, Enforcement: purserv1.Enforcement_ENFORCEMENT_SOFT, Selector: &purserv1.Selector{LabelKey: "team"}}))
		must(t)(w.accounts.CreateGrant(w.admin, &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 5, Kind: purserv1.GrantKind_GRANT_KIND_PLAN}))
		must(t)(w.catalog.CreateFeature(w.admin, &purserv1.CreateFeatureRequest{Id: "f" + strconv.Itoa(i), Kind: purserv1.FeatureKind_FEATURE_KIND_BOOLEAN}))
		must(t)(w.catalog.PublishPlanVersion(w.admin, &purserv1.PublishPlanVersionRequest{Plan: "p" + strconv.Itoa(i/2)}))
		must(t)(w.catalog.PublishRateCard(w.admin, &purserv1.PublishRateCardRequest{Id: "standard", Prices: []*purserv1.Price{
			{Feature: "chat", Meter: "requests", PriceMicros: 1, Per: 1}}}))
		w.key(authz.Key{Role: authz.RoleGate, Principal: "gw"})
	}
	lists := map[string]struct {
		want int
		page func(token string) (ids []string, next string, err error)
	}{
		"accounts": {5, func(p string) (ids []string, _ string, _ error) {
			r, err := w.accounts.ListAccounts(w.admin, &purserv1.ListAccountsRequest{PageSize: 2, PageToken: p})
			for _, a := range r.GetAccounts() {
				ids = append(ids, a.GetId())
			}
			return ids, r.GetNextPageToken(), err
		}},
		"budgets": {4, func(p string) (ids []string, _ string, _ error) {
			r, err := w.accounts.ListBudgets(w.admin, &purserv1.ListBudgetsRequest{Account: "acme", PageSize: 2, PageToken: p})
			for _, b := range r.GetBudgets() {
				ids = append(ids, b.GetId())
			}
			return ids, r.GetNextPageToken(), err
		}},
		"grants": {5, func(p string) (ids []string, _ string, _ error) {
			r, err := w.accounts.ListGrants(w.admin, &purserv1.ListGrantsRequest{Account: "acme", PageSize: 2, PageToken: p})
			for _, g := range r.GetGrants() {
				ids = append(ids, g.GetId())
			}
			return ids, r.GetNextPageToken(), err
		}},
		"features": {5, func(p string) (ids []string, _ string, _ error) {
			r, err := w.catalog.ListFeatures(w.admin, &purserv1.ListFeaturesRequest{PageSize: 2, PageToken: p})
			for _, f := range r.GetFeatures() {
				ids = append(ids, f.GetId())
			}
			return ids, r.GetNextPageToken(), err
		}},
		"plans": {3, func(p string) (ids []string, _ string, _ error) {
			r, err := w.catalog.ListPlans(w.admin, &purserv1.ListPlansRequest{PageSize: 2, PageToken: p})
			for _, v := range r.GetPlanVersions() {
				ids = append(ids, v.GetPlan())
			}
			return ids, r.GetNextPageToken(), err
		}},
		"rate cards": {5, func(p string) (ids []string, _ string, _ error) {
			r, err := w.catalog.ListRateCards(w.admin, &purserv1.ListRateCardsRequest{PageSize: 2, PageToken: p})
			for _, c := range r.GetRateCards() {
				ids = append(ids, c.GetId()+strconv.Itoa(int(c.GetVersion())))
			}
			return ids, r.GetNextPageToken(), err
		}},
		"keys": {5, func(p string) (ids []string, _ string, _ error) {
			r, err := w.keys.ListKeys(w.admin, &purserv1.ListKeysRequest{PageSize: 2, PageToken: p})
			for _, k := range r.GetKeys() {
				ids = append(ids, k.GetId())
			}
			return ids, r.GetNextPageToken(), err
		}},
	}
	for name, l := range lists {
		seen, token, last := 0, "", ""
		for {
			ids, next, err := l.page(token)
			if err != nil || len(ids) == 0 || len(ids) > 2 {
				t.Fatalf("%s: page %v, %v", name, ids, err)
			}
			for _, id := range ids {
				if id <= last {
					t.Errorf("%s: %q comes after %q", name, id, last)
				}
				last, seen = id, seen+1
			}
			if token = next; token == "" {
				break
			}
		}
		if seen != l.want {
			t.Errorf("%s: %d of %d were listed", name, seen, l.want)
		}
	}
}

func TestTheCatalogueIsReadBack(t *testing.T) {
	w := newWorld(t)
	w.chat(1)
	later := time.Now().Add(time.Hour).Truncate(time.Microsecond)
	must(t)(w.catalog.PublishRateCard(w.admin, &purserv1.PublishRateCardRequest{Id: "standard", EffectiveTime: timestamppb.New(later),
		Prices: []*purserv1.Price{{Feature: "chat", Meter: "input_tokens", PriceMicros: 7, Per: 10}}}))
	now, err := w.catalog.GetRateCard(w.admin, &purserv1.GetRateCardRequest{Id: "standard"})
	if err != nil || now.GetRateCard().GetVersion() != 1 {
		t.Errorf("in force: %v, %v", now, err)
	}
	v2, err := w.catalog.GetRateCard(w.admin, &purserv1.GetRateCardRequest{Id: "standard", Version: 2})
	if err != nil || v2.GetRateCard().GetPrices()[0].GetPer() != 10 || !v2.GetRateCard().GetEffectiveTime().AsTime().Equal(later) {
		t.Errorf("version 2: %v, %v", v2, err)
	}
	_, err = w.catalog.GetRateCard(w.admin, &purserv1.GetRateCardRequest{Id: "standard", Version: 3})
	wantReason(t, "version 3", err, quota.ReasonRateCardNotFound)

	pub := &purserv1.PublishPlanVersionRequest{Plan: "pro", DisplayName: "Pro", RateCard: "standard", Fallback: []string{"chat"},
		Entitlements: []*purserv1.Entitlement{{Feature: "chat", Quotas: []*purserv1.Quota{
			{Id: "daily", Meter: "requests", Limit: 5, Window: purserv1.Window_WINDOW_DAY}, {Id: "weekly", Meter: "output_tokens", Limit: 6, Window: purserv1.Window_WINDOW_WEEK}}}}}
	must(t)(w.catalog.PublishPlanVersion(w.admin, pub))
	plan, err := w.catalog.GetPlan(w.admin, &purserv1.GetPlanRequest{Plan: "pro"})
	if err != nil || plan.GetPlanVersion().GetVersion() != 2 || !proto.Equal(plan.GetPlanVersion().GetEntitlements()[0], pub.Entitlements[0]) ||
		plan.GetPlanVersion().GetFallback()[0] != "chat" {
		t.Errorf("plan: %v, %v", plan, err)
	}
	old, err := w.catalog.GetPlanVersion(w.admin, &purserv1.GetPlanVersionRequest{Plan: "pro", Version: 1})
	if err != nil || len(old.GetPlanVersion().GetEntitlements()[0].GetQuotas()) != 0 {
		t.Errorf("version 1: %v, %v", old, err)
	}
	pub.Entitlements[0].Quotas[1].Id = "daily"
	_, err = w.catalog.PublishPlanVersion(w.admin, pub)
	wantReason(t, "a quota id twice", err, quota.ReasonRequestInvalid)
	_, err = w.catalog.DeleteFeature(w.admin, &purserv1.DeleteFeatureRequest{Id: "chat"})
	wantReason(t, "a feature in use", err, quota.ReasonResourceInUse)
	_, err = w.catalog.GetPlan(w.admin, &purserv1.GetPlanRequest{Plan: "none"})
	wantReason(t, "no plan", err, quota.ReasonPlanNotFound)
	_, err = w.accounts.SetSubscription(w.admin, &purserv1.SetSubscriptionRequest{Account: "acme", Version: 1})
	wantReason(t, "a version of no plan", err, quota.ReasonRequestInvalid)
}

func TestBadAmountsOfAdmins(t *testing.T) {
	w := newWorld(t)
	w.chat(1)
	for _, micros := range []int64{0, -1, 1<<53 + 1, -1 << 63} {
		_, err := w.accounts.CreateGrant(w.admin, &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: micros, Kind: purserv1.GrantKind_GRANT_KIND_PLAN})
		wantReason(t, "grant of "+strconv.FormatInt(micros, 10), err, quota.ReasonAmountInvalid)
	}
	past := timestamppb.New(time.Now().Add(-time.Hour))
	_, err := w.accounts.CreateGrant(w.admin, &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 5, Kind: purserv1.GrantKind_GRANT_KIND_PLAN, ExpireTime: past})
	wantReason(t, "a grant that has expired", err, quota.ReasonRequestInvalid)
	_, err = w.accounts.PutBudget(w.admin, &purserv1.PutBudgetRequest{Account: "acme", Id: "b", Cap: 1, Window: 9, Enforcement: 1})
	wantReason(t, "an unknown window", err, quota.ReasonRequestInvalid)
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v", err)
	}
}
