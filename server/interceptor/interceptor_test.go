package interceptor_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/server/caller"
	"github.com/purser-io/purser/server/grpcerr"
	"github.com/purser-io/purser/server/interceptor"
)

type clock int64

func (c clock) Now() time.Time { return time.Unix(0, int64(c)) }

// keys is a key store; err stands for a database that is away.
type keys struct {
	authz.Key
	err error
}

func (k keys) FindKey(_ context.Context, id string) (authz.Key, error) {
	if k.err != nil {
		return authz.Key{}, k.err
	}
	if id != k.ID {
		return authz.Key{}, quota.Errorf(quota.ReasonKeyNotFound, "no such key")
	}
	return k.Key, nil
}

func newKey(t *testing.T) (authz.Key, string) {
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return authz.Key{ID: id, Hash: authz.HashSecret(secret), Role: authz.RoleGate, Principal: "gw", ExpireTime: 1000}, secret
}

func TestAuthenticate(t *testing.T) {
	key, secret := newKey(t)
	_, other := newKey(t)
	revoked := key
	revoked.RevokeTime = 5
	down := &quota.Error{Reason: quota.ReasonStoreUnavailable}
	cases := []struct {
		name   string
		store  keys
		now    clock
		header []string
		want   quota.Reason
	}{
		{"good", keys{Key: key}, 10, []string{"Bearer " + secret}, ""},
		{"scheme in lower case", keys{Key: key}, 10, []string{"bearer " + secret}, ""},
		{"none", keys{Key: key}, 10, nil, quota.ReasonCredentialsMissing},
		{"empty", keys{Key: key}, 10, []string{""}, quota.ReasonCredentialsInvalid},
		{"two", keys{Key: key}, 10, []string{"Bearer " + secret, "Bearer " + secret}, quota.ReasonCredentialsInvalid},
		{"other scheme", keys{Key: key}, 10, []string{"Basic " + secret}, quota.ReasonCredentialsInvalid},
		{"no form", keys{Key: key}, 10, []string{"Bearer hello"}, quota.ReasonCredentialsInvalid},
		{"unknown", keys{Key: key}, 10, []string{"Bearer " + other}, quota.ReasonCredentialsInvalid},
		{"wrong secret", keys{Key: key}, 10, []string{"Bearer " + secret[:len(secret)-1] + "_"}, quota.ReasonCredentialsInvalid},
		{"expired", keys{Key: key}, 1000, []string{"Bearer " + secret}, quota.ReasonCredentialsInvalid},
		{"revoked", keys{Key: revoked}, 10, []string{"Bearer " + secret}, quota.ReasonCredentialsInvalid},
		{"store away", keys{err: down}, 10, []string{"Bearer " + secret}, quota.ReasonStoreUnavailable},
		{"unknown outcome of a read", keys{err: quota.Errorf(quota.ReasonOutcomeUnknown, "")}, 10, []string{"Bearer " + secret}, quota.ReasonStoreUnavailable},
	}
	messages := make(map[string]bool)
	for _, c := range cases {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": c.header})
		ctx, err := interceptor.NewAuthenticator(c.store, c.now).Authenticate(ctx)
		p, ok := caller.From(ctx)
		if c.want == "" {
			if err != nil || !ok || p.Name != "gw" || p.Role != authz.RoleGate {
				t.Errorf("%s: %v, %v", c.name, p, err)
			}
			continue
		}
		var e *quota.Error
		if !errors.Is(err, c.want) || !errors.As(err, &e) || !e.NotApplied || ok {
			t.Errorf("%s: principal %v, error %v, want definite %s", c.name, p, err, c.want)
		}
		if c.want == quota.ReasonCredentialsInvalid {
			messages[e.Error()] = true
		}
	}
	if len(messages) != 1 {
		t.Errorf("invalid keys are told apart: %v", messages)
	}
}

// call runs one unary interceptor around a handler.
func call(ctx context.Context, i grpc.UnaryServerInterceptor, method string, req any, h grpc.UnaryHandler) (any, error) {
	return i(ctx, req, &grpc.UnaryServerInfo{FullMethod: method}, h)
}

