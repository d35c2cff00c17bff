package authority_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// tests stops the test databases before leaks are looked for.
type tests struct{ *testing.M }

func (m tests) Run() int {
	defer testdb.Stop()
	return m.M.Run()
}

type wallClock struct{}

func (wallClock) Now() time.Time { return time.Now() }

// quick is a configuration whose promises end within test time: L, M0, g of 1 s, 2 s, 0.5 s.
func quick() authority.Config {
	c := authority.DefaultConfig()
	c.Lease, c.MaxHold, c.Grace = time.Second, 2*time.Second, 500*time.Millisecond
	c.Poll, c.Skew, c.DrainFor = 50*time.Millisecond, 50*time.Millisecond, 100*time.Millisecond
	c.Embedded = true
	return c
}

// node is an authority over a real SQLite store.
type node struct {
	*authority.Authority
	t     testing.TB
	store quota.Store
	path  string
	stop  func()
}

// world makes a fresh store and a node on it.
func world(t testing.TB) *node {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "purser.db"), quick(), func(s quota.Store) quota.Store { return s })
}

// worldTraced makes a fresh store and a node on it that makes spans.
func worldTraced(t testing.TB, tracer trace.Tracer) *node {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	return startTraced(t, s, quick(), tracer)
}

// open starts a node on the store at path; wrap may put something between them.
func open(t testing.TB, path string, c authority.Config, wrap func(quota.Store) quota.Store) *node {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Clock: func() int64 { return time.Now().UnixNano() }})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	n := start(t, wrap(s), c)
	n.path = path
	return n
}

// join starts a node on a database that others share.
func join(t testing.TB, url string, c authority.Config, wrap func(quota.Store) quota.Store) *node {
	t.Helper()
	s, err := cockroach.Open(t.Context(), cockroach.Options{URL: url})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	c.Embedded = false
	return start(t, wrap(s), c)
}

func start(t testing.TB, store quota.Store, c authority.Config) *node {
	t.Helper()
	return startTraced(t, store, c, nil)
}

func startTraced(t testing.TB, store quota.Store, c authority.Config, tracer trace.Tracer) *node {
	t.Helper()
	return startWith(t, c, authority.Deps{Store: store, Clock: wallClock{}, Tracer: tracer})
}

