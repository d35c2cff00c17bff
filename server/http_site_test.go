package server_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/server/web"
)

// TestOrigins asks as browsers do before and with a page's call.
func TestOrigins(t *testing.T) {
	const page, other = "https://app.example.com", "https://evil.example.com"
	for name, c := range map[string]struct {
		origins       []string
		origin, allow string // what the answer says; "" = nothing, and the browser refuses
	}{
		"none":     {nil, page, ""},
		"this one": {[]string{"http://localhost:3000", page}, page, page},
		"another":  {[]string{page}, other, ""},
		"all":      {[]string{"*"}, other, "*"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, func(d *server.Deps) { d.Origins = c.origins })
			s.chat(1)
			ask := s.do(s.h1, http.MethodOptions, reservePath, "", nil, "Origin", c.origin, "Access-Control-Request-Method", "POST",
				"Access-Control-Request-Headers", "authorization,connect-protocol-version,content-type,grpc-timeout,x-grpc-web")
			if got := ask.Header.Get("Access-Control-Allow-Origin"); got != c.allow {
				t.Errorf("preflight: allowed is %q, want %q", got, c.allow)
			}
			if got := ask.Header.Get("Access-Control-Allow-Headers"); c.allow != "" && !strings.Contains(got, "authorization") {
				t.Errorf("preflight: headers %q", got)
			}
			if c.allow != "" && (ask.StatusCode != http.StatusNoContent || ask.Header.Get("Access-Control-Max-Age") != "7200") {
				t.Errorf("preflight: %s %v", ask.Status, ask.Header)
			}
			for what, body := range map[string]string{"an answer": reserveJSON, "an error": "{"} {
				got := s.post(reservePath, "application/json", strings.NewReader(body), "Origin", c.origin)
				if origin := got.Header.Get("Access-Control-Allow-Origin"); origin != c.allow {
					t.Errorf("%s: allowed is %q, want %q", what, origin, c.allow)
				}
				if exposed := got.Header.Get("Access-Control-Expose-Headers"); c.allow != "" && !strings.Contains(exposed, "Grpc-Status-Details-Bin") {
					t.Errorf("%s: exposed are %q", what, exposed)
				}
			}
			if refused := s.do(s.h1, http.MethodOptions, reservePath, "", nil, "Origin", c.origin, "Access-Control-Request-Method", "DELETE"); refused.Header.Get("Access-Control-Allow-Methods") != "" {
				t.Errorf("DELETE is allowed: %v", refused.Header)
			}
		})
	}
}

func TestOriginsAreChecked(t *testing.T) {
	w := newWorld(t)
	for _, o := range []string{"app.example.com", "https://app.example.com/", "https://app.example.com/path", "ftp://x", "https://", "https://*.example.com/", ""} {
		d := w.deps
		d.Metrics, d.Origins = nil, []string{o}
		if _, err := server.New(d); err == nil || !strings.Contains(err.Error(), "is no web origin") {
			t.Errorf("%q: %v", o, err)
		}
	}
}

// TestHealthEndpoints: both HTTP ports say whether the node takes reservations, without a key,
// and a drain shows at once, while settlements are served.
func TestHealthEndpoints(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	ops := httptest.NewServer(s.server.MetricsHandler())
	defer ops.Close()
	resp, err := s.gates.CheckAndReserve(s.with(s.secret), ask(1000, 0))
	if err != nil {
		t.Fatal(err)
	}
	look := func(path string, code int, text string, headers ...string) {
		t.Helper()
		for _, base := range []string{s.url, ops.URL} {
			at := *s
			at.url = base
			a := at.do(http.DefaultClient, http.MethodGet, path, "", nil, append(headers, "Authorization", "")...)
			if a.StatusCode != code || !strings.Contains(string(a.body), text) || a.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s%s: %s %v %q; want %d and %q", base, path, a.Status, a.Header, a.body, code, text)
			}
		}
	}
	defer http.DefaultClient.CloseIdleConnections()
	look("/livez", 200, "ok\n")
	look("/healthz", 200, "ok\n")
	look("/readyz", 200, "ready\n")
	look("/readyz?verbose", 200, `{"status":"ready"}`)
	if err := s.authority.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("/livez", 200, "ok")
	look("/readyz", 503, "draining: ")
	look("/readyz", 503, `{"status":"draining","reason":"`, "Accept", "application/json")
	a := s.post(commitPath, "application/json", strings.NewReader(`{"token": "`+base64Of(resp.GetReservation().GetToken())+`"}`))
	if a.StatusCode != http.StatusOK {
		t.Errorf("a commit while draining: %s %s", a.Status, a.body)
	}
}

