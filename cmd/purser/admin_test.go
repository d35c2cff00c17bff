package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/purser-io/purser/examples"
)

var update = flag.Bool("update", false, "write the outputs in testdata anew")

// office is a server with the example catalogue, and an admin to ask it.
type office struct {
	t         *testing.T
	address   string
	keyFile   string // the admin's
	secrets   string // folder of the keys of the catalogue
	catalogue string // file
}

func openOffice(t *testing.T) *office {
	t.Helper()
	_, address, keyFile := serve(t, sqliteStore(t), "--max-hold=60s", "--drain-for=0s")
	o := &office{t: t, address: address, keyFile: keyFile, secrets: t.TempDir(), catalogue: writeFile(t, "catalog.yaml", string(examples.Catalog))}
	o.must("apply", "-f", o.catalogue, "--secrets-dir", o.secrets)
	return o
}

// with adds the connection to a command.
func (o *office) with(args ...string) []string {
	return append(args, "--server", o.address, "--key-file", o.keyFile)
}

func (o *office) must(args ...string) string {
	o.t.Helper()
	return must(o.t, o.with(args...)...)
}

func (o *office) fails(code int, want []string, args ...string) {
	o.t.Helper()
	fails(o.t, code, want, o.with(args...)...)
}

// golden compares an output with a file of testdata, but for what differs from run to run.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = steady(got)
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s\n(go test ./cmd/purser -run %s -update writes it anew)", path, got, want, t.Name())
	}
}

// steady replaces times, ages, and ids that the server chose.
func steady(s string) string {
	for _, r := range []struct{ form, by string }{
		{`20[2-9][4-9]-\d\d-\d\dT[0-9:.]+Z`, "TIME"},
		{`\b[0-9a-f]{16}\b`, "KEYID"},
		{`in (\d+h)?(\d+m)?[\d.]+s\b`, "in DURATION"}, // until a window ends
		{` \d+[smhd]\n`, " AGE\n"},
		{` \d+[smhd] +`, " AGE "},
		{`[A-Za-z0-9_-]{100,}`, "TOKEN"},
		{`\b[A-Za-z0-9_-]{32}\b`, "RESERVATION"},
	} {
		s = regexp.MustCompile(r.form).ReplaceAllString(s, r.by)
	}
	return s
}

func TestGet(t *testing.T) {
	o := openOffice(t)
	for name, args := range map[string][]string{
		"features":        {"get", "features"},
		"plans-wide":      {"get", "p", "-o", "wide"},
		"ratecards":       {"get", "ratecards"},
		"accounts":        {"get", "ACCOUNTS", "-o=table"},
		"account-yaml":    {"get", "account", "acme", "globex", "-o", "yaml"},
		"account-json":    {"get", "account/acme", "-o", "json"},
		"grants":          {"get", "grants", "--account", "acme-search"},
		"grants-all":      {"get", "grants", "-A", "-o", "yaml"},
		"budgets-wide":    {"get", "b", "--all-accounts", "-o", "wide"},
		"budget-json":     {"get", "budget", "initech/daily-output", "-o", "json"},
		"plans-and-cards": {"get", "plans,rc", "-o", "name"},
		"names":           {"get", "budgets", "--account=acme", "-o", "name"},
		"keys":            {"get", "keys"},
	} {
		out := o.must(args...)
		if name == "keys" { // their order is that of random ids
			lines := strings.SplitAfter(out, "\n")
			if len(lines) != 6 || !strings.Contains(out, "acme-gateway") || !strings.Contains(out, "region=us-east") || strings.Contains(out, "pk_") {
				t.Errorf("keys:\n%s", out)
			}
			continue
		}
		golden(t, "get-"+name, out)
		if strings.Contains(out, "\x1b") {
			t.Errorf("%s has escape codes in what is no terminal", name)
		}
	}
}