func ok(context.Context, any) (any, error) { return "ok", nil }

func TestOnlyOpenMethodsNeedNoKey(t *testing.T) {
	unary, _ := interceptor.NewAuthenticator(keys{}, clock(0)).Interceptors(authz.NewPolicy())
	if _, err := call(t.Context(), unary, "/grpc.health.v1.Health/Check", nil, ok); err != nil {
		t.Errorf("health: %v", err)
	}
	if _, err := call(t.Context(), unary, "/purser.v1.AuthorityService/Check", nil, ok); !errors.Is(err, quota.ReasonCredentialsMissing) {
		t.Errorf("without a key: %v", err)
	}
}

func TestAuthorize(t *testing.T) {
	unary, _ := interceptor.Authorize(authz.NewPolicy())
	viewer := caller.NewContext(t.Context(), &authz.Principal{Role: authz.RoleViewer})
	cases := []struct {
		ctx    context.Context
		method string
		want   error
	}{
		{viewer, "/purser.v1.AccountService/GetAccount", nil},
		{viewer, "/purser.v1.AccountService/CreateGrant", quota.ReasonCallerNotAllowed},
		{viewer, "/purser.v1.AccountService/NoRow", quota.ReasonCallerNotAllowed},
		{t.Context(), "/purser.v1.AccountService/GetAccount", quota.ReasonCallerNotAllowed},
		{t.Context(), "/grpc.health.v1.Health/Check", nil},
	}
	for _, c := range cases {
		if _, err := call(c.ctx, unary, c.method, nil, ok); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.method, err, c.want)
		}
	}
}