// TestHTTPS serves with the certificate of the gRPC port, HTTP/2 by negotiation, and no plain
// text.
func TestHTTPS(t *testing.T) {
	certificate, roots := selfSigned(t)
	s := newSite(t, func(d *server.Deps) { d.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}} })
	s.url = "https://" + s.address
	for protocol, transport := range map[string]*http.Transport{
		"HTTP/1.1": {TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "purser.test"}},
		"HTTP/2.0": {TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "purser.test"}, ForceAttemptHTTP2: true},
	} {
		a := s.do(&http.Client{Transport: transport}, http.MethodPost, balancePath, "application/json", strings.NewReader(`{"account": "nobody"}`))
		a.wantRefusal(t, protocol, 404, "not_found", "ACCOUNT_NOT_FOUND", "nobody")
		if a.Proto != protocol {
			t.Errorf("spoke %s, want %s", a.Proto, protocol)
		}
		transport.CloseIdleConnections()
	}
	s.url = "http://" + s.address
	if a := s.do(s.h1, http.MethodPost, balancePath, "application/json", strings.NewReader("{}")); a.StatusCode != http.StatusBadRequest || strings.Contains(string(a.body), "purser") {
		t.Errorf("plain text: %s %q", a.Status, a.body)
	}
}

func TestPlainHTTPStaysOnLoopback(t *testing.T) {
	w := newWorld(t)
	l := &listener{address: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}, closed: make(chan struct{})}
	if err := w.server.ServeWeb(l); err == nil || !strings.Contains(err.Error(), "plain text") {
		t.Errorf("plain text off loopback: %v", err)
	}
	<-l.closed
}

// TestStopWaitsForCalls: a commit that waits for its flush is answered before the connections
// end, and new calls are not taken.
func TestStopWaitsForCalls(t *testing.T) {
	s := newSite(t)
	c := s.raw()
	if _, err := c.Write([]byte(s.head(balancePath, 2))); err != nil {
		t.Fatal(err)
	}
	// The server has the head when it serves another connection's call.
	s.post(balancePath, "application/json", strings.NewReader("{}"))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.server.GracefulStop(context.Background())
	}()
	for { // until it takes no more connections
		d, err := net.DialTimeout("tcp", s.address, time.Second)
		if err != nil {
			break
		}
		d.Close()
	}
	select {
	case <-stopped:
		t.Error("it stopped with a call under way")
	default:
	}
	if _, err := c.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 12)
	if _, err := c.Read(b); err != nil || string(b) != "HTTP/1.1 400" {
		t.Errorf("the call was answered with %q, %v", b, err)
	}
	<-stopped
}

// broken is a service that finds the books wrong.
type broken struct{}

func brokenService() web.Service {
	return web.Service{Impl: broken{}, Desc: &grpc.ServiceDesc{ServiceName: "x.Broken", Methods: []grpc.MethodDesc{{MethodName: "Do",
		Handler: func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
			panic(escrow.Violation("I4"))
		}}}}}
}

// TestBrokenInvariantEndsTheProcess runs itself: net/http would recover from the panic, log it,
// and the node would go on spending.
func TestBrokenInvariantEndsTheProcess(t *testing.T) {
	if os.Getenv("PURSER_TEST_BROKEN") == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestBrokenInvariantEndsTheProcess$")
		child.Env = append(os.Environ(), "PURSER_TEST_BROKEN=1")
		out, err := child.CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: ") || !strings.Contains(string(out), "I4") {
			t.Errorf("the process went on: %v\n%s", err, out)
		}
		return
	}
	h, err := web.New(web.Config{Services: []web.Service{brokenService()}, Logger: slog.New(slog.DiscardHandler),
		MessageBytes: func(string, bool) int { return 1 << 10 }, Settles: func(string) bool { return false },
		Refuse: func(_ context.Context, _ string, err error) error { return err }})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(h)
	defer s.Close()
	resp, err := http.Post(s.URL+"/x.Broken/Do", "application/json", strings.NewReader("{}"))
	if err == nil {
		resp.Body.Close()
	}
	t.Log("still here")
}

// TestCallsOverHTTPAreCounted: in the same metrics as those over gRPC.
func TestCallsOverHTTPAreCounted(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	s.post(reservePath, "application/json", strings.NewReader(reserveJSON))
	s.post(reservePath, "application/json", strings.NewReader(`{"acount": "acme"}`))
	s.post("/nowhere", "application/json", strings.NewReader(`{}`))
	w := httptest.NewRecorder()
	s.server.MetricsHandler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`rpc_server_call_duration_seconds_count{rpc_method="purser.v1.AuthorityService/CheckAndReserve",rpc_response_status_code="OK",rpc_system_name="grpc"} 1`,
		`rpc_server_call_duration_seconds_count{rpc_method="purser.v1.AuthorityService/CheckAndReserve",rpc_response_status_code="INVALID_ARGUMENT",rpc_system_name="grpc"} 1`,
		`purser_call_errors_total{code="InvalidArgument",reason="REQUEST_INVALID"} 1`,
		`purser_call_errors_total{code="Unimplemented",reason="FEATURE_DISABLED"} 1`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestSilentConnectionsToGRPCEnd: who connects and does not begin to speak is cut off.
func TestSilentConnectionsToGRPCEnd(t *testing.T) {
	w := newWorld(t, func(d *server.Deps) { d.Limits.HandshakeTime = 100 * time.Millisecond })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- w.server.Serve(l) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // half of gRPC's own limit
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		t.Errorf("the connection stands: %v", err)
	}
	w.server.GracefulStop(t.Context())
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}
