package server_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
)

// authority.Metrics is what server.Metrics has to be.
var _ authority.Metrics = (*server.Metrics)(nil)

func TestEveryMethodServedHasARow(t *testing.T) {
	w := newWorld(t)
	policy := authz.NewPolicy()
	served := make(map[string]bool)
	for service, info := range w.server.Services() {
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			served[name] = true
			if _, ok := policy.Roles(name); !ok {
				t.Errorf("%s has no row in the policy: nobody can call it", name)
			}
		}
	}
	if len(served) < 30 {
		t.Fatalf("only %d methods are served", len(served))
	}
	for _, name := range policy.Methods() {
		if !served[name] {
			t.Errorf("the policy has a row for %s, which is not served", name)
		}
	}
}

func TestNothingIsServedWithoutAKey(t *testing.T) {
	w := newWorld(t)
	for service, info := range w.server.Services() {
		if service == "grpc.health.v1.Health" {
			continue
		}
		for _, m := range info.Methods {
			name := "/" + service + "/" + m.Name
			err := invoke(t.Context(), w.conn, name, m.IsClientStream || m.IsServerStream)
			wantReason(t, name, err, quota.ReasonCredentialsMissing)
			if status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// invoke calls a method with an empty request, whatever its types are.
func invoke(ctx context.Context, conn *grpc.ClientConn, name string, stream bool) error {
	if !stream {
		return conn.Invoke(ctx, name, &purserv1.GetAccountRequest{}, &purserv1.GetAccountResponse{})
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if md, err := s.Header(); err == nil && md != nil {
		return nil // past the door: a stream that only the server ends may have nothing to say yet
	}
	return s.RecvMsg(&purserv1.GetAccountResponse{})
}

func TestRolesAreHeldTo(t *testing.T) {
	w := newWorld(t)
	policy := authz.NewPolicy()
	for _, role := range []authz.Role{authz.RoleGate, authz.RoleViewer, authz.RoleAdmin} {
		ctx := w.with(w.key(authz.Key{Role: role, Principal: "p-" + role.String()}))
		for _, name := range policy.Methods() {
			if strings.HasPrefix(name, "/grpc.") {
				continue
			}
			err := invoke(ctx, w.conn, name, strings.HasSuffix(name, "/Session") || strings.HasSuffix(name, "/WatchEvents"))
			refused := status.Code(err) == codes.PermissionDenied
			if refused == policy.Allows(role, name) {
				t.Errorf("%s calls %s: %v", role, name, err)
			}
		}
	}
}

func TestMessagesAreBounded(t *testing.T) {
	w := newWorld(t)
	_, err := w.gates.Commit(w.admin, &purserv1.CommitRequest{Token: make([]byte, 70<<10)})
	wantReason(t, "70 KiB on the data plane", err, quota.ReasonRequestInvalid)
	if !strings.Contains(status.Convert(err).Message(), "at most 65536") {
		t.Errorf("the bound is not named: %v", err)
	}
	_, err = w.accounts.CreateAccount(w.admin, &purserv1.CreateAccountRequest{Id: "a", DisplayName: strings.Repeat("x", 70<<10)})
	wantReason(t, "70 KiB on the admin plane", err, quota.ReasonRequestInvalid)
	if strings.Contains(status.Convert(err).Message(), "takes at most") {
		t.Errorf("the data plane's bound holds for admin calls: %v", err)
	}
	_, err = w.accounts.CreateAccount(w.admin, &purserv1.CreateAccountRequest{Id: "a", DisplayName: strings.Repeat("x", 5<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("5 MiB: %v", err)
	}
}

func TestHealthNeedsNoKeyAndReflectionDoes(t *testing.T) {
	w := newWorld(t)
	h, err := grpc_health_v1.NewHealthClient(w.conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "purser.v1.AuthorityService"})
	if err != nil || h.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	list := func(ctx context.Context) (*grpc_reflection_v1.ServerReflectionResponse, error) {
		s, err := grpc_reflection_v1.NewServerReflectionClient(w.conn).ServerReflectionInfo(ctx)
		if err != nil {
			return nil, err
		}
		// A refused stream may end before this is sent; the answer tells.
		_ = s.Send(&grpc_reflection_v1.ServerReflectionRequest{
			MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		_ = s.CloseSend()
		resp, err := s.Recv()
		if err != nil {
			return nil, err
		}
		if _, end := s.Recv(); end != io.EOF {
			return nil, end
		}
		return resp, nil
	}
	if _, err := list(t.Context()); status.Code(err) != codes.Unauthenticated {
		t.Errorf("reflection without a key: %v", err)
	}
	resp, err := list(w.admin)
	if err != nil || len(resp.GetListServicesResponse().GetService()) < 6 {
		t.Errorf("reflection: %v, %v", resp, err)
	}
}

func TestPlainTextStaysOnLoopback(t *testing.T) {
	w := newWorld(t)
	serve := func(change func(*server.Deps), address net.Addr) error {
		d := w.deps
		d.Metrics = nil
		change(&d)
		s, err := server.New(d)
		if err != nil {
			t.Fatal(err)
		}
		l := &listener{address: address, closed: make(chan struct{})}
		err = s.Serve(l)
		s.GracefulStop(t.Context())
		<-l.closed
		return err
	}
	outside := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}
	everywhere := &net.TCPAddr{IP: net.IPv6unspecified, Port: 443}
	for _, a := range []net.Addr{outside, everywhere} {
		err := serve(func(*server.Deps) {}, a)
		if err == nil || !strings.Contains(err.Error(), "plain text") {
			t.Errorf("plain text on %v: %v", a, err)
		}
	}
	// What is let through fails with the listener's own error.
	for name, c := range map[string]struct {
		change  func(*server.Deps)
		address net.Addr
	}{
		"loopback": {func(*server.Deps) {}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}},
		"insecure": {func(d *server.Deps) { d.Insecure = true }, outside},
		"TLS":      {func(d *server.Deps) { d.TLS = &tls.Config{} }, outside},
	} {
		if err := serve(c.change, c.address); err == nil || !strings.Contains(err.Error(), errAccept.Error()) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errAccept = io.ErrClosedPipe

// listener is one that nobody can reach.
type listener struct {
	address net.Addr
	closed  chan struct{}
}

func (l *listener) Accept() (net.Conn, error) { return nil, errAccept }
func (l *listener) Addr() net.Addr            { return l.address }
func (l *listener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func TestTLS(t *testing.T) {
	certificate, roots := selfSigned(t)
	w := newWorld(t)
	d := w.deps
	d.Metrics, d.TLS = nil, &tls.Config{Certificates: []tls.Certificate{certificate}}
	s, err := server.New(d)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	defer func() {
		s.GracefulStop(t.Context())
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	get := func(c *tls.Config) error {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(c)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		_, err = purserv1.NewAccountServiceClient(conn).ListAccounts(w.admin, &purserv1.ListAccountsRequest{})
		return err
	}
	if err := get(&tls.Config{RootCAs: roots, ServerName: "purser.test"}); err != nil {
		t.Errorf("TLS: %v", err)
	}
	if err := get(&tls.Config{RootCAs: roots, ServerName: "purser.test", MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
}

func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"purser.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func TestNewNamesEverythingThatIsMissing(t *testing.T) {
	_, err := server.New(server.Deps{})
	for _, name := range []string{"Authority", "Store", "Logger", "Now"} {
		if err == nil || !strings.Contains(err.Error(), "Deps."+name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
	w := newWorld(t)
	d := w.deps
	d.Metrics = server.NewMetrics()
	first, err := server.New(d)
	if err != nil {
		t.Fatal(err)
	}
	defer first.GracefulStop(t.Context())
	if _, err := server.New(d); err == nil {
		t.Error("two servers share one registry")
	}
}

func TestADenialIsAnAnswerWithALine(t *testing.T) {
	var log strings.Builder
	w := newWorld(t, func(d *server.Deps) { d.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 2 {
		resp, err := w.gates.CheckAndReserve(w.admin, &purserv1.CheckAndReserveRequest{Account: "nobody", Candidates: []string{"chat"}})
		if err != nil || resp.GetDecision() != purserv1.Decision_DECISION_DENIED ||
			resp.GetDenial().GetReason() != purserv1.DenialReason_DENIAL_REASON_ACCOUNT_UNKNOWN {
			t.Fatalf("%v, %v", resp, err)
		}
	}
	if !strings.Contains(log.String(), "reason=ACCOUNT_UNKNOWN") || strings.Contains(log.String(), "call failed") {
		t.Errorf("log %q", log.String())
	}
}
