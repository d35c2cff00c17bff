package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server"
)

const (
	reservePath = "/purser.v1.AuthorityService/CheckAndReserve"
	commitPath  = "/purser.v1.AuthorityService/Commit"
	balancePath = "/purser.v1.AuthorityService/GetBalance"
	sessionPath = "/purser.v1.AuthorityService/Session"
)

// site is a world that is served over HTTP as well, on a real socket.
type site struct {
	*world
	address string
	url     string
	secret  string       // of a gate key
	h1, h2  *http.Client // HTTP/1.1, and HTTP/2 without TLS
}

func newSite(t *testing.T, change ...func(*server.Deps)) *site {
	t.Helper()
	s := &site{world: newWorld(t, change...)}
	s.secret = s.key(authz.Key{Role: authz.RoleGate, Principal: "gateway"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	s.url = "http://" + s.address
	served := make(chan error, 1)
	go func() { served <- s.server.ServeWeb(l) }()
	t.Cleanup(func() { // newWorld's stops it, after this
		s.h1.CloseIdleConnections()
		s.h2.CloseIdleConnections()
		s.server.GracefulStop(context.Background())
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	s.h1 = &http.Client{Transport: &http.Transport{}}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	s.h2 = &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	return s
}

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

// post sends a call; headers are pairs. A gate's key is sent unless they say otherwise.
func (s *site) post(path, contentType string, body io.Reader, headers ...string) answer {
	s.t.Helper()
	return s.do(s.h1, http.MethodPost, path, contentType, body, headers...)
}

func (s *site) do(c *http.Client, method, path, contentType string, body io.Reader, headers ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.secret)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp, b}
}

// json reads a body into what it is; a body that is not JSON fails the test.
func (a answer) json(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%s: %v: %.300q", a.Status, err, a.body)
	}
}

// wireError is an error as JSON, as people and programs without the contract read it.
type wireError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Details []struct {
		Type  string `json:"type"`
		Debug struct {
			Reason          string            `json:"reason"`
			Domain          string            `json:"domain"`
			Metadata        map[string]string `json:"metadata"`
			RetryDelay      string            `json:"retryDelay"`
			FieldViolations []struct {
				Field       string `json:"field"`
				Description string `json:"description"`
			} `json:"fieldViolations"`
		} `json:"debug"`
	} `json:"details"`
}

func (e *wireError) detail(kind string) (i int, ok bool) {
	for i, d := range e.Details {
		if d.Type == kind {
			return i, true
		}
	}
	return 0, false
}

// wantRefusal wants a definite error with a reason, in JSON.
func (a answer) wantRefusal(t *testing.T, what string, status int, code string, reason quota.Reason, says string) wireError {
	t.Helper()
	var e wireError
	a.json(t, &e)
	if a.StatusCode != status || e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("%s: %s, %s, %q; want %d, %s, and it to say %q", what, a.Status, e.Code, e.Message, status, code, says)
	}
	i, ok := e.detail("google.rpc.ErrorInfo")
	if !ok {
		t.Errorf("%s: no ErrorInfo: %s", what, a.body)
		return e
	}
	if info := e.Details[i].Debug; info.Reason != string(reason) || info.Domain != "purser" || info.Metadata["not_applied"] != "true" {
		t.Errorf("%s: %+v; want %s, definite", what, info, reason)
	}
	return e
}

const reserveJSON = `{"account": "acme", "candidates": ["chat"], "estimates": [
	{"meter": "input_tokens", "quantity": 1000}, {"meter": "output_tokens", "quantity": "1000"}]}`

// TestJSON is the tour with curl: reserve and commit, on HTTP/1.1 and HTTP/2.
func TestJSON(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	for _, c := range []*http.Client{s.h1, s.h2} {
		var held struct {
			Decision    string
			Reservation struct{ Token, HeldMicros string }
		}
		a := s.do(c, http.MethodPost, reservePath, "application/json", strings.NewReader(reserveJSON))
		a.json(t, &held)
		if a.StatusCode != http.StatusOK || held.Decision != "DECISION_ALLOWED" || held.Reservation.HeldMicros != "4000000" {
			t.Fatalf("reserve: %s %s", a.Status, a.body)
		}
		var charged struct{ ChargedMicros, State string }
		s.do(c, http.MethodPost, commitPath, "application/json; charset=UTF-8", strings.NewReader(
			`{"token": "`+held.Reservation.Token+`", "usage": [{"meter": "input_tokens", "quantity": 500}], "outcome": "OUTCOME_SUCCESS"}`)).json(t, &charged)
		if charged.ChargedMicros != "500000" || charged.State != "RESERVATION_STATE_COMMITTED" {
			t.Errorf("commit: %+v", charged)
		}
	}
	a := s.post(balancePath, "application/json", strings.NewReader(`{"account": "acme"}`))
	var balance struct{ TotalMicros string }
	if a.json(t, &balance); a.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", a.Header)
	}
}

