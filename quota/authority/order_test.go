package authority_test

import (
	"testing"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
)

// TestDecisionOrder walks the order of design §4.8 backwards: in each row everything behind
// the expected reason fails as well, so only the order can explain the answer.
func TestDecisionOrder(t *testing.T) {
	n := world(t)
	n.catalogue()
	cap1 := func(account, id string) quota.Budget {
		return quota.Budget{Account: account, ID: id, Cap: 1, Window: window.Month}
	}
	n.account("rich", "", 100e6)
	n.account("broke", "", 0)
	n.account("capped", "", 0)
	n.budget(cap1("capped", "inner"))
	n.account("org", "", 0)
	n.budget(cap1("org", "outer"))
	n.account("team", "org", 0)
	n.budget(cap1("team", "inner"))
	n.account("gone", "org", 0)
	n.budget(cap1("gone", "inner"))

	// org's two requests of today are used up by a free reservation each.
	free := &quota.Request{Account: "team", Candidates: []string{"counted"}}
	for range 2 {
		n.commit(n.granted(free).Token, 0, 0)
	}
	// One live reservation each uses up all limits of these.
	for _, f := range []string{"streamed", "hurried"} {
		n.granted(&quota.Request{Account: "team", Candidates: []string{f}, TTL: 2 * time.Second})
	}
	replayed := chat("rich", 100, 100)
	replayed.Key = "once"
	first := n.granted(replayed)
	for _, id := range []string{"gone", "rich"} {
		if _, _, err := n.store.SetStatus(t.Context(), mutation(), id, quota.AccountSuspended, "test"); err != nil {
			t.Fatal(err)
		}
	}
	must(t, 0, n.Refresh(t.Context()))

	bound := &authz.Principal{Name: "gateway", Role: authz.RoleGate, Account: "team"}
	ask := func(account, feature string) *quota.Request {
		r := chat(account, 1000, 1000)
		r.Candidates = []string{feature}
		return r
	}
	rows := []struct {
		request *quota.Request
		want    quota.DenialReason
		level   string // account/limit
	}{
		{ask("broke", "chat"), quota.DeniedCredits, "broke/"},
		{ask("capped", "chat"), quota.DeniedBudget, "capped/inner"},
		{ask("team", "chat"), quota.DeniedBudget, "org/outer"},
		{ask("team", "counted"), quota.DeniedQuota, "team/counted-day"},
		{ask("team", "streamed"), quota.DeniedConcurrency, "team/streams"},
		{ask("team", "hurried"), quota.DeniedRate, "team/rph"},
		{ask("team", "unpriced"), quota.DeniedNoPrice, "/"},
		{ask("team", "forbidden"), quota.DeniedNotEntitled, "/"},
		{ask("team", "nonsense"), quota.DeniedFeatureUnknown, "/"},
		{ask("gone", "nonsense"), quota.DeniedAccountSuspended, "/"},
		{ask("nobody", "nonsense"), quota.DeniedAccountUnknown, "/"},
	}
	for _, row := range rows {
		name := row.request.Account + "/" + row.request.Candidates[0]
		if name == "team/chat" || name == "capped/chat" || name == "broke/chat" {
			row.request.Candidates = []string{"chat"}
		}
		d := n.reserve(row.request)
		if d.Allowed || d.Denial.Reason != row.want {
			t.Errorf("%s: allowed %v, reason %v; want %v", name, d.Allowed, d.Denial.Reason, row.want)
		}
		if got := d.Denial.Level.Account + "/" + d.Denial.Level.Limit; got != row.level {
			t.Errorf("%s: level %s; want %s", name, got, row.level)
		}
	}

	again := n.reserve(replayed)
	if !again.Replayed || string(again.Token) != string(first.Token) {
		t.Errorf("a replay on a suspended account: %+v; want the first token", again)
	}
	err := n.Reserve(t.Context(), bound, ask("nobody", "nonsense"), &quota.Decision{})
	wantReason(t, err, quota.ReasonCallerNotAllowed)
	err = n.Reserve(t.Context(), bound, &quota.Request{Account: "nobody", Candidates: []string{"chat"}, TTL: 1 << 50}, &quota.Decision{})
	wantReason(t, err, quota.ReasonCallerNotAllowed)
	n.audited()
}
