package server_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server"
)

func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestBadInputOverHTTP: whatever is wrong, the answer is JSON that says what, with a reason,
// and that nothing was applied.
func TestBadInputOverHTTP(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	const (
		text    = "application/json"
		binary  = "application/proto"
		invalid = "invalid_argument"
	)
	bad, disabled := quota.ReasonRequestInvalid, quota.ReasonFeatureDisabled
	zeros := make([]byte, 64<<20)
	bomb := zipped(t, zeros)
	if len(bomb) > 65535 {
		bomb = zipped(t, zeros[:32<<20])
	}
	for _, c := range []struct {
		name, method, path, contentType string
		body                            []byte
		headers                         []string
		status                          int
		code                            string
		reason                          quota.Reason
		says                            string
	}{
		{"no path", "POST", "/", text, []byte("{}"), nil, 404, "unimplemented", disabled, "/package.Service/Method"},
		{"an unknown method", "POST", "/purser.v1.AuthorityService/Reserve", text, []byte("{}"), nil, 404, "unimplemented", disabled, "nothing is served"},
		{"a GET", "GET", reservePath + "?encoding=json&message=%7B%7D", "", nil, nil, 405, invalid, bad, "by POST, not by GET"},
		{"a PUT", "PUT", reservePath, text, []byte("{}"), nil, 405, invalid, bad, "by POST, not by PUT"},
		{"a preflight, of which there are none", "OPTIONS", reservePath, "", nil, []string{"Origin", "https://a.example", "Access-Control-Request-Method", "POST"}, 405, invalid, bad, "not by OPTIONS"},
		{"no content type", "POST", reservePath, "", []byte("{}"), nil, 415, invalid, bad, "application/json, application/proto"},
		{"a form", "POST", reservePath, "application/x-www-form-urlencoded", []byte("account=acme"), nil, 415, invalid, bad, `"application/x-www-form-urlencoded"`},
		{"text, which needs no preflight", "POST", reservePath, "text/plain", []byte("{}"), nil, 415, invalid, bad, `"text/plain"`},
		{"another charset", "POST", reservePath, "application/json; charset=latin1", []byte("{}"), nil, 415, invalid, bad, "latin1"},
		{"an unknown encoding", "POST", reservePath, text, []byte("{}"), []string{"Content-Encoding", "br"}, 415, "unimplemented", disabled, `"br"; gzip and identity`},
		{"another version", "POST", reservePath, text, []byte("{}"), []string{"Connect-Protocol-Version", "2"}, 400, invalid, bad, "Connect-Protocol-Version"},
		{"no deadline", "POST", reservePath, text, []byte("{}"), []string{"Connect-Timeout-Ms", "soon"}, 400, invalid, bad, `"soon"`},
		{"no body", "POST", reservePath, text, nil, nil, 400, invalid, bad, "{}"},
		{"no JSON", "POST", reservePath, text, []byte("account: acme"), nil, 400, invalid, bad, "line 1:1"},
		{"half of it", "POST", reservePath, text, []byte(`{"account": "ac`), nil, 400, invalid, bad, "purser.v1.CheckAndReserveRequest"},
		{"two of it", "POST", reservePath, text, []byte(`{} {}`), nil, 400, invalid, bad, "unexpected token"},
		{"a list", "POST", reservePath, text, []byte(`[]`), nil, 400, invalid, bad, "unexpected token ["},
		{"an unknown field", "POST", reservePath, text, []byte(`{"account": "acme", "candidates": ["chat"], "ttI": "5s"}`), nil, 400, invalid, bad, `unknown field "ttI"`},
		{"an unknown field inside", "POST", reservePath, text, []byte(`{"estimates": [{"meter": "m", "quantitty": 5}]}`), nil, 400, invalid, bad, `unknown field "quantitty"`},
		{"a field twice", "POST", reservePath, text, []byte(`{"account": "a", "account": "b"}`), nil, 400, invalid, bad, `duplicate field "account"`},
		{"a fraction", "POST", reservePath, text, []byte(`{"estimates": [{"quantity": 1.5}]}`), nil, 400, invalid, bad, "quantity"},
		{"a number that is none", "POST", reservePath, text, []byte(`{"estimates": [{"quantity": "many"}]}`), nil, 400, invalid, bad, "many"},
		{"a number beyond int64", "POST", reservePath, text, []byte(`{"estimates": [{"quantity": 9223372036854775808}]}`), nil, 400, invalid, bad, "9223372036854775808"},
		{"text for a list", "POST", reservePath, text, []byte(`{"candidates": "chat"}`), nil, 400, invalid, bad, "unexpected token"},
		{"no duration", "POST", reservePath, text, []byte(`{"ttl": 30}`), nil, 400, invalid, bad, "30"},
		{"no base64", "POST", commitPath, text, []byte(`{"token": "***"}`), nil, 400, invalid, bad, "token"},
		{"an unknown enum", "POST", commitPath, text, []byte(`{"outcome": "OUTCOME_FINE"}`), nil, 400, invalid, bad, "OUTCOME_FINE"},
		{"no UTF-8", "POST", reservePath, text, []byte("{\"account\": \"\xff\"}"), nil, 400, invalid, bad, "UTF-8"},
		{"deep nesting", "POST", reservePath, text, []byte(strings.Repeat("[", 30000)), nil, 400, invalid, bad, "unexpected token"},
		{"no protobuf", "POST", reservePath, binary, []byte("\xff\xff\xff"), nil, 400, invalid, bad, "purser.v1.CheckAndReserveRequest"},
		{"not compressed", "POST", reservePath, text, []byte(reserveJSON), []string{"Content-Encoding", "gzip"}, 400, invalid, bad, "gzip: invalid header"},
		{"compressed by half", "POST", reservePath, text, zipped(t, []byte(reserveJSON))[:40], []string{"Content-Encoding", "gzip"}, 400, invalid, bad, "unexpected EOF"},
		{"too large", "POST", reservePath, text, zeros[:70<<10], nil, 413, invalid, bad, "at most 65536 bytes"},
		{"a bomb", "POST", reservePath, text, bomb, []string{"Content-Encoding", "gzip"}, 413, invalid, bad, "at most 65536 bytes"},
		{"a bomb in protobuf", "POST", reservePath, binary, bomb, []string{"Content-Encoding", "gzip"}, 413, invalid, bad, "at most 65536 bytes"},
		{"too large for an admin", "POST", "/purser.v1.AccountService/CreateAccount", text, zeros[:5<<20], nil, 413, invalid, bad, "at most 4194304 bytes"},
		{"a gate's key for an admin's method", "POST", "/purser.v1.AccountService/ListAccounts", text, []byte("{}"), nil, 403, "permission_denied", quota.ReasonCallerNotAllowed, "role gate"},
		{"no key", "POST", reservePath, text, []byte("{}"), []string{"Authorization", ""}, 401, "unauthenticated", quota.ReasonCredentialsInvalid, "API key"},
		{"a wrong key", "POST", reservePath, text, []byte("{}"), []string{"Authorization", "Bearer pk_x"}, 401, "unauthenticated", quota.ReasonCredentialsInvalid, "API key"},
		{"another scheme", "POST", reservePath, text, []byte("{}"), []string{"Authorization", "Basic eDp5"}, 401, "unauthenticated", quota.ReasonCredentialsInvalid, "API key"},
	} {
		for version, client := range map[string]*http.Client{"HTTP/1.1": s.h1, "HTTP/2": s.h2} {
			var body io.Reader
			if c.body != nil {
				body = bytes.NewReader(c.body)
			}
			e := s.do(client, c.method, c.path, c.contentType, body, c.headers...).wantRefusal(t, c.name+" over "+version, c.status, c.code, c.reason, c.says)
			if _, ok := e.detail("google.rpc.BadRequest"); !ok && strings.Contains(c.says, "unknown field") {
				t.Errorf("%s: no field is named", c.name)
			}
		}
	}
	if b, err := s.gates.GetBalance(s.with(s.secret), &purserv1.GetBalanceRequest{Account: "acme"}); err != nil || b.GetTotalMicros() != 100_000_000 || b.GetHeldMicros() != 0 {
		t.Errorf("balance %v, %v; want it untouched", b, err)
	}
}