func TestDeadline(t *testing.T) {
	limit := func(string) time.Duration { return time.Hour }
	i := interceptor.Deadline(time.Minute, limit)
	var got time.Time
	see := func(ctx context.Context, _ any) (any, error) {
		got, _ = ctx.Deadline()
		return nil, nil
	}
	at := time.Now().Add(10 * time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), at)
	defer cancel()
	if _, err := call(ctx, i, "/m", nil, see); err != nil || !got.Equal(at.Add(-time.Minute)) {
		t.Errorf("deadline %v, want a minute before %v (%v)", got, at, err)
	}
	before := time.Now()
	if _, err := call(t.Context(), i, "/m", nil, see); err != nil || got.Before(before.Add(time.Hour)) {
		t.Errorf("without a deadline: %v (%v)", got, err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	called := false
	_, err := call(short, i, "/m", nil, func(context.Context, any) (any, error) { called = true; return nil, nil })
	if !errors.Is(err, context.DeadlineExceeded) || called {
		t.Errorf("no time left: called %v, %v", called, err)
	}
}

func TestSize(t *testing.T) {
	i := interceptor.Size(func(string) int { return 10 })
	if _, err := call(t.Context(), i, "/m", &purserv1.GetAccountRequest{Id: "12345678"}, ok); err != nil {
		t.Errorf("at the bound: %v", err)
	}
	_, err := call(t.Context(), i, "/m", &purserv1.GetAccountRequest{Id: "123456789"}, ok)
	if !errors.Is(err, quota.ReasonRequestInvalid) || !strings.Contains(err.Error(), "the message has 11 bytes; /m takes at most 10") {
		t.Errorf("above the bound: %v", err)
	}
	unknown := &purserv1.GetAccountRequest{}
	unknown.ProtoReflect().SetUnknown(bytes.Repeat([]byte{0x98, 0x06, 0x01}, 5))
	if _, err := call(t.Context(), i, "/m", unknown, ok); !errors.Is(err, quota.ReasonRequestInvalid) {
		t.Errorf("unknown fields do not count: %v", err)
	}
}

func TestValidate(t *testing.T) {
	v, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	i, _ := interceptor.Validate(v, func(s string) bool { return s == "x.Admin" })
	refused := func(req any) error {
		_, err := call(t.Context(), i, "/x.Admin/Do", req, ok)
		return err
	}
	if _, err := call(t.Context(), i, "/x.Data/Do", &purserv1.GetAccountRequest{}, ok); err != nil {
		t.Errorf("another method was validated: %v", err)
	}
	if err := refused(&purserv1.GetAccountRequest{Id: "acme"}); err != nil {
		t.Errorf("a good request: %v", err)
	}
	err = refused(&purserv1.CreateGrantRequest{Account: "acme", AmountMicros: -5, Kind: purserv1.GrantKind_GRANT_KIND_PLAN})
	if !errors.Is(err, quota.ReasonAmountInvalid) || !strings.Contains(err.Error(), "amount_micros") || !strings.Contains(err.Error(), "-5") {
		t.Errorf("negative amount: %v", err)
	}
	err = refused(&purserv1.CreateGrantRequest{Account: "no account", AmountMicros: 0})
	var invalid *grpcerr.InvalidError
	if !errors.Is(err, quota.ReasonRequestInvalid) || !errors.As(err, &invalid) || len(invalid.Violations) != 3 {
		t.Errorf("three fields are wrong: %v", err)
	}
	err = refused(&purserv1.PublishPlanVersionRequest{Plan: strings.Repeat("p", 9999)})
	if !errors.Is(err, quota.ReasonRequestInvalid) || len(err.Error()) > 400 {
		t.Errorf("a long value: %v", err)
	}
	if err := refused("no message"); err == nil {
		t.Error("what is no message was let through")
	}
}

func TestSampler(t *testing.T) {
	s := &interceptor.Sampler{First: 2, Every: 5}
	var taken []uint64
	for range 12 {
		if seen, ok := s.Take(); ok {
			taken = append(taken, seen)
		}
	}
	if len(taken) != 4 || taken[0] != 1 || taken[1] != 2 || taken[2] != 5 || taken[3] != 10 {
		t.Errorf("took %v", taken)
	}
}

func TestLogNamesTheCallerAndNothingSent(t *testing.T) {
	var out bytes.Buffer
	i := interceptor.Log(slog.New(slog.NewTextHandler(&out, nil)), func(s string) bool { return s == "purser.v1.Admin" })
	ctx := caller.NewContext(t.Context(), &authz.Principal{Name: "ops", Role: authz.RoleAdmin, KeyID: "k1"})
	fails := func(context.Context, any) (any, error) { return nil, quota.Errorf(quota.ReasonETagMismatch, "changed") }
	if _, err := call(ctx, i, "/purser.v1.Data/Do", &purserv1.GetAccountRequest{Id: "acme"}, fails); err == nil || out.Len() != 0 {
		t.Fatalf("data plane: %v, log %q", err, out.String())
	}
	if _, err := call(ctx, i, "/purser.v1.Admin/Do", &purserv1.GetAccountRequest{Id: "acme"}, fails); err == nil {
		t.Fatal("the error was lost")
	}
	line := out.String()
	for _, want := range []string{"principal=ops", "role=admin", "key=k1", "grpc.method=Do", "grpc.code=Aborted", "level=WARN"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is not in %q", want, line)
		}
	}
	if strings.Contains(line, "acme") || strings.Count(line, "\n") != 1 {
		t.Errorf("log %q", line)
	}
}

// TestLogLevels: changes are what an operator reads of; looking is for debugging.
func TestLogLevels(t *testing.T) {
	for _, c := range []struct {
		method string
		err    error
		want   string
	}{
		{"CreateGrant", nil, "INFO"},
		{"SetSubscription", nil, "INFO"},
		{"CreateGrant", quota.Errorf(quota.ReasonAccountNotFound, "none"), "INFO"},
		{"GetAccount", nil, "DEBUG"},
		{"ListGrants", nil, "DEBUG"},
		{"GetAccount", quota.Errorf(quota.ReasonAccountNotFound, "none"), "DEBUG"},
		{"GetAccount", quota.Errorf(quota.ReasonCallerNotAllowed, "no"), "WARN"},
		{"ListGrants", quota.Errorf(quota.ReasonInternal, "broken"), "ERROR"},
	} {
		var out bytes.Buffer
		i := interceptor.Log(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), func(string) bool { return true })
		_, err := call(t.Context(), i, "/purser.v1.AccountService/"+c.method, nil, func(context.Context, any) (any, error) { return nil, c.err })
		if !errors.Is(err, c.err) || !strings.Contains(out.String(), "level="+c.want+" ") || !strings.Contains(out.String(), "grpc.method="+c.method) {
			t.Errorf("%s, %v: want level %s, logged %q", c.method, c.err, c.want, out.String())
		}
	}
}