// TestRoundTrip: what get writes, apply takes, and finds nothing to change. On an empty server it
// makes the same again.
func TestRoundTrip(t *testing.T) {
	o := openOffice(t)
	o.must("delete", "grant", "acme/acme-welcome", "--yes")
	id := regexp.MustCompile(`(?m)^(\S+) +dashboard`).FindStringSubmatch(o.must("get", "keys"))[1]
	o.must("delete", "key", id, "--yes")
	for _, format := range []string{"yaml", "json"} {
		all := o.must("get", "all", "-o", format)
		file := writeFile(t, "all."+format, all)
		if out := o.must("apply", "-f", file, "--dry-run"); !strings.HasPrefix(out, "0 to change") {
			t.Errorf("applied again:\n%s", out)
		}
		r := purserReading(t, all, o.with("apply", "-f", "-", "--dry-run")...)
		if r.code != exitOK || !strings.HasPrefix(r.out, "0 to change") {
			t.Errorf("read from standard input: exit %d\n%s%s", r.code, r.out, r.stderr)
		}
	}
	file := writeFile(t, "all.yaml", o.must("get", "all", "-o", "yaml"))
	_, address, keyFile := serve(t, sqliteStore(t))
	elsewhere := &office{t: t, address: address, keyFile: keyFile}
	elsewhere.must("apply", "-f", file, "--secrets-dir", t.TempDir())
	if out := elsewhere.must("get", "grants", "-A"); strings.Contains(out, "acme-welcome") || !strings.Contains(out, "acme-annual") {
		t.Errorf("a voided grant must not come back:\n%s", out)
	}
	if out := elsewhere.must("get", "keys"); strings.Contains(out, "dashboard") {
		t.Errorf("a revoked key must not come back:\n%s", out)
	}
	for _, kind := range []string{"features", "ratecards", "plans", "accounts", "budgets"} {
		a, b := o.must("get", kind, "-A", "-o", "yaml"), elsewhere.must("get", kind, "-A", "-o", "yaml")
		if strip(a) != strip(b) {
			t.Errorf("%s differ elsewhere:\n%s\nwant\n%s", kind, b, a)
		}
	}
}

// strip leaves out what a server says by itself: numbers that count over all resources.
func strip(s string) string {
	return regexp.MustCompile(`(?m)^ +price_version: \d+\n`).ReplaceAllString(steady(s), "")
}

// TestDryRunAsksTheServer: what applying would stumble over shows before half of it is done;
// what the file itself makes first is no reason to refuse.
func TestDryRunAsksTheServer(t *testing.T) {
	o := openOffice(t)
	for _, c := range []struct{ file, want string }{
		{"accounts:\n  - {id: new, plan: nosuch}\n", `f.yaml:2: create subscription new: there is no plan "nosuch"`},
		{"accounts:\n  - {id: new, plan: pro, plan_version: 9}\n", "PLAN_NOT_FOUND"},
		{"accounts:\n  - {id: new, parent: nosuch}\n", "ACCOUNT_NOT_FOUND"},
		{"plans:\n  - {id: new, rate_card: nosuch, entitlements: [{feature: chat.gpt-small}]}\n", "RATE_CARD_NOT_FOUND"},
		{"plans:\n  - {id: new, rate_card: standard, entitlements: [{feature: nosuch}]}\n", "FEATURE_NOT_FOUND"},
		{"plans:\n  - {id: new, rate_card: standard, entitlements: [{feature: chat.gpt-small, quotas: [{id: free-daily-requests, meter: input_tokens, limit: 1, window: DAY}]}]}\n",
			`quota "free-daily-requests" keeps its meter and window`},
		{"budgets:\n  - {account: globex, id: monthly, credits: 5, window: DAY, enforcement: HARD}\n", "keeps its unit, window and labels"},
		{"keys:\n  - {principal: new, role: GATE, account: nosuch}\n", "ACCOUNT_NOT_FOUND"},
	} {
		file := writeFile(t, "f.yaml", c.file)
		o.fails(exitFailure, []string{c.want}, "apply", "-f", file, "--dry-run")
	}
	if out := o.must("get", "accounts", "-o", "name"); strings.Contains(out, "account/new") {
		t.Errorf("a dry run made something:\n%s", out)
	}
	whole := writeFile(t, "whole.yaml", `features:
  - {id: voice, kind: METERED, meters: [audio_seconds]}
rate_cards:
  - {id: voices, prices: [{feature: voice, meter: audio_seconds, credits: 1, per: 60}]}
plans:
  - {id: talk, rate_card: voices, entitlements: [{feature: voice, quotas: [{id: talk-daily, meter: audio_seconds, limit: 9, window: DAY}]}]}
accounts:
  - {id: above, plan: talk}
  - {id: below, parent: above, grants: [{id: first, credits: 1}], budgets: [{id: daily, credits: 1, window: DAY, enforcement: HARD}]}
keys:
  - {principal: below, role: GATE, account: below}
`)
	if out := o.must("apply", "-f", whole, "--dry-run"); !strings.HasSuffix(out, "9 to change, 0 unchanged; nothing was done\n") {
		t.Errorf("a file that makes everything it names:\n%s", out)
	}
	o.must("apply", "-f", whole)
}

