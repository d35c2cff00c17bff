package authority

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

func TestRequestFromAPI(t *testing.T) {
	r, err := fromAPICheckAndReserve("acme", &purserv1.CheckAndReserveRequest{
		IdempotencyKey: "k", Candidates: []string{"large", "small"},
		Estimates: []*purserv1.Estimate{{Meter: "in", Quantity: 7}, {Meter: "out", Quantity: 9, MinQuantity: proto.Int64(0)}},
		Labels:    map[string]string{"team": "search"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Account != "acme" || r.Key != "k" || r.TTL != 0 || len(r.Candidates) != 2 {
		t.Errorf("request %+v", r)
	}
	// A minimum of 0 makes a meter flexible; none does not.
	if want := (quota.Estimate{Meter: "in", Quantity: 7}); r.Estimates[0] != want {
		t.Errorf("estimate %+v", r.Estimates[0])
	}
	if want := (quota.Estimate{Meter: "out", Quantity: 9, Flexible: true}); r.Estimates[1] != want {
		t.Errorf("estimate %+v", r.Estimates[1])
	}
	if team, _ := r.Labels.Get("team"); team != "search" {
		t.Errorf("labels %v", r.Labels)
	}
}

func TestReservationToAPI(t *testing.T) {
	r := &quota.Request{Account: "acme", Candidates: []string{"large"}}
	out := toAPICheckAndReserve(r, &quota.Decision{
		Allowed: true, Replayed: true, Token: []byte("t"), Lane: 3, Sequence: 4, Nonce: 5, Feature: "large",
		Granted: []quota.Quantity{{Meter: "out", Quantity: 8}}, Held: 100, ExpiresAt: int64(time.Hour), PriceVersion: 2,
		Partial: true, Exhausted: true,
		Remaining: []quota.Remaining{{Level: quota.Level{Kind: quota.PotWallet, Account: "acme"}, Amount: -3}},
		Warnings: []quota.Warning{
			{Level: quota.Level{Kind: quota.PotBudget, Account: "acme", Limit: "day"}, Used: 9, Cap: 10}, {Level: quota.Level{Kind: quota.PotBudget, Account: "acme", Limit: "month"}, Used: 11, Cap: 10}},
	})
	res := out.GetReservation()
	if out.GetDecision() != purserv1.Decision_DECISION_ALLOWED || out.GetDenial() != nil || !out.GetReplayed() {
		t.Errorf("answer %v", out)
	}
	if string(res.GetToken()) != "t" || res.GetReservationId() != token.ReservationID(3, 4, 5) || res.GetHeldMicros() != 100 ||
		res.GetExpireTime().AsTime() != time.Unix(3600, 0).UTC() || !res.GetPartial() || !res.GetExhausted() || res.GetPriceVersion() != 2 {
		t.Errorf("reservation %v", res)
	}
	if rem := res.GetRemaining()[0]; rem.GetAmount() != 0 || rem.GetLevel().GetKind() != purserv1.LevelKind_LEVEL_KIND_WALLET {
		t.Errorf("remaining %v", rem)
	}
	if w := out.GetWarnings(); w[0].GetReason() != purserv1.WarningReason_WARNING_REASON_NEAR_CAP ||
		w[1].GetReason() != purserv1.WarningReason_WARNING_REASON_OVER_CAP || w[1].GetTaken() != 11 {
		t.Errorf("warnings %v", w)
	}
}

func TestDenialToAPI(t *testing.T) {
	budget := quota.Level{Kind: quota.PotBudget, LabelKey: "team", Account: "acme", Limit: "team-daily", Selector: "search"}
	rpm := quota.Level{Account: "acme", Limit: "rpm", Unit: "requests"}
	cases := []struct {
		denial                        quota.Denial
		kind                          purserv1.DenialKind
		level                         purserv1.LevelKind
		feature, account, unit, words string
	}{
		{quota.Denial{Reason: quota.DeniedAccountUnknown, Subject: "acme"}, 1, 0, "", "acme", "", "account acme does not exist"},
		{quota.Denial{Reason: quota.DeniedAccountSuspended, Subject: "root"}, 1, 0, "", "root", "", "account root is suspended"},
		{quota.Denial{Reason: quota.DeniedFeatureUnknown, Subject: "lrage"}, 1, 0, "lrage", "acme", "", "feature lrage does not exist"},
		{quota.Denial{Reason: quota.DeniedNotEntitled}, 1, 0, "large", "acme", "", "the plan of account acme does not include feature large"},
		{quota.Denial{Reason: quota.DeniedNoPrice, Subject: "out"}, 1, 0, "large", "acme", "out", "meter out of feature large has no price"},
		{quota.Denial{Reason: quota.DeniedRate, Level: rpm, RetryIn: time.Second, Transient: true}, 2, purserv1.LevelKind_LEVEL_KIND_RATE,
			"large", "acme", "requests", "rate limit rpm of account acme is reached; try again in 1s"},
		{quota.Denial{Reason: quota.DeniedRate, Level: rpm}, 1, purserv1.LevelKind_LEVEL_KIND_RATE, "large", "acme", "requests",
			"the request asks for more requests than rate limit rpm of account acme lets through at once"},
		{quota.Denial{Reason: quota.DeniedConcurrency, Level: rpm, RetryIn: time.Second, Transient: true}, 2,
			purserv1.LevelKind_LEVEL_KIND_CONCURRENCY, "large", "acme", "requests",
			"account acme has as many live reservations as limit rpm allows; try again in 1s"},
		{quota.Denial{Reason: quota.DeniedQuota, Level: quota.Level{Kind: quota.PotQuota, Account: "acme", Limit: "daily", Unit: "requests"}, RetryIn: 90 * time.Minute},
			1, purserv1.LevelKind_LEVEL_KIND_QUOTA, "large", "acme", "requests", "quota daily of account acme is used up; try again in 1h30m0s"},
		{quota.Denial{Reason: quota.DeniedBudget, Level: budget}, 1, purserv1.LevelKind_LEVEL_KIND_BUDGET, "large", "acme", "",
			"budget team-daily of account acme is used up"},
		{quota.Denial{Reason: quota.DeniedCredits, Level: quota.Level{Kind: quota.PotWallet, Account: "root"}, Transient: true, RetryIn: time.Second}, 2,
			purserv1.LevelKind_LEVEL_KIND_WALLET, "large", "root", "", "account root has not enough credits; try again in 1s"},
	}
	r := &quota.Request{Account: "acme", Candidates: []string{"large", "small"}}
	for _, c := range cases {
		out := toAPICheckAndReserve(r, &quota.Decision{Denial: c.denial})
		d := out.GetDenial()
		if out.GetDecision() != purserv1.Decision_DECISION_DENIED || out.GetReservation() != nil {
			t.Errorf("%v: answer %v", c.denial.Reason, out)
		}
		if d.GetKind() != c.kind || d.GetLevel().GetKind() != c.level || d.GetFeature() != c.feature ||
			d.GetLevel().GetAccount() != c.account || d.GetUnit() != c.unit || d.GetMessage() != c.words {
			t.Errorf("%v: %v", c.denial.Reason, d)
		}
		if (d.GetRetryAfter() != nil) != (c.denial.RetryIn > 0) {
			t.Errorf("%v: retry after %v", c.denial.Reason, d.GetRetryAfter())
		}
	}
}

func TestBalanceNamesOnlyBudgetsOfTheChain(t *testing.T) {
	p := &quota.Profile{
		Chain:   []quota.Account{{ID: "team"}, {ID: "acme"}},
		Budgets: [][]quota.Budget{{{Account: "team", ID: "day", LabelKey: "user"}}, {{Account: "acme", ID: "day"}}},
	}
	b := &quota.Balance{
		Payer: "acme", Total: 5,
		Grants: []quota.Pot{{ID: "g/late", Start: 2, End: quota.Never, Granted: 9}, {ID: "g/soon", Start: 1, End: 50, Escrowed: 4, Spent: 1, Direct: 2, Projected: 6}},
		Windows: []quota.Pot{
			{Kind: quota.PotBudget, Account: "team", Limit: "day", Selector: "bob", Start: 5, End: 6, Spent: 3, Escrowed: 9, Projected: 4},
			{Kind: quota.PotBudget, Account: "acme", Limit: "day", Start: 0, End: quota.Never},
			{Kind: quota.PotBudget, Account: "acme", Limit: "deleted"},
			{Kind: quota.PotBudget, Account: "sibling", Limit: "day"},
			{Kind: quota.PotQuota, Account: "acme", Limit: "day"},
		},
	}
	out := toAPIBalance(b, p)
	if g := out.GetGrants(); len(g) != 2 || g[0].GetGrant().GetId() != "soon" || g[0].GetSpentMicros() != 6 || g[0].GetEscrowedMicros() != 1 || g[1].GetGrant().GetId() != "late" {
		t.Errorf("grants %v", g)
	}
	if g := b.Grants[0].ID; g != "g/late" {
		t.Error("the balance was sorted in place")
	}
	w := out.GetBudgets()
	if len(w) != 2 || w[0].GetLabelValue() != "bob" || w[0].GetTaken() != 4 || w[1].GetBudget().GetAccount() != "acme" || w[1].GetEndTime() != nil {
		t.Errorf("budgets %v", w)
	}
}
