package apitest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/internal/testdb"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/server/event"
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

// patience bounds everything that is waited for; all of it takes far less.
const patience = 60 * time.Second

// backend opens fresh stores of one kind.
type backend struct {
	name     string
	embedded bool
	json     bool // called as JSON over HTTP, and not by gRPC
	limits   server.Limits
	open     func(t testing.TB) quota.Store
}

// backends are SQLite, PostgreSQL, and CockroachDB if the environment names one. What they
// share is made with t and ends with it.
func backends(t *testing.T) []backend {
	t.Helper()
	all := []backend{onSQLite(), {name: "postgresql", open: copies(t)}}
	if _, ok := testdb.Cockroach(t); ok {
		all = append(all, backend{name: "cockroachdb", open: func(t testing.TB) quota.Store {
			u, _ := testdb.Cockroach(t)
			if err := cockroach.Migrate(t.Context(), u); err != nil {
				t.Fatalf("migrate: %v", err)
			}
			return openShared(t, u)
		}})
	}
	return all
}

func onSQLite() backend {
	return backend{name: "sqlite", embedded: true, open: func(t testing.TB) quota.Store {
		s, err := sqlite.Open(t.Context(), sqlite.Options{
			Path: filepath.Join(t.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }})
		if err != nil {
			t.Fatalf("open store: %v", err)
		}
		return s
	}}
}

// copies makes PostgreSQL stores out of one whose schema is there already: migrating each
// would take longer than the tests. The first is made when it is asked for.
func copies(parent *testing.T) func(testing.TB) quota.Store {
	var first string
	made := 0
	return func(t testing.TB) quota.Store {
		t.Helper()
		if made == 0 {
			first = testdb.PostgreSQL(parent)
			if err := cockroach.Migrate(t.Context(), first); err != nil {
				t.Fatalf("migrate: %v", err)
			}
		}
		made++
		u, err := url.Parse(first)
		if err != nil {
			t.Fatalf("parse %q: %v", first, err)
		}
		template := strings.TrimPrefix(u.Path, "/")
		name := fmt.Sprintf("%s_%d", template, made)
		u.Path = "/" + name
		testdb.Exec(t, first, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template))
		t.Cleanup(func() { testdb.Exec(t, first, fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name)) })
		return openShared(t, u.String())
	}
}

func openShared(t testing.TB, u string) quota.Store {
	t.Helper()
	s, err := cockroach.Open(t.Context(), cockroach.Options{URL: u})
	if err != nil {
		t.Fatalf("open store: %v", err)
	}
	return s
}

// wallClock is the time, moved ahead by what a test says.
type wallClock struct{ ahead atomic.Int64 }

func (c *wallClock) Now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// keys of one world, one of each role, by the name that calls are made under.
const (
	asAdmin  = "admin"
	asGate   = "gate"
	asViewer = "viewer"
	asNobody = "" // no key at all
)

// world is a server over a fresh store, and a connection to it.
type world struct {
	t       testing.TB
	store   quota.Store
	engine  *authority.Authority
	feed    *event.Feed
	limits  server.Limits
	clock   *wallClock // of the server, not of the authority: API keys end by it
	conn    *grpc.ClientConn
	secrets map[string]string // name -> API key

	authority purserv1.AuthorityServiceClient
	catalog   purserv1.CatalogServiceClient
	accounts  purserv1.AccountServiceClient
	keys      purserv1.KeyServiceClient
	usage     purserv1.UsageServiceClient
}

// newWorld starts a server on b, with keys of every role. It ends with t.
func newWorld(t testing.TB, b backend) *world {
	t.Helper()
	w := &world{t: t, store: b.open(t), limits: b.limits, clock: &wallClock{}, secrets: map[string]string{}}
	w.feed = event.NewFeed(w.clock.Now)
	t.Cleanup(func() {
		if err := w.store.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	})
	w.startEngine(b.embedded)
	w.serve(b.json)
	for name, role := range map[string]authz.Role{asAdmin: authz.RoleAdmin, asGate: authz.RoleGate, asViewer: authz.RoleViewer} {
		w.secrets[name] = w.newKey(authz.Key{Role: role, Principal: name, ExpireTime: authz.Never})
	}
	return w
}