func TestDryRunShowsWhatChanges(t *testing.T) {
	o := openOffice(t)
	changed := strings.NewReplacer("display_name: Globex", "display_name: Globex Inc.", "limit: 100, window: DAY", "limit: 200, window: DAY",
		"credits: 90, window: MONTH", "credits: 95, window: MONTH", "meter: input_tokens, credits: 0.25,", "meter: input_tokens, credits: 0.26,",
		"plan: free\n    grants:\n      - {id: ada", "plan: pro\n    grants:\n      - {id: ada").Replace(string(examples.Catalog)) +
		"  - {principal: new-gateway, role: GATE}\n"
	file := writeFile(t, "changed.yaml", changed)
	golden(t, "apply-dry-run", o.must("apply", "-f", file, "--dry-run"))
	golden(t, "apply-dry-run-json", o.must("apply", "-f", file, "--dry-run", "-o", "json"))
	golden(t, "apply", regexp.MustCompile(`pk_\S+`).ReplaceAllString(o.must("apply", "-f", file), "SECRET"))
	if out := o.must("apply", "-f", file, "--dry-run"); !strings.HasPrefix(out, "0 to change") {
		t.Errorf("after it was applied:\n%s", out)
	}
	if out := o.must("get", "plan", "free@1", "-o", "yaml"); !strings.Contains(out, "limit: 100") {
		t.Errorf("the version before:\n%s", out)
	}
	golden(t, "describe-ratecard", o.must("describe", "rc", "standard"))
}

// TestApplyOrder: a file may name a child before its parent.
func TestApplyOrder(t *testing.T) {
	o := openOffice(t)
	file := writeFile(t, "family.yaml", `
accounts:
  - {id: grandchild, parent: child}
  - {id: child, parent: root}
  - {id: root, display_name: Root}
grants:
  - {id: first, account: child, credits: 7}
`)
	out := o.must("apply", "-f", file)
	if strings.Index(out, "account root") > strings.Index(out, "account child") || strings.Index(out, "account child") > strings.Index(out, "account grandchild") {
		t.Errorf("applied:\n%s", out)
	}
	if out := o.must("get", "grants", "--account", "grandchild", "-o", "name"); out != "grant/root/first\n" {
		t.Errorf("the grant is in the payer's wallet: %s", out)
	}
}

