package apitest

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

var update = flag.Bool("update", false, "write the sequences in testdata anew, from SQLite")

// conversation is a world whose calls are written down.
type conversation struct {
	*world
	render *renderer
	lines  []string
}

// sequence is calls in an order, kept in testdata/<name>.txt.
type sequence struct {
	name string
	run  func(*conversation)
}

// streamed is the sequence of the one method that is a stream in both directions: gRPC only, by
// contract. Over JSON it is refused, which a test of HTTP shows.
const streamed = "session"

func sequences() []sequence {
	return []sequence{
		{"features", features},
		{"plans_and_rate_cards", plansAndRateCards},
		{"accounts", accountsAndSubscriptions},
		{"grants", grantsInOrder},
		{"budgets", budgetsAndEtags},
		{"keys", apiKeys},
		{"repeated_requests", repeatedRequests},
		{"reserve_and_commit", reserveAndCommit},
		{"release", releaseThenCommit},
		{"idempotency_keys", idempotencyKeys},
		{"extend", extendInTotals},
		{"extend_denied", extendDenied},
		{"extend_ended", extendEnded},
		{"extend_within_limits", extendWithinLimits},
		{"partial_and_fallback", partialAndFallback},
		{"denials", denials},
		{"rates_and_concurrency", ratesAndConcurrency},
		{"over_commit", overCommit},
		{"late_commit", lateCommit},
		{"interim_commits", interimCommits},
		{"suspend_and_resume", suspendAndResume},
		{"plan_upgrade", planUpgrade},
		{"price_change", priceChange},
		{"budgets_by_label", budgetsByLabel},
		{"void_grant", voidGrant},
		{"check_and_balance", checkAndBalance},
		{"usage", usageAndRollups},
		{streamed, sessionOfAllOperations},
	}
}

// TestSequences replays every sequence on every backend, and as JSON over HTTP; what was kept was written by SQLite.
func TestSequences(t *testing.T) {
	all := append(backends(t), overJSON())
	if *update {
		all = all[:1]
	}
	for _, b := range all {
		t.Run(b.name, func(t *testing.T) {
			for _, s := range sequences() {
				if b.json && s.name == streamed {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					c := &conversation{world: newWorld(t, b), render: newRenderer()}
					s.run(c)
					c.audited()
					compare(t, s.name, strings.Join(c.lines, "\n")+"\n")
				})
			}
		})
	}
}

// TestEverySequenceKept finds files that no sequence writes any more.
func TestEverySequenceKept(t *testing.T) {
	files, err := filepath.Glob(file("*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.ContainsFunc(sequences(), func(s sequence) bool { return file(s.name) == f }) {
			t.Errorf("%s belongs to no sequence", f)
		}
	}
	if len(files) != len(sequences()) && !*update {
		t.Errorf("there are %d files for %d sequences: run with -update", len(files), len(sequences()))
	}
}

func file(name string) string { return filepath.Join("testdata", name+".txt") }

func compare(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file(name), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	kept, err := os.ReadFile(file(name))
	if err != nil {
		t.Fatalf("%v; run with -update", err)
	}
	want := strings.Split(string(kept), "\n")
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || line != want[i] {
			t.Fatalf("%s:%d differs; if it is meant to, run with -update\ngot  %s\nwant %s\nall of it:\n%s",
				file(name), i+1, line, strings.Join(want[i:min(i+1, len(want))], ""), got)
		}
	}
	if n := strings.Count(got, "\n"); n != strings.Count(string(kept), "\n") {
		t.Fatalf("%s has more lines than the %d of this run", file(name), n)
	}
}

// say heads what follows.
func (c *conversation) say(words string) {
	if len(c.lines) > 0 {
		c.lines = append(c.lines, "")
	}
	c.lines = append(c.lines, "# "+words)
}

// call calls, and writes request and answer down. The answer is nil if it was an error.
func call[Q, R proto.Message](c *conversation, who string, m method[Q, R], req Q) (resp R) {
	c.t.Helper()
	c.asked(who, req)
	resp, err := m(c.as(who), req)
	if err != nil {
		c.lines = append(c.lines, c.render.failure(err)...)
		var none R
		return none
	}
	c.answered(resp)
	return resp
}

func (c *conversation) asked(who string, req proto.Message) {
	m := req.ProtoReflect()
	c.lines = append(c.lines, strings.TrimSuffix(string(m.Descriptor().Name()), "Request")+" by "+who)
	c.lines = append(c.lines, c.render.message(m, "  ")...)
}

func (c *conversation) answered(resp proto.Message) {
	c.lines = append(c.lines, "-> OK")
	c.lines = append(c.lines, c.render.message(resp.ProtoReflect(), "  ")...)
}

// balance asks for a balance when all is projected and no draw is under way: while one is,
// its amount is neither here nor there.
func (c *conversation) balance(who, account string) *purserv1.GetBalanceResponse {
	c.t.Helper()
	c.quiesce()
	req := &purserv1.GetBalanceRequest{Account: account}
	var resp *purserv1.GetBalanceResponse
	c.await("no draw is under way", func() bool {
		resp = must(c.world, who, c.authority.GetBalance, req)
		return resp.GetElsewhereMicros() == 0
	})
	c.asked(who, req)
	c.answered(resp)
	return resp
}