// errorInfo reads the reason out of what connect-go's client got.
func errorInfo(err error) (reason string, definite bool) {
	var e *connect.Error
	if !asConnect(err, &e) {
		return "", false
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				return info.GetReason(), info.GetMetadata()["not_applied"] == "true"
			}
		}
	}
	return "", false
}

func asConnect(err error, e **connect.Error) bool {
	c, ok := err.(*connect.Error)
	*e = c
	return ok
}

// TestProtocols calls in every protocol and encoding, with connect-go's own client, compressed
// and not.
func TestProtocols(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	zip := connect.WithSendGzip()
	for name, options := range map[string][]connect.ClientOption{
		"connect proto": nil, "connect JSON": {connect.WithProtoJSON()}, "connect gzip": {zip}, "connect JSON gzip": {connect.WithProtoJSON(), zip},
		"grpc": {connect.WithGRPC()}, "grpc JSON": {connect.WithGRPC(), connect.WithProtoJSON()}, "grpc gzip": {connect.WithGRPC(), zip},
		"grpc-web": {connect.WithGRPCWeb()}, "grpc-web JSON": {connect.WithGRPCWeb(), connect.WithProtoJSON()}, "grpc-web gzip": {connect.WithGRPCWeb(), zip},
	} {
		for version, c := range map[string]*http.Client{"HTTP/1.1": s.h1, "HTTP/2": s.h2} {
			if version == "HTTP/1.1" && strings.HasPrefix(name, "grpc") && !strings.HasPrefix(name, "grpc-web") {
				continue // gRPC is HTTP/2
			}
			t.Run(name+" "+version, func(t *testing.T) {
				reserve := connect.NewClient[purserv1.CheckAndReserveRequest, purserv1.CheckAndReserveResponse](c, s.url+reservePath, options...)
				req := connect.NewRequest(ask(1000, 1000))
				req.Header().Set("Authorization", "Bearer "+s.secret)
				resp, err := reserve.CallUnary(t.Context(), req)
				if err != nil || resp.Msg.GetReservation().GetHeldMicros() != 4_000_000 {
					t.Fatalf("reserve: %v, %v", resp, err)
				}
				commit := connect.NewClient[purserv1.CommitRequest, purserv1.CommitResponse](c, s.url+commitPath, options...)
				settle := connect.NewRequest(&purserv1.CommitRequest{Token: resp.Msg.GetReservation().GetToken()})
				settle.Header().Set("Authorization", "Bearer "+s.secret)
				done, err := commit.CallUnary(t.Context(), settle)
				if err != nil || done.Msg.GetState() != purserv1.ReservationState_RESERVATION_STATE_COMMITTED {
					t.Fatalf("commit: %v, %v", done, err)
				}
				settle.Msg.Token[3] ^= 1
				_, err = commit.CallUnary(t.Context(), settle)
				if reason, definite := errorInfo(err); reason != "TOKEN_INVALID" || !definite || connect.CodeOf(err) != connect.CodePermissionDenied {
					t.Errorf("forged token: %s, %v, %v", reason, definite, err)
				}
			})
		}
	}
}

// TestGRPCOverTheHTTPPort: a gRPC client may use either port.
func TestGRPCOverTheHTTPPort(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := purserv1.NewAuthorityServiceClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+s.secret)
	resp, err := client.CheckAndReserve(ctx, ask(1000, 1000))
	if err != nil || resp.GetReservation().GetHeldMicros() != 4_000_000 {
		t.Fatalf("%v, %v", resp, err)
	}
	_, err = client.CheckAndReserve(t.Context(), ask(1000, 1000))
	wantReason(t, "without a key", err, quota.ReasonCredentialsMissing)
	_, err = purserv1.NewAccountServiceClient(conn).ListAccounts(ctx, &purserv1.ListAccountsRequest{})
	wantReason(t, "a gate asks for accounts", err, quota.ReasonCallerNotAllowed)
	_, err = client.Commit(ctx, &purserv1.CommitRequest{Token: make([]byte, 70<<10)})
	wantReason(t, "70 KiB", err, quota.ReasonRequestInvalid)
}