func TestApplyNamesTheLine(t *testing.T) {
	o := openOffice(t)
	for name, c := range map[string]struct{ in, want string }{
		"a grant that differs":  {"grants:\n\n  - {id: acme-annual, account: acme, credits: 1}\n", "f.yaml:3:5: grant acme-annual of account acme: acme-annual exists with 20000 credits"},
		"a voided grant":        {"grants:\n  - {id: acme-annual, account: acme, credits: 20000, voided: true}\n", "f.yaml:2:5: grant acme-annual of account acme: it is voided in the file"},
		"an account of nobody":  {"budgets:\n  - {id: b, account: nosuch, credits: 1, window: DAY}\n", "f.yaml:2:5: budget b of account nosuch: list budgets: "},
		"a kind that differs":   {"features:\n  - {id: audit-export, kind: METERED}\n", "f.yaml:2:5: feature audit-export is BOOLEAN on the server"},
		"a parent that differs": {"accounts:\n  - {id: acme-search, parent: globex}\n", "f.yaml:2:5: account acme-search: its parent is \"acme\""},
		"a plan of nothing":     {"plans:\n  - {id: p, entitlements: [{feature: nosuch}]}\n", "f.yaml:2: create plan p: "},
	} {
		t.Run(name, func(t *testing.T) {
			fails(t, exitFailure, []string{c.want}, o.with("apply", "-f", writeFile(t, "f.yaml", c.in))...)
		})
	}
	r := purserReading(t, "plans: {}\n", o.with("apply", "-f", "-")...)
	if r.code != exitFailure || !strings.Contains(r.stderr, "standard input:1:8: want a list") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

func TestDescribe(t *testing.T) {
	o := openOffice(t)
	for name, args := range map[string][]string{
		"account":      {"describe", "account", "acme"},
		"account-json": {"describe", "account", "acme", "-o", "json"},
		"feature":      {"describe", "feature", "chat.gpt-small"},
		"plan":         {"describe", "plan", "free"},
		"grant":        {"describe", "grant", "acme/acme-welcome"},
		"budgets":      {"describe", "budgets", "--account", "acme"},
	} {
		golden(t, "describe-"+name, o.must(args...))
	}
}

func TestDelete(t *testing.T) {
	o := openOffice(t)
	o.fails(exitFailure, []string{"a plan version never changes and never goes", "purser apply"}, "delete", "plan", "free", "--yes")
	o.fails(exitFailure, []string{"a version of a rate card never changes"}, "delete", "rc", "standard", "--yes")
	o.fails(exitFailure, []string{"purser suspend"}, "delete", "account", "acme", "--yes")
	o.fails(exitFailure, []string{"RESOURCE_IN_USE", "chat.gpt-large"}, "delete", "feature", "chat.gpt-large", "--yes")
	o.fails(exitUsage, []string{"budget globex/monthly is to be deleted", "--yes"}, "delete", "budget", "globex/monthly")
	o.fails(exitUsage, []string{"say which"}, "delete", "budgets", "--account", "globex", "--yes")
	for _, c := range []struct {
		id, shown, done string
		args            []string
	}{
		{"globex/monthly", "globex/monthly", "deleted", []string{"budget", "globex/monthly"}},
		{"acme-welcome", "VOIDED", "voided", []string{"grant", "acme-welcome", "--account", "acme"}},
	} {
		before := o.must("get", c.args[0]+"s", "-A")
		if out := o.must(append([]string{"delete", "--dry-run"}, c.args...)...); !strings.Contains(out, c.done+" (dry run: nothing was done)") {
			t.Errorf("dry run of %v:\n%s", c.args, out)
		}
		if after := o.must("get", c.args[0]+"s", "-A"); steady(after) != steady(before) {
			t.Errorf("a dry run changed\n%s to\n%s", before, after)
		}
		if out := o.must(append([]string{"delete", "--yes"}, c.args...)...); !strings.Contains(out, c.id+" "+c.done+"\n") {
			t.Errorf("delete %v:\n%s", c.args, out)
		}
		if after := o.must("get", c.args[0]+"s", "-A"); steady(after) == steady(before) {
			t.Errorf("delete %v changed nothing:\n%s", c.args, after)
		}
	}
	file := writeFile(t, "f.yaml", "features:\n  - {id: spare, kind: BOOLEAN}\n")
	o.must("apply", "-f", file)
	golden(t, "delete-json", o.must("delete", "feature/spare", "--yes", "-o", "json"))
	o.fails(exitFailure, []string{"get feature spare: ", "FEATURE_NOT_FOUND"}, "get", "feature", "spare")
}

func TestSuspend(t *testing.T) {
	o := openOffice(t)
	o.must("suspend", "acme", "--reason", "unpaid invoice", "--sync")
	if out := o.must("get", "account", "acme", "-o", "wide"); !strings.Contains(out, "SUSPENDED") || !strings.Contains(out, "unpaid invoice") {
		t.Errorf("suspended:\n%s", out)
	}
	o.must("resume", "acme")
	if out := o.must("get", "account", "acme", "-o", "wide"); !strings.Contains(out, "ACTIVE") {
		t.Errorf("resumed:\n%s", out)
	}
}

func TestSelectionErrors(t *testing.T) {
	o := openOffice(t)
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, `there is no kind of resource "user": want one of features, ratecards`, []string{"get", "user"}},
		{exitUsage, "--account ID, or --all-accounts", []string{"get", "grants"}},
		{exitUsage, "name it ACCOUNT/monthly", []string{"get", "budget", "monthly"}},
		{exitUsage, "is not of --account acme", []string{"get", "budget", "globex/monthly", "--account", "acme"}},
		{exitUsage, "ids go with one kind", []string{"get", "plans,features", "pro"}},
		{exitUsage, "names one already", []string{"get", "plan/pro", "free"}},
		{exitUsage, "exclude each other", []string{"get", "grants", "-A", "--account", "acme"}},
		{exitUsage, `must be one of "text","table"`, []string{"get", "plans", "-o", "xml"}},
		{exitUsage, `purser version has no output "wide"`, []string{"version", "-o", "wide"}},
		{exitFailure, "ACCOUNT_NOT_FOUND", []string{"get", "account", "nosuch"}},
		{exitFailure, `globex has no budget "daily": see purser get budgets --account globex`, []string{"get", "budget", "globex/daily"}},
		{exitFailure, `there is no key "0123"`, []string{"get", "key", "0123"}},
		{exitFailure, `the version in "pro@x" is no whole number`, []string{"get", "plan", "pro@x"}},
		{exitFailure, "PLAN_NOT_FOUND", []string{"get", "plan", "pro@9"}},
	} {
		args := c.args
		if args[0] != "version" {
			args = o.with(args...)
		}
		fails(t, c.code, []string{c.want}, args...)
	}
	fails(t, exitFailure, []string{"CALLER_NOT_ALLOWED", "purser get keys"}, "get", "accounts", "--server", o.address, "--key-file", filepath.Join(o.secrets, "gateway.key"))
}