type failures map[quota.Reason]int

func (f failures) Failed(r quota.Reason, _ codes.Code) { f[r]++ }

func TestErrorsAreMappedCountedAndLogged(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	count := failures{}
	unary, _ := (&interceptor.Failures{Logger: log, Errs: grpcerr.New(log), Count: count, Sample: &interceptor.Sampler{First: 1}}).Interceptors()
	if resp, err := call(t.Context(), unary, "/m", nil, ok); resp != "ok" || err != nil || out.Len() != 0 {
		t.Errorf("success: %v, %v, log %q", resp, err, out.String())
	}
	for range 3 {
		resp, err := call(t.Context(), unary, "/m", nil, func(context.Context, any) (any, error) {
			return "half done", quota.Errorf(quota.ReasonAccountNotFound, "no account")
		})
		if status.Code(err) != codes.NotFound || resp != nil {
			t.Errorf("%v, %v", resp, err)
		}
	}
	if count[quota.ReasonAccountNotFound] != 3 || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("counted %v, log %q", count, out.String())
	}
}

// serverStream is a stream of which only the context is asked for.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

// TestWhatAReadDoesNotFindIsNoWarning: it is counted, has no line, and takes no other's place
// in the sample.
func TestWhatAReadDoesNotFindIsNoWarning(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	count := failures{}
	unary, _ := (&interceptor.Failures{Logger: log, Errs: grpcerr.New(log), Count: count, Sample: &interceptor.Sampler{First: 1}}).Interceptors()
	absent := func(context.Context, any) (any, error) {
		return nil, quota.Errorf(quota.ReasonAccountNotFound, "no account")
	}
	if _, err := call(t.Context(), unary, "/purser.v1.AccountService/GetAccount", nil, absent); status.Code(err) != codes.NotFound || out.Len() != 0 {
		t.Errorf("a read: %v, log %q", err, out.String())
	}
	if _, err := call(t.Context(), unary, "/purser.v1.AccountService/CreateGrant", nil, absent); status.Code(err) != codes.NotFound || !strings.Contains(out.String(), "level=WARN") {
		t.Errorf("a change: %v, log %q", err, out.String())
	}
	if count[quota.ReasonAccountNotFound] != 2 {
		t.Errorf("counted %v", count)
	}
	out.Reset()
	_, stream := (&interceptor.Failures{Logger: log, Errs: grpcerr.New(log), Count: count, Sample: &interceptor.Sampler{First: 9}}).Interceptors()
	left, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		ctx   context.Context
		lines int
	}{{left, 0}, {t.Context(), 1}} { // cancelled by the caller, and by nobody that we know
		err := stream(nil, serverStream{ctx: c.ctx}, &grpc.StreamServerInfo{FullMethod: "/purser.v1.EventService/WatchEvents"},
			func(any, grpc.ServerStream) error { return context.Canceled })
		if status.Code(err) != codes.Canceled || strings.Count(out.String(), "\n") != c.lines {
			t.Errorf("%v, log %q", err, out.String())
		}
	}
}

func TestRecover(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	unary, _ := interceptor.Recover(log, grpcerr.New(log))
	_, err := call(t.Context(), unary, "/m", nil, func(context.Context, any) (any, error) { panic("boom") })
	if st := status.Convert(err); st.Code() != codes.Internal || strings.Contains(st.Message(), "boom") {
		t.Errorf("sent %v", st)
	}
	if !strings.Contains(out.String(), "boom") || !strings.Contains(out.String(), "interceptor_test.go") {
		t.Errorf("the log lacks the panic or its stack: %q", out.String())
	}
	defer func() {
		if _, ok := recover().(escrow.Violation); !ok {
			t.Error("a broken invariant was recovered from")
		}
	}()
	_, err = call(t.Context(), unary, "/m", nil, func(context.Context, any) (any, error) { panic(escrow.Violation("I4")) })
	t.Errorf("a broken invariant was answered with %v", err)
}