// TestErrorsSayWhatToDoNext reads what a program without the contract reads: when to come back,
// and which fields are wrong.
func TestErrorsSayWhatToDoNext(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	e := s.post(reservePath, "application/json", strings.NewReader(`{"account": "a b", "candidates": ["chat"]}`)).
		wantRefusal(t, "a field", 400, "invalid_argument", quota.ReasonRequestInvalid, "a b")
	i, ok := e.detail("google.rpc.BadRequest")
	if !ok || len(e.Details[i].Debug.FieldViolations) != 1 || e.Details[i].Debug.FieldViolations[0].Field != "account" {
		t.Errorf("details %+v", e.Details)
	}
	// A stopped authority is unavailable for a while, and says for how long.
	if err := s.authority.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.post(reservePath, "application/json", strings.NewReader(reserveJSON)).
		wantRefusal(t, "draining", 503, "unavailable", quota.ReasonShuttingDown, "another")
}

// TestBrokenFrames sends what no client library sends, in the protocols that have frames.
func TestBrokenFrames(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	good := encode(t, ask(1, 1))
	for name, c := range map[string]struct {
		body []byte
		says string
	}{
		"nothing":                     {nil, "no message"},
		"half a head":                 {[]byte{0, 0, 0}, "within the head"},
		"half a message":              {frame(0, good)[:20], "before the end of message 1"},
		"a length without a message":  {[]byte{0, 0xff, 0xff, 0xff, 0xff}, "at most 65536"},
		"a length of 4 GiB and bytes": {append([]byte{0, 0xff, 0xff, 0xff, 0xff}, make([]byte, 1<<20)...), "at most 65536"},
		"unknown flags":               {frame(0x10, good), "flags 0x10"},
		"the flag of trailers":        {frame(0x80, good), "flags 0x80"},
		"two messages":                {append(frame(0, good), frame(0, good)...), "there are more"},
		"compressed, and not said":    {frame(1, zipped(t, good)), "no header says how"},
		"no protobuf":                 {frame(0, []byte("\xff\xff\xff")), "purser.v1.CheckAndReserveRequest"},
	} {
		for _, contentType := range []string{"application/grpc-web", "application/grpc-web+proto", "application/grpc"} {
			a := s.do(s.h2, http.MethodPost, reservePath, contentType, bytes.NewReader(c.body))
			status, message := trailers(a)
			if a.StatusCode != http.StatusOK || status != "3" || !strings.Contains(message, c.says) || !strings.Contains(message, "grpc-status-details-bin") {
				t.Errorf("%s, %s: %s, grpc-status %s, %q; want it to say %q", name, contentType, a.Status, status, message, c.says)
			}
		}
	}
	// Compressed frames have bounds as well.
	for name, c := range map[string]struct {
		body []byte
		says string
	}{
		"a bomb":   {frame(1, zipped(t, make([]byte, 32<<20))), "at most 65536"},
		"not gzip": {frame(1, good), "gzip: invalid header"},
	} {
		a := s.do(s.h2, http.MethodPost, reservePath, "application/grpc-web", bytes.NewReader(c.body), "Grpc-Encoding", "gzip")
		if status, message := trailers(a); status != "3" || !strings.Contains(message, c.says) || !strings.Contains(message, "grpc-status-details-bin") {
			t.Errorf("%s: grpc-status %s, %q", name, status, message)
		}
	}
	a := s.do(s.h2, http.MethodPost, reservePath, "application/grpc-web", bytes.NewReader(frame(0, good)))
	if status, message := trailers(a); status != "0" {
		t.Errorf("a good frame: grpc-status %s, %q", status, message)
	}
}