// TestServerStream reads a stream of the server in Connect and gRPC-Web, which browsers can:
// the health service's.
func TestServerStream(t *testing.T) {
	s := newSite(t)
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "grpc-web": {connect.WithGRPCWeb()}, "grpc": {connect.WithGRPC()},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			watch := connect.NewClient[grpc_health_v1.HealthCheckRequest, grpc_health_v1.HealthCheckResponse](s.h2, s.url+"/grpc.health.v1.Health/Watch", options...)
			stream, err := watch.CallServerStream(ctx, connect.NewRequest(&grpc_health_v1.HealthCheckRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			if !stream.Receive() || stream.Msg().GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
				t.Errorf("%v, %v", stream.Msg(), stream.Err())
			}
			cancel()
			for stream.Receive() {
			}
			_ = stream.Close()
		})
	}
}

// TestSessionOverHTTP reserves and settles over a session on the HTTP port, in every protocol
// that streams in both directions; a session whose key is not known is turned away.
func TestSessionOverHTTP(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	for name, options := range map[string][]connect.ClientOption{
		"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "grpc-web": {connect.WithGRPCWeb()}, "grpc": {connect.WithGRPC()},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect.NewClient[purserv1.SessionRequest, purserv1.SessionResponse](s.h2, s.url+sessionPath, options...)
			stranger := client.CallBidiStream(t.Context())
			_ = stranger.Send(nil) // the headers
			if _, err := stranger.Receive(); connect.CodeOf(err) != connect.CodeUnauthenticated {
				t.Errorf("without a key: %v", err)
			}
			stream := client.CallBidiStream(t.Context())
			stream.RequestHeader().Set("Authorization", "Bearer "+s.secret)
			do := func(o *purserv1.Operation) *purserv1.OperationResult {
				if err := stream.Send(&purserv1.SessionRequest{Operations: []*purserv1.Operation{o}}); err != nil {
					t.Fatal(err)
				}
				m, err := stream.Receive()
				if err != nil || len(m.GetResults()) != 1 || m.GetResults()[0].GetId() != o.GetId() {
					t.Fatalf("%v, %v", m, err)
				}
				return m.GetResults()[0]
			}
			held := do(&purserv1.Operation{Id: 1, Call: &purserv1.Operation_CheckAndReserve{CheckAndReserve: ask(1000, 1000)}})
			token := held.GetCheckAndReserve().GetReservation().GetToken()
			charged := do(&purserv1.Operation{Id: 2, Call: &purserv1.Operation_Commit{Commit: &purserv1.CommitRequest{
				Token: token, Usage: []*purserv1.MeterQuantity{{Meter: "input_tokens", Quantity: 500}}}}})
			if charged.GetCommit().GetChargedMicros() != 500_000 {
				t.Errorf("reserved %v, committed %v", held, charged)
			}
			if err := stream.CloseRequest(); err != nil {
				t.Fatal(err)
			}
			if m, err := stream.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("half-closed: %v, %v", m, err)
			}
			_ = stream.CloseResponse()
		})
	}
}

// TestSessionNeedsHTTP2: it is a stream in both directions.
func TestSessionNeedsHTTP2(t *testing.T) {
	s := newSite(t)
	a := s.post(sessionPath, "application/connect+json", bytes.NewReader(frame(0, []byte("{}"))))
	if a.Header.Get("Content-Type") != "application/connect+json" || !bytes.Contains(a.body, []byte("FEATURE_DISABLED")) || !bytes.Contains(a.body, []byte("needs HTTP/2")) {
		t.Errorf("over HTTP/1.1: %s %v %q", a.Status, a.Header, a.body)
	}
	s.post(sessionPath, "application/json", strings.NewReader("{}")).
		wantRefusal(t, "as a single call", http.StatusUnsupportedMediaType, "invalid_argument", quota.ReasonRequestInvalid, "application/connect+json")
}

// frame is a message of gRPC, gRPC-Web or a Connect stream.
func frame(flags byte, message []byte) []byte {
	n := len(message)
	return append([]byte{flags, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, message...)
}

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
