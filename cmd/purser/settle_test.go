package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// token reserves and returns the token.
func (o *office) token(args ...string) string {
	o.t.Helper()
	return strings.TrimSpace(o.must(append([]string{"reserve", "-o", "name"}, args...)...))
}

// TestReserveAndSettle: what a person tries first, with every way to pass the token on.
func TestReserveAndSettle(t *testing.T) {
	o := openOffice(t)
	ask := []string{"globex", "chat.gpt-large", "--estimate", "input_tokens=1200", "--estimate", "output_tokens=800:50", "--label", "user=ann"}
	golden(t, "reserve", o.must(append([]string{"reserve"}, ask...)...))

	token := o.token(ask...)
	commit := []string{"commit", token, "--usage", "input_tokens=1200,output_tokens=911"}
	golden(t, "commit", o.must(commit...))
	golden(t, "commit-again", o.must(commit...))
	o.fails(exitFailure, []string{"commit: ", "RESERVATION_COMMITTED", "charged_micros 1211000"}, "commit", token, "--usage", "input_tokens=1")

	file := filepath.Join(t.TempDir(), "r.token")
	if out := o.must(append([]string{"reserve", "--token-file", file}, ask...)...); !strings.Contains(out, "written to "+file) {
		t.Errorf("reserve:\n%s", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file: %v, %v", info, err)
	}
	golden(t, "release", o.must("release", "--token-file", file, "--outcome", "error"))
	golden(t, "release-json", o.must("release", "--token-file", file, "-o", "json"))

	r := purserReading(t, o.token(ask...)+"\n", o.with("commit", "-", "--usage", "input_tokens=1000", "-o", "json")...)
	golden(t, "commit-json", r.out+r.stderr)

	// What JSON has for a token is one too.
	var answer struct {
		Reservation struct {
			Token string `json:"token"`
		} `json:"reservation"`
	}
	if err := json.Unmarshal([]byte(o.must(append([]string{"reserve", "-o", "json"}, ask...)...)), &answer); err != nil {
		t.Fatal(err)
	}
	o.must("commit", answer.Reservation.Token, "--usage", "input_tokens=1")
}

// TestInterimCommit: what was used so far, which settles nothing.
func TestInterimCommit(t *testing.T) {
	o := openOffice(t)
	token := o.token("globex", "chat.gpt-large", "--estimate", "output_tokens=800:50")
	report := []string{"commit", token, "--usage", "output_tokens=300", "--interim"}
	golden(t, "commit-interim", o.must(report...))
	if out := o.must(append(report, "-o", "json")...); !strings.Contains(out, `"RESERVATION_STATE_HELD"`) {
		t.Errorf("as JSON:\n%s", out)
	}
	o.fails(exitFailure, []string{"usage_delivered"}, append(report, "--usage-delivered")...)
	o.must("commit", token, "--usage", "output_tokens=400")
	o.fails(exitFailure, []string{"RESERVATION_COMMITTED"}, report...)
}

// TestExtend: more of a live reservation by totals, by each way a token is passed on.
func TestExtend(t *testing.T) {
	o := openOffice(t)
	ask := []string{"globex", "chat.gpt-large", "--estimate", "output_tokens=800:50"}
	first := o.token(ask...)
	golden(t, "extend", o.must("extend", first, "--estimate", "output_tokens=1600:50", "--ttl", "60s"))
	golden(t, "extend-again", o.must("extend", first, "--estimate", "output_tokens=1600:50", "--ttl", "1s"))
	if out := o.must("extend", first, "-o", "json"); !strings.Contains(out, `"replayed": true`) {
		t.Errorf("an extension that changes nothing:\n%s", out)
	}
	second := strings.TrimSpace(o.must("extend", first, "--estimate", "output_tokens=2000", "-o", "name"))
	if second == first {
		t.Error("more was granted under the same token")
	}
	o.must("commit", second, "--usage", "output_tokens=2000")
	o.fails(exitFailure, []string{"extend: ", "RESERVATION_COMMITTED"}, "extend", second)

	file := filepath.Join(t.TempDir(), "r.token")
	o.must(append([]string{"reserve", "--token-file", file}, ask...)...)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if out := o.must("extend", "--token-file", file, "--estimate", "output_tokens=900"); !strings.Contains(out, "written to "+file) {
		t.Errorf("extend:\n%s", out)
	}
	r := purserCmd(t, o.with("extend", "--token-file", file, "--estimate", "output_tokens=900000000")...)
	if r.code != exitDenied || r.stderr != "" {
		t.Errorf("exit %d, want %d: %s%s", r.code, exitDenied, r.out, r.stderr)
	}
	golden(t, "extend-denied", r.out)
	after, err := os.ReadFile(file)
	if err != nil || string(after) == string(before) {
		t.Errorf("the file has the token it had: %v", err)
	}
	o.must("release", "--token-file", file)
}

func TestDenialsInWords(t *testing.T) {
	o := openOffice(t)
	for name, args := range map[string][]string{
		"not-entitled": {"ada", "chat.gpt-large", "--estimate", "input_tokens=1"},
		"unknown":      {"ada", "chat.gpt-lrage"},
		"credits":      {"ada", "chat.gpt-small", "--estimate", "output_tokens=80000000"},
		"budget":       {"initech", "chat.gpt-large", "--estimate", "output_tokens=2000001"},
	} {
		r := purserCmd(t, o.with(append([]string{"reserve"}, args...)...)...)
		if r.code != exitDenied || r.stderr != "" {
			t.Errorf("%s: exit %d, want %d\n%s", name, r.code, exitDenied, r.stderr)
		}
		golden(t, "denied-"+name, r.out)
	}
	r := purserCmd(t, o.with("reserve", "ada", "chat.gpt-large", "-o", "json")...)
	if r.code != exitDenied || !strings.Contains(r.out, `"decision": "DECISION_DENIED"`) {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.stderr)
	}
	r = purserCmd(t, o.with("reserve", "ada", "chat.gpt-large", "-o", "name")...)
	if r.code != exitDenied || r.out != "" || !strings.Contains(r.stderr, "denied: ") {
		t.Errorf("a denial must not be taken for a token: exit %d\n%s%s", r.code, r.out, r.stderr)
	}
	o.must("suspend", "lin", "--reason", "unpaid invoice", "--sync")
	r = purserCmd(t, o.with("reserve", "lin", "chat.gpt-small")...)
	golden(t, "denied-suspended", r.out)
}