// trailers reads the status of gRPC out of headers, trailers or the last frame of gRPC-Web,
// with everything that stands beside it.
func trailers(a answer) (status, all string) {
	var b strings.Builder
	for _, h := range []http.Header{a.Header, a.Trailer} {
		if v := h.Get("Grpc-Status"); v != "" {
			status = v
		}
		for k, v := range h {
			fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(k), v)
		}
	}
	if i := bytes.Index(a.body, []byte("grpc-status: ")); i >= 0 {
		status = string(a.body[i+13 : i+14])
	}
	b.Write(a.body)
	return status, strings.NewReplacer("%22", `"`, "%25", "%").Replace(b.String())
}

// raw is a connection on which anything can be sent.
func (s *site) raw() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

// head is the head of a call with a body of n bytes.
func (s *site) head(path string, n int) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: purser\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", path, s.secret, n)
}

func quickly(d *server.Deps) {
	d.Limits.HeaderTime, d.Limits.BodyTime = 100*time.Millisecond, 200*time.Millisecond
}

// TestSlowClients: who sends half a head or half a body and then nothing is cut off, and is
// told that nothing was applied if there is somebody to tell. Others are served meanwhile.
func TestSlowClients(t *testing.T) {
	s := newSite(t, quickly)
	s.chat(100)
	t.Run("head", func(t *testing.T) {
		c := s.raw()
		fmt.Fprint(c, "POST "+reservePath+" HTTP/1.1\r\nHost: pur")
		s.post(balancePath, "application/json", strings.NewReader(`{"account": "acme"}`)) // beside it
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 && !bytes.Contains(b, []byte("408")) {
			t.Errorf("%q, %v; want the connection to end", b, err)
		}
	})
	t.Run("body", func(t *testing.T) {
		c := s.raw()
		fmt.Fprint(c, s.head(reservePath, len(reserveJSON))+reserveJSON[:20])
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer{resp, body}.wantRefusal(t, "half a body", 400, "invalid_argument", quota.ReasonRequestInvalid, "in time")
	})
	t.Run("body that ends early", func(t *testing.T) {
		c := s.raw()
		fmt.Fprint(c, s.head(reservePath, len(reserveJSON))+reserveJSON[:20])
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer{resp, body}.wantRefusal(t, "an early end", 400, "invalid_argument", quota.ReasonRequestInvalid, "ended before")
	})
	t.Run("silence", func(t *testing.T) {
		c := s.raw()
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 && !bytes.Contains(b, []byte("408")) {
			t.Errorf("%q, %v; want the connection to end", b, err)
		}
	})
	if b, err := s.gates.GetBalance(s.with(s.secret), &purserv1.GetBalanceRequest{Account: "acme"}); err != nil || b.GetHeldMicros() != 0 {
		t.Errorf("balance %v, %v; half a request was taken", b, err)
	}
}

