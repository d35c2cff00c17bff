package manifest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/examples"
)

func TestParseExample(t *testing.T) {
	m, err := Parse("catalog.yaml", examples.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Features) != 3 || len(m.RateCards) != 2 || len(m.Plans) != 3 || len(m.Accounts) != 7 || len(m.Keys) != 3 {
		t.Fatalf("counts = %d %d %d %d %d", len(m.Features), len(m.RateCards), len(m.Plans), len(m.Accounts), len(m.Keys))
	}
	acme := m.Accounts[0]
	if acme.ID != "acme" || acme.Plan != "enterprise" {
		t.Errorf("acme = %+v", acme)
	}
	if g := m.Grants[1]; g.Account != "acme" || g.Micros != 20_000_000_000 {
		t.Errorf("grant = %+v", g)
	}
	if b := m.Budgets[0]; b.Account != "acme" || b.Cap != 25_000_000 || b.LabelKey != "user" || b.LabelValue != "" || b.Enforcement != "HARD" || b.Window != "DAY" {
		t.Errorf("budget = %+v", b)
	}
	if b := m.Budgets[1]; b.LabelKey != "team" || b.LabelValue != "support" || b.Enforcement != "SOFT" || b.WarnPercent != 80 {
		t.Errorf("budget = %+v", b)
	}
	if p := m.RateCards[0].Prices[2]; p.Micros != 15_000 || p.Per != 1000 || p.Meter != "input_tokens" {
		t.Errorf("price = %+v", p)
	}
	if free := m.Plans[0]; len(free.Rates) != 1 || free.Rates[0] != (Rate{ID: "per-user", Meter: "requests", Label: "user", Limit: 300, Per: Duration(time.Minute)}) ||
		len(free.Concurrency) != 1 || free.Concurrency[0] != (Concurrency{ID: "streams", Limit: 500}) {
		t.Errorf("limits of free = %+v", free.Limits)
	}
	if r := m.Plans[1].Entitlements[0].Rates; len(r) != 1 || r[0].Meter != "output_tokens" || r[0].Limit != 20_000_000 || r[0].Burst != 0 {
		t.Errorf("rates of pro = %+v", r)
	}
	if k := m.Keys[1]; k.Account != "acme" || k.Labels["region"] != "us-east" {
		t.Errorf("key = %+v", k)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"empty":           {"", "f: the file is empty"},
		"not yaml":        {"features: [", "f: "},
		"two documents":   {"features: []\n---\nplans: []\n", "second one"},
		"not a mapping":   {"- a\n", "f:1:1: want a mapping"},
		"unknown key":     {"features:\n  - id: a\n    meter: [b]\n", `f:3:5: unknown key "meter", want one of description`},
		"unknown section": {"plan: []\n", `f:1:1: unknown key "plan"`},
		"twice":           {"features:\n  - id: a\n    id: b\n", "f:"},
		"missing":         {"features:\n  - kind: METERED\n", `f:2:5: the key "id" is missing`},
		"not a list":      {"features: {}\n", "f:1:11: want a list"},
		"id":              {"features:\n  - id: A b\n", `f:2:9: "A b" is not an id`},
		"enum":            {"features:\n  - {id: a, kind: METER}\n", `f:2:19: "METER" is not one of BOOLEAN`},
		"seven decimals":  {price("0.0000001"), "more than six decimals"},
		"exponent":        {price("1e3"), "only digits"},
		"negative":        {price("-1"), "out of range"},
		"absurd":          {price("99999999999"), "out of range"},
		"per 0":           {price("1, per: 0"), `"0" is not a whole number from 1`},
		"time":            {"rate_cards:\n  - {id: a, effective_time: soon, prices: []}\n", `"soon" is not a time`},
		"time zone":       {"accounts:\n  - {id: a, time_zone: Mars/Olympus}\n", `f:2:24: "Mars/Olympus" is not a time zone`},
		"grant of 0":      {"accounts:\n  - {id: a, grants: [{id: g, credits: 0}]}\n", "f:2:39: 0 credits are out of range"},
		"budget of both":  {"accounts:\n  - {id: a, budgets: [{id: b, credits: 1, cap: 2, window: DAY}]}\n", "needs either credits"},
		"budget of none":  {"accounts:\n  - {id: a, budgets: [{id: b, window: DAY}]}\n", "needs either credits"},
		"budget, no unit": {"accounts:\n  - {id: a, budgets: [{id: b, cap: 3, window: DAY}]}\n", "needs either credits"},
		"rate of 0":       {plan("rates: [{id: r, limit: 0, per: 1s}]"), `"0" is not a whole number from 1`},
		"rate for ever":   {plan("rates: [{id: r, limit: 1}]"), `the key "per" is missing`},
		"rate each day":   {plan("rates: [{id: r, limit: 1, per: 24h}]"), `"24h" is not a duration from 1s to 1h0m0s`},
		"rate, no unit":   {plan("rates: [{id: r, limit: 1, per: 60}]"), `"60" is not a duration`},
		"rate label":      {plan("rates: [{id: r, limit: 1, per: 1m, label: 'user=ann'}]"), `label "user=ann"`},
		"streams":         {plan("concurrency: [{id: c, limit: 1000001}]"), "is not a whole number from 1 to 1000000"},
		"selector":        {"accounts:\n  - {id: a, budgets: [{id: b, credits: 1, window: DAY, label: 'Team=x'}]}\n", `label "Team"`},
		"grant alone":     {"grants:\n  - {id: g, credits: 1}\n", `f:2:5: the key "account" is missing`},
		"account twice":   {"accounts:\n  - {id: a, budgets: [{id: b, account: a, credits: 1, window: DAY}]}\n", `unknown key "account"`},
		"voided":          {"grants:\n  - {id: g, account: a, credits: 1, voided: yes}\n", `"yes" is not true or false`},
		"labels":          {"keys:\n  - {principal: p, role: GATE, labels: {A: b}}\n", `label "A"`},
	} {
		if _, err := Parse("f", []byte(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want it to contain %q", name, err, c.want)
		}
	}
}

// TestWrittenIsRead: what is written of a file is the file again, with what a server says of it
// passed over.
func TestWrittenIsRead(t *testing.T) {
	m, err := Parse("catalog.yaml", examples.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	m.Features[0].Status = map[string]any{"anything": []int{1}}
	m.Grants[0].Voided, m.Keys[0].Revoked = true, true
	var written strings.Builder
	if err := document.YAML(&written, m); err != nil {
		t.Fatal(err)
	}
	again, err := Parse("catalog.yaml", []byte(written.String()))
	if err != nil {
		t.Fatalf("%v\n%s", err, written.String())
	}
	m.Features[0].Status = nil
	var before, after strings.Builder
	if err := errors.Join(document.JSON(&before, m), document.JSON(&after, again)); err != nil {
		t.Fatal(err)
	}
	if before.String() != after.String() || !again.Grants[0].Voided || !again.Keys[0].Revoked {
		t.Errorf("read again:\n%s\nwant:\n%s", after.String(), before.String())
	}
}

func TestParseListsEveryProblem(t *testing.T) {
	_, err := Parse("f", []byte("features:\n  - {id: a, kin: x}\n  - {id: B}\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Fatalf("error = %v, want two lines", err)
	}
}

func plan(limits string) string {
	return "plans:\n  - {id: p, entitlements: [{feature: f, " + limits + "}]}\n"
}

func price(rest string) string {
	return "rate_cards:\n  - {id: a, prices: [{feature: f, meter: m, credits: " + rest + "}]}\n"
}