func TestBalanceAndUsage(t *testing.T) {
	o := openOffice(t)
	for _, user := range []string{"ann", "bob"} {
		o.must("commit", o.token("globex", "chat.gpt-large", "--estimate", "output_tokens=2000", "--label", "user="+user),
			"--usage", "output_tokens=1500")
	}
	o.must("commit", o.token("globex", "chat.gpt-small", "--estimate", "input_tokens=1", "--label", "team=x"), "--usage", "input_tokens=1")
	want := "globex was charged 3.000015 credits" // 2 x 1.5, and a token's price rounded up
	for !strings.Contains(o.must("usage", "globex"), want) {
		// events follow settlements within moments
	}
	golden(t, "usage", o.must("usage", "globex"))
	golden(t, "usage-label", o.must("usage", "globex", "--by", "label=user", "--since", "1h"))
	golden(t, "usage-labels-json", o.must("usage", "globex", "--by=label", "-o", "json"))
	golden(t, "usage-none", o.must("usage", "ada"))
	golden(t, "balance", o.must("balance", "globex"))
	golden(t, "describe-account-used", o.must("describe", "account", "globex"))
	if out := o.must("usage", "globex", "--by", "hour", "-o", "yaml"); !strings.Contains(out, "charged_micros: 3000015") {
		t.Errorf("by hour:\n%s", out)
	}
	var balance struct {
		Total string `json:"total_micros"`
	}
	if err := json.Unmarshal([]byte(o.must("balance", "globex", "-o", "json")), &balance); err != nil || balance.Total != "536999985" {
		t.Errorf("balance = %+v, %v", balance, err)
	}
}

func TestDataPlaneErrors(t *testing.T) {
	o := openOffice(t)
	two := writeFile(t, "two", "abc\ndef\n")
	for _, c := range []struct {
		code int
		want string
		args []string
	}{
		{exitUsage, `--estimate: estimate "tokens": want METER=QUANTITY`, []string{"reserve", "globex", "chat.gpt-small", "--estimate", "tokens"}},
		{exitUsage, `"1.5" is not a whole number`, []string{"reserve", "globex", "chat.gpt-small", "--estimate", "input_tokens=1.5"}},
		{exitUsage, `"-3" is not a whole number`, []string{"commit", "abcd", "--usage", "input_tokens=-3"}},
		{exitUsage, "there are two tokens", []string{"commit", "abcd", "--token-file", two}},
		{exitFailure, "there are 2 tokens: want one", []string{"commit", "--token-file", two}},
		{exitUsage, "which reservation?", []string{"release"}},
		{exitUsage, "which reservation?", []string{"extend", "--ttl", "5s"}},
		{exitUsage, `--estimate: estimate "tokens": want METER=QUANTITY`, []string{"extend", "abcd", "--estimate", "tokens"}},
		{exitFailure, "TTL_OUT_OF_RANGE", []string{"extend", "AAAAAAAA", "--ttl", "5m"}},
		{exitFailure, "TOKEN_INVALID", []string{"extend", "AAAAAAAA"}},
		{exitUsage, "that is no token: ", []string{"release", "not a token!"}},
		{exitUsage, "it is empty", []string{"release", "--token-file", writeFile(t, "empty", "\n")}},
		{exitFailure, "nosuch.token", []string{"release", "--token-file", "nosuch.token"}},
		{exitFailure, "it has more than 4096 bytes", []string{"release", "--token-file", writeFile(t, "long", strings.Repeat("a", 5000))}},
		{exitFailure, "TOKEN_INVALID", []string{"release", "AAAAAAAA"}},
		{exitFailure, "TTL_OUT_OF_RANGE", []string{"reserve", "globex", "chat.gpt-small", "--ttl", "5m"}},
		{exitUsage, "--outcome must be one of", []string{"release", "abcd", "--outcome", "bored"}},
		{exitFailure, "ACCOUNT_NOT_FOUND", []string{"balance", "nosuch"}},
		{exitFailure, "ACCOUNT_NOT_FOUND", []string{"usage", "nosuch"}},
		{exitUsage, `--by: "colour" is nothing`, []string{"usage", "globex", "--by", "colour"}},
		{exitUsage, `--since: "soon" is no time`, []string{"usage", "globex", "--since", "soon"}},
		{exitUsage, "is not after --since", []string{"usage", "globex", "--since", "1h", "--until", "2h"}},
	} {
		o.fails(c.code, []string{c.want}, c.args...)
	}
	r := purserReading(t, "", o.with("commit", "-")...)
	if r.code != exitUsage || !strings.Contains(r.stderr, "it is empty") {
		t.Errorf("nothing on standard input: exit %d, %s", r.code, r.stderr)
	}
	// With nobody there the outcome of a settlement is unknown only if it was sent.
	fails(t, exitFailure, []string{"no address answers"}, "release", "AAAAAAAA", "--server", "127.0.0.1:1", "--key-file", o.keyFile)
}