// startWith starts a node with what is given, and the usual rest.
func startWith(t testing.TB, c authority.Config, d authority.Deps) *node {
	t.Helper()
	store := d.Store
	d.Random, d.Logger = rand.Reader, slog.New(slog.NewTextHandler(io.Discard, nil))
	a, err := authority.New(c, d)
	if err != nil {
		t.Fatalf("new authority: %v", err)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatalf("start: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	stopped := false
	n := &node{Authority: a, t: t, store: store}
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	}
	t.Cleanup(n.stop)
	return n
}

func mutation() quota.Mutation {
	return quota.Mutation{Principal: "test", Now: time.Now().UnixNano()}
}

// must fails the test on an error and passes the value on.
func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// catalogue publishes two chat models and a feature without a price. chat costs 1 credit per
// 1000 input tokens and 3 per 1000 output tokens, small a tenth of it.
func (n *node) catalogue() {
	n.t.Helper()
	ctx, s := n.t.Context(), n.store
	meters := []string{"input_tokens", "output_tokens"}
	for _, id := range []string{"chat", "small", "unpriced", "counted", "streamed", "hurried"} {
		must(n.t, 0, second(s.CreateFeature(ctx, mutation(), authz.Feature{ID: id, Kind: authz.FeatureMetered, Meters: meters})))
	}
	must(n.t, 0, second(s.CreateFeature(ctx, mutation(), authz.Feature{ID: "forbidden", Kind: authz.FeatureMetered, Meters: meters})))
	price := func(f, m string, micros int64) quota.Price {
		return quota.Price{Feature: f, Meter: m, Rate: pricing.Rate{PriceMicros: micros, Per: 1000}}
	}
	must(n.t, 0, second(s.PublishRateCard(ctx, mutation(), quota.RateCard{ID: "standard", Prices: []quota.Price{
		price("chat", "input_tokens", 1e6), price("chat", "output_tokens", 3e6),
		price("small", "input_tokens", 1e5), price("small", "output_tokens", 3e5),
		price("counted", "input_tokens", 1e6), price("counted", "output_tokens", 3e6),
		price("streamed", "input_tokens", 1e6), price("streamed", "output_tokens", 3e6),
		price("hurried", "input_tokens", 1e6), price("hurried", "output_tokens", 3e6),
	}})))
	must(n.t, 0, second(s.PublishPlan(ctx, mutation(), authz.Plan{ID: "pro", RateCard: "standard", Fallback: []string{"chat", "small"},
		Entitlements: []authz.Entitlement{{Feature: "chat"}, {Feature: "small"}, {Feature: "unpriced"},
			{Feature: "counted", Quotas: []authz.Quota{{ID: "counted-day", Meter: "requests", Limit: 2, Window: window.Day}}},
			{Feature: "streamed", Quotas: []authz.Quota{{ID: "streamed-day", Meter: "requests", Limit: 1, Window: window.Day}},
				Limits: authz.Limits{Concurrency: []authz.Concurrency{{ID: "streams", Limit: 1}}}},
			{Feature: "hurried", Quotas: []authz.Quota{{ID: "hurried-day", Meter: "requests", Limit: 1, Window: window.Day}},
				Limits: authz.Limits{Rates: []authz.Rate{{ID: "rph", Meter: "requests", Limit: 1, Per: time.Hour}},
					Concurrency: []authz.Concurrency{{ID: "streams", Limit: 1}}}}}})))
	must(n.t, 0, n.Refresh(ctx))
}

func second[A any](_ A, err error) error { return err }

// account makes an account on plan pro under parent, with credits (micros) if it pays itself.
func (n *node) account(id, parent string, credits int64) {
	n.t.Helper()
	n.newAccount(id, parent, credits)
	must(n.t, 0, n.Refresh(n.t.Context()))
}

// newAccount is account before the node was told.
func (n *node) newAccount(id, parent string, credits int64) {
	n.t.Helper()
	ctx, s := n.t.Context(), n.store
	must(n.t, 0, second(s.CreateAccount(ctx, mutation(), quota.Account{ID: id, Parent: parent, TimeZone: "UTC"})))
	must(n.t, 0, second(s.Subscribe(ctx, mutation(), id, authz.PlanRef{ID: "pro"})))
	if credits > 0 {
		n.newGrant(id, "first", credits)
	}
}

func (n *node) grant(account, id string, credits int64) {
	n.t.Helper()
	n.newGrant(account, id, credits)
	must(n.t, 0, n.Refresh(n.t.Context()))
}

func (n *node) newGrant(account, id string, credits int64) {
	n.t.Helper()
	must(n.t, 0, second(n.store.CreateGrant(n.t.Context(), mutation(), account, quota.Pot{ID: quota.GrantPotID(account + "-" + id),
		Kind: quota.PotWallet, GrantKind: quota.GrantPurchased, Granted: credits, Start: 0, End: quota.Never})))
}

func (n *node) budget(b quota.Budget) {
	n.t.Helper()
	n.newBudget(b)
	must(n.t, 0, n.Refresh(n.t.Context()))
}

func (n *node) newBudget(b quota.Budget) {
	n.t.Helper()
	must(n.t, 0, second(n.store.PutBudget(n.t.Context(), mutation(), b, 0)))
}

func gate() *authz.Principal { return &authz.Principal{Name: "gateway", Role: authz.RoleGate} }

// chat is a request for 1000 input tokens and up to out output tokens of which least will do.
func chat(account string, out, least int64) *quota.Request {
	return &quota.Request{Account: account, Candidates: []string{"chat"}, TTL: 2 * time.Second, Estimates: []quota.Estimate{
		{Meter: "input_tokens", Quantity: 1000},
		{Meter: "output_tokens", Quantity: out, Min: least, Flexible: least < out}}}
}

func (n *node) reserve(r *quota.Request) *quota.Decision {
	n.t.Helper()
	var d quota.Decision
	if err := n.Reserve(n.t.Context(), gate(), r, &d); err != nil {
		n.t.Fatalf("reserve: %v", err)
	}
	return &d
}

// granted reserves and fails the test on a denial.
func (n *node) granted(r *quota.Request) *quota.Decision {
	n.t.Helper()
	d := n.reserve(r)
	if !d.Allowed {
		n.t.Fatalf("denied: %+v", d.Denial)
	}
	return d
}

func usage(in, out int64) []quota.Quantity {
	return []quota.Quantity{{Meter: "input_tokens", Quantity: in}, {Meter: "output_tokens", Quantity: out}}
}

func (n *node) commit(token []byte, in, out int64) quota.Receipt {
	n.t.Helper()
	r, err := n.Commit(n.t.Context(), gate(), &quota.Settle{Token: token, Usage: usage(in, out)})
	if err != nil {
		n.t.Fatalf("commit: %v", err)
	}
	return r
}

// audited settles what is queued and proves the books from the store.
func (n *node) audited() {
	n.t.Helper()
	if err := n.Quiesce(n.t.Context()); err != nil {
		n.t.Fatalf("quiesce: %v", err)
	}
	report, err := audit.Run(n.t.Context(), n.store, audit.Options{})
	if err != nil {
		n.t.Fatalf("audit: %v", err)
	}
	for _, f := range report.Findings {
		n.t.Errorf("audit: %s %s: %s", f.Invariant, f.Subject, f.Detail)
	}
}

func wantReason(t testing.TB, err error, reason quota.Reason) {
	t.Helper()
	if !errors.Is(err, reason) {
		t.Fatalf("error is %v; want reason %s", err, reason)
	}
}

func labels(t testing.TB, m map[string]string) label.Set {
	t.Helper()
	s, err := label.New(m)
	return must(t, s, err)
}