// TestLongHeaders cost the request, not the server.
func TestLongHeaders(t *testing.T) {
	s := newSite(t)
	for _, c := range []*http.Client{s.h1, s.h2} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+reservePath, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Long", strings.Repeat("x", 64<<10))
		if resp, err := c.Do(r); err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("64 KiB of headers: %s", resp.Status)
			}
		}
	}
	s.post(balancePath, "application/json", strings.NewReader("{}")).
		wantRefusal(t, "afterwards", 400, "invalid_argument", quota.ReasonRequestInvalid, "account")
}

// TestCommitOfACallerThatLeft: what was used is charged, though the caller did not wait.
func TestCommitOfACallerThatLeft(t *testing.T) {
	s := newSite(t)
	s.chat(100)
	resp, err := s.gates.CheckAndReserve(s.with(s.secret), ask(1000, 0))
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"token": %q, "usage": [{"meter": "input_tokens", "quantity": 1000}]}`, base64Of(resp.GetReservation().GetToken()))
	c := s.raw()
	fmt.Fprint(c, s.head(commitPath, len(body))+body)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for {
		b, err := s.gates.GetBalance(s.with(s.secret), &purserv1.GetBalanceRequest{Account: "acme"})
		if err != nil {
			t.Fatal(err)
		}
		if b.GetTotalMicros() == 99_000_000 && b.GetHeldMicros() == 0 {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("balance %v", b)
		}
	}
}
