package server_test

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/storage/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

// world is a server over a real authority and a real SQLite store, and a connection to it.
type world struct {
	t         testing.TB
	store     *sqlite.Store
	authority *authority.Authority
	server    *server.Server
	deps      server.Deps
	conn      *grpc.ClientConn
	admin     context.Context // carries an admin key

	gates    purserv1.AuthorityServiceClient
	accounts purserv1.AccountServiceClient
	catalog  purserv1.CatalogServiceClient
	keys     purserv1.KeyServiceClient
	usage    purserv1.UsageServiceClient
}

// newWorld serves until the test ends; change may alter the server's dependencies.
func newWorld(t *testing.T, change ...func(*server.Deps)) *world {
	t.Helper()
	w := &world{t: t}
	w.startAuthority()
	w.deps = server.Deps{Authority: w.authority, Store: w.store, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	for _, c := range change {
		c(&w.deps)
	}
	var err error
	if w.server, err = server.New(w.deps); err != nil {
		t.Fatalf("new server: %v", err)
	}
	w.serve()
	w.gates, w.accounts = purserv1.NewAuthorityServiceClient(w.conn), purserv1.NewAccountServiceClient(w.conn)
	w.catalog, w.keys = purserv1.NewCatalogServiceClient(w.conn), purserv1.NewKeyServiceClient(w.conn)
	w.usage = purserv1.NewUsageServiceClient(w.conn)
	w.admin = w.with(w.key(authz.Key{Role: authz.RoleAdmin, Principal: "root"}))
	return w
}

func (w *world) startAuthority() {
	t := w.t
	var err error
	w.store, err = sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	c := authority.DefaultConfig()
	c.Lease, c.MaxHold, c.Grace = time.Second, 60*time.Second, 500*time.Millisecond
	c.Poll, c.Skew, c.DrainFor, c.Embedded = 50*time.Millisecond, 50*time.Millisecond, 0, true
	w.authority, err = authority.New(c, authority.Deps{Store: w.store, Clock: clock{}, Random: rand.Reader, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		err = w.authority.Start(t.Context())
	}
	if err != nil {
		t.Fatalf("start authority: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.authority.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("authority: %v", err)
		}
		if err := w.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
}

func (w *world) serve() {
	t := w.t
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(l) }()
	var err error
	w.conn, err = grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		if err := w.conn.Close(); err != nil {
			t.Errorf("close connection: %v", err)
		}
		w.server.GracefulStop(context.Background())
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// key puts a key into the store and returns its secret.
func (w *world) key(k authz.Key) string {
	w.t.Helper()
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	k.ID, k.Hash, k.ExpireTime = id, authz.HashSecret(secret), authz.Never
	if _, err := w.store.CreateKey(w.t.Context(), quota.Mutation{Principal: "test", Now: time.Now().UnixNano()}, k); err != nil {
		w.t.Fatalf("create key: %v", err)
	}
	return secret
}

func (w *world) with(secret string) context.Context {
	return metadata.AppendToOutgoingContext(w.t.Context(), "authorization", "Bearer "+secret)
}

// gate is the context of a key that may use account, with labels bound to it.
func (w *world) gate(account string, bound map[string]string) context.Context {
	w.t.Helper()
	set, err := label.New(bound)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.with(w.key(authz.Key{Role: authz.RoleGate, Principal: "gateway", Account: account, Labels: set}))
}

// chat sets up a model at 1 credit per 1000 input and 3 per 1000 output tokens, a plan with
// it, and the account acme on that plan with some credits.
func (w *world) chat(credits int64) {
	t, ctx := w.t, w.admin
	t.Helper()
	must(t)(w.catalog.CreateFeature(ctx, &purserv1.CreateFeatureRequest{Id: "chat", Kind: purserv1.FeatureKind_FEATURE_KIND_METERED,
		Meters: []string{"input_tokens", "output_tokens"}}))
	must(t)(w.catalog.PublishRateCard(ctx, &purserv1.PublishRateCardRequest{Id: "standard", Prices: []*purserv1.Price{
		{Feature: "chat", Meter: "input_tokens", PriceMicros: 1_000_000, Per: 1000},
		{Feature: "chat", Meter: "output_tokens", PriceMicros: 3_000_000, Per: 1000},
		{Feature: "chat", Meter: "requests", PriceMicros: 0, Per: 1}}}))
	must(t)(w.catalog.PublishPlanVersion(ctx, &purserv1.PublishPlanVersionRequest{Plan: "pro", RateCard: "standard",
		Entitlements: []*purserv1.Entitlement{{Feature: "chat"}}}))
	must(t)(w.accounts.CreateAccount(ctx, &purserv1.CreateAccountRequest{Id: "acme"}))
	must(t)(w.accounts.SetSubscription(ctx, &purserv1.SetSubscriptionRequest{Account: "acme", Plan: "pro"}))
	must(t)(w.accounts.CreateGrant(ctx, &purserv1.CreateGrantRequest{Account: "acme", Grant: "welcome", AmountMicros: credits * 1_000_000,
		Kind: purserv1.GrantKind_GRANT_KIND_PURCHASED}))
}

func ask(input, output int64) *purserv1.CheckAndReserveRequest {
	return &purserv1.CheckAndReserveRequest{Account: "acme", Candidates: []string{"chat"}, Estimates: []*purserv1.Estimate{
		{Meter: "input_tokens", Quantity: input}, {Meter: "output_tokens", Quantity: output}}}
}

// must fails the test on an error; it ignores the answer, and so takes any.
func must(t testing.TB) func(any, error) {
	return func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// reasonOf reads the reason of a failed call and whether it is definite.
func reasonOf(err error) (reason quota.Reason, definite bool) {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == "purser" {
			return quota.Reason(info.GetReason()), info.GetMetadata()["not_applied"] == "true"
		}
	}
	return "", false
}

func wantReason(t *testing.T, what string, err error, want quota.Reason) {
	t.Helper()
	if got, definite := reasonOf(err); got != want || !definite {
		t.Errorf("%s: reason %q (definite %v) of %v, want definite %s", what, got, definite, err, want)
	}
}