func (w *world) startEngine(embedded bool) {
	w.t.Helper()
	c := authority.DefaultConfig()
	c.Address = "10.0.0.7:8443"
	c.Grace, c.Poll, c.Embedded = 100*time.Millisecond, 200*time.Millisecond, embedded
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	a, err := authority.New(c, authority.Deps{Store: w.store, Clock: &wallClock{}, Random: rand.Reader, Logger: logger, Watcher: w.feed})
	if err != nil {
		w.t.Fatalf("new authority: %v", err)
	}
	if err := a.Start(w.t.Context()); err != nil {
		w.t.Fatalf("start authority: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run authority: %v", err)
		}
	})
	w.engine = a
}

// serve starts the server and connects to it, the clients as JSON over HTTP if asked to.
func (w *world) serve(json bool) {
	w.t.Helper()
	s, err := server.New(server.Deps{Authority: w.engine, Store: w.store, Now: w.clock.Now, Feed: w.feed, Limits: w.limits,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		w.t.Fatalf("new server: %v", err)
	}
	l := bufconn.Listen(1 << 20)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	w.conn, err = grpc.NewClient("passthrough:///purser", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		w.t.Fatalf("connect: %v", err)
	}
	first := w.conn // a test may serve again
	w.t.Cleanup(func() {
		if err := first.Close(); err != nil {
			w.t.Errorf("close connection: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.GracefulStop(ctx)
		if err := <-ended; err != nil {
			w.t.Errorf("serve: %v", err)
		}
	})
	var conn grpc.ClientConnInterface = w.conn
	if json {
		conn = w.serveJSON(s)
	}
	w.authority = purserv1.NewAuthorityServiceClient(conn)
	w.catalog = purserv1.NewCatalogServiceClient(conn)
	w.accounts = purserv1.NewAccountServiceClient(conn)
	w.keys = purserv1.NewKeyServiceClient(conn)
	w.usage = purserv1.NewUsageServiceClient(conn)
}

// newKey puts an API key into the store and returns its secret.
func (w *world) newKey(k authz.Key) string {
	w.t.Helper()
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	k.ID, k.Hash = id, authz.HashSecret(secret)
	if k.Labels == nil {
		k.Labels = label.Set{}
	}
	if _, err := w.store.CreateKey(w.t.Context(), quota.Mutation{Principal: "test", Now: time.Now().UnixNano()}, k); err != nil {
		w.t.Fatalf("create key: %v", err)
	}
	return secret
}

// as is a context with the key that was kept under name.
func (w *world) as(name string) context.Context {
	if name == asNobody {
		return w.t.Context()
	}
	secret, ok := w.secrets[name]
	if !ok {
		w.t.Fatalf("there is no key %q in this test", name)
	}
	return withKey(w.t.Context(), secret)
}

func withKey(ctx context.Context, secret string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret)
}

// method is a method of a generated client.
type method[Q, R proto.Message] func(context.Context, Q, ...grpc.CallOption) (R, error)

// must calls and fails the test on an error.
func must[Q, R proto.Message](w *world, who string, m method[Q, R], req Q) R {
	w.t.Helper()
	resp, err := m(w.as(who), req)
	if err != nil {
		w.t.Fatalf("%T: %v", req, err)
	}
	return resp
}

// quiesce waits until all that was acknowledged is projected.
func (w *world) quiesce() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	if err := w.engine.Quiesce(ctx); err != nil {
		w.t.Fatalf("quiesce: %v", err)
	}
}

// audited proves the books from the store alone, with the acknowledgements given (I10).
func (w *world) audited(acks ...audit.Acknowledged) {
	w.t.Helper()
	w.quiesce()
	o := audit.Options{}
	if len(acks) > 0 {
		o.Acknowledged = func(yield func(audit.Acknowledged, error) bool) {
			for _, a := range acks {
				if !yield(a, nil) {
					return
				}
			}
		}
	}
	report, err := audit.Run(w.t.Context(), w.store, o)
	if err != nil {
		w.t.Fatalf("audit: %v", err)
	}
	for _, f := range report.Findings {
		w.t.Errorf("audit: %s", f)
	}
}

// await polls for a condition.
func (w *world) await(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeoutCause(w.t.Context(), patience, errors.New("it did not come to pass"))
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.t.Fatalf("wait until %s: %v", what, context.Cause(ctx))
		}
	}
}
