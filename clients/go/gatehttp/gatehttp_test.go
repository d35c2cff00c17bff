package gatehttp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gatehttp"
	"github.com/purser-io/purser/internal/testnode"
)

// dial connects to a node that runs for the test.
func dial(t *testing.T) (*testnode.Node, *purser.Client) {
	t.Helper()
	n, err := testnode.Start(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{n.Address}, Key: n.Key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(context.Background()), n.Close()); err != nil {
			t.Error(err)
		}
	})
	return n, c
}

// perRequest asks for what the query says.
func perRequest(r *http.Request) (*purser.Request, error) {
	account := r.URL.Query().Get("account")
	switch account {
	case "":
		return nil, errors.New("say ?account=")
	case "nobody":
		return nil, nil
	}
	return &purser.Request{Account: account, Features: []string{testnode.Feature},
		Estimates: []purser.Estimate{purser.Need("input_tokens", 100), purser.Want("output_tokens", 1000, 900)}}, nil
}

// outcome is what became of a request.
type outcome struct {
	settled bool
	charged int64
}

// TestSettling is the rule of settling, one way for a handler to end to a line. 100 input tokens
// cost 100 000 micros, an output token 3 000.
func TestSettling(t *testing.T) {
	_, client := dial(t)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		options []gatehttp.Option
		status  int
		charged int64
	}{
		"nothing reported": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }, nil, 200, 100_000},
		"reported inside": {func(_ http.ResponseWriter, r *http.Request) {
			h := purser.FromContext(r.Context())
			if h.Granted("output_tokens") != 1000 {
				panic("not granted")
			}
			h.Add("output_tokens", 10)
			h.Report(purser.Used("input_tokens", 50))
		}, nil, 200, 80_000},
		"from the reply": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Tokens", "7") },
			[]gatehttp.Option{gatehttp.WithUsage(func(r gatehttp.Reply) []purser.Quantity {
				return []purser.Quantity{purser.Used("output_tokens", int64(len(r.Header.Get("X-Tokens"))))}
			})}, 200, 103_000},
		"from each chunk": {func(w http.ResponseWriter, _ *http.Request) {
			for range 5 {
				io.WriteString(w, "word ")
				w.(http.Flusher).Flush()
			}
		}, []gatehttp.Option{gatehttp.WithChunkUsage(func([]byte) []purser.Quantity {
			return []purser.Quantity{purser.Used("output_tokens", 1)}
		})}, 200, 115_000},
		"error before work": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, nil, 502, 0},
		"error behind work": {func(w http.ResponseWriter, r *http.Request) {
			purser.FromContext(r.Context()).Add("output_tokens", 10)
			w.WriteHeader(http.StatusInternalServerError)
		}, nil, 500, 130_000},
		"panic before work": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, 0, 0},
		"panic behind work": {func(_ http.ResponseWriter, r *http.Request) {
			purser.FromContext(r.Context()).Add("output_tokens", 10)
			panic(http.ErrAbortHandler)
		}, nil, 0, 130_000},
		"settled inside": {func(_ http.ResponseWriter, r *http.Request) {
			if _, err := purser.FromContext(r.Context()).Release(r.Context()); err != nil {
				panic(err)
			}
		}, nil, 200, 0},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(chan outcome, 1)
			gate := gatehttp.Middleware(client, perRequest, append(c.options,
				gatehttp.WithOnError(func(_ *http.Request, err error) { t.Errorf("authority: %v", err) }),
				gatehttp.WithOnSettled(func(_ *http.Request, h *purser.Handle, r purser.Receipt) {
					done <- outcome{h.Settled(), r.Charged}
				}))...)
			s := httptest.NewServer(gate(c.handler))
			defer s.Close()
			response, err := http.Get(s.URL + "?account=" + testnode.Rich)
			if c.status == 0 {
				if err == nil {
					t.Errorf("answered with %d, though the handler panicked", response.StatusCode)
				}
			} else if err != nil || response.StatusCode != c.status {
				t.Errorf("answered %v, %v; want %d", response, err, c.status)
			}
			if got := <-done; !got.settled || got.charged != c.charged {
				t.Errorf("settled %v for %d micros, want %d", got.settled, got.charged, c.charged)
			}
		})
	}
}

// TestUsagePanics: a function that counts and panics leaves no handle to be kept alive.
func TestUsagePanics(t *testing.T) {
	_, client := dial(t)
	handles := make(chan *purser.Handle, 1)
	gate := gatehttp.Middleware(client, perRequest, gatehttp.WithUsage(func(gatehttp.Reply) []purser.Quantity { panic(http.ErrAbortHandler) }))
	s := httptest.NewServer(gate(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { handles <- purser.FromContext(r.Context()) })))
	defer s.Close()
	if response, err := http.Get(s.URL + "?account=" + testnode.Rich); err == nil {
		t.Errorf("answered with %d, though the middleware panicked", response.StatusCode)
	}
	if h := <-handles; !h.Settled() {
		t.Error("the handle is open")
	}
}

// TestNotLetIn: denials are answers that HTTP clients understand.
func TestNotLetIn(t *testing.T) {
	node, client := dial(t)
	s := httptest.NewServer(gatehttp.Middleware(client, perRequest)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "in")
	})))
	defer s.Close()
	for account, want := range map[string]struct {
		status int
		reason string
	}{
		testnode.Rich:      {200, ""},
		"nobody":           {200, ""}, // not gated
		testnode.Poor:      {402, "CREDITS"},
		testnode.Suspended: {403, "ACCOUNT_SUSPENDED"},
		"stranger":         {403, "ACCOUNT_UNKNOWN"},
		"":                 {400, "REQUEST_INVALID"},
	} {
		status, problem, _ := get(t, s.URL+"?account="+account)
		if status != want.status || problem.Reason != want.reason || (want.reason != "") != (problem.Message != "") {
			t.Errorf("%q is answered with %d %+v, want %d %s", account, status, problem, want.status, want.reason)
		}
	}
	if spent, err := node.Spent(t.Context(), testnode.Poor); err != nil || spent != 0 {
		t.Errorf("a request that was not let in was charged %d micros, %v", spent, err)
	}
}

func get(t *testing.T, url string) (int, gatehttp.Problem, http.Header) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var body struct{ Error gatehttp.Problem }
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/json") {
		if err := json.NewDecoder(response.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
	}
	return response.StatusCode, body.Error, response.Header
}

// TestAuthorityIsAway: closed unless the program says open.
func TestAuthorityIsAway(t *testing.T) {
	client, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{"127.0.0.1:1"}, Key: "pk_x", NoWait: true, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	told := 0
	hook := gatehttp.WithOnError(func(*http.Request, error) { told++ })
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := purser.FromContext(r.Context())
		h.Add("output_tokens", 10)
		fmt.Fprint(w, h.Granted("output_tokens"))
	})
	request := httptest.NewRequest(http.MethodGet, "/?account=acme", nil)
	closed := httptest.NewRecorder()
	gatehttp.Middleware(client, perRequest, hook)(handler).ServeHTTP(closed, request)
	if closed.Code != http.StatusServiceUnavailable || closed.Header().Get("Retry-After") != "1" || !strings.Contains(closed.Body.String(), "AUTHORITY_UNREACHABLE") {
		t.Errorf("closed: %d %v %s", closed.Code, closed.Header(), closed.Body)
	}
	open := httptest.NewRecorder()
	gatehttp.Middleware(client, perRequest, hook, gatehttp.WithFailOpen())(handler).ServeHTTP(open, request)
	if open.Code != http.StatusOK || open.Body.String() != "1000" {
		t.Errorf("open: %d %s", open.Code, open.Body)
	}
	if told != 2 {
		t.Errorf("told of %d failures, want 2", told)
	}
}

// TestClientDisconnects: what was produced is settled though nobody reads it, reported or not;
// what was not begun is not.
func TestClientDisconnects(t *testing.T) {
	_, client := dial(t)
	for name, c := range map[string]struct {
		handler func(w http.ResponseWriter, r *http.Request)
		charged int64
	}{
		"reported": {func(w http.ResponseWriter, r *http.Request) {
			purser.FromContext(r.Context()).Add("output_tokens", 10)
			fmt.Fprintln(w, "first")
		}, 130_000},
		"answered": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "first") }, 100_000},
		"neither":  {func(http.ResponseWriter, *http.Request) {}, 0},
	} {
		t.Run(name, func(t *testing.T) { disconnect(t, client, c.handler, c.charged) })
	}
}

// disconnect leaves while the handler works.
func disconnect(t *testing.T, client *purser.Client, handler http.HandlerFunc, charged int64) {
	done, working := make(chan outcome, 1), make(chan struct{})
	gate := gatehttp.Middleware(client, perRequest, gatehttp.WithOnSettled(func(_ *http.Request, h *purser.Handle, r purser.Receipt) {
		done <- outcome{h.Settled(), r.Charged}
	}))
	s := httptest.NewServer(gate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler(w, r)
		close(working)
		<-r.Context().Done()
	})))
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"?account="+testnode.Rich, nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-working
		cancel()
	}()
	if response, err := http.DefaultClient.Do(request); err == nil {
		response.Body.Close()
	}
	if got := <-done; got.charged != charged {
		t.Errorf("settled for %d micros, want %d", got.charged, charged)
	}
}

// TestFlush: a handler that streams reaches its client piece by piece.
func TestFlush(t *testing.T) {
	_, client := dial(t)
	read := make(chan struct{})
	s := httptest.NewServer(gatehttp.Middleware(client, perRequest)(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		<-read
	})))
	defer s.Close()
	response, err := http.Get(s.URL + "?account=" + testnode.Rich)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if line, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil || line != "first\n" {
		t.Errorf("read %q, %v: the stream was not flushed", line, err)
	}
	close(read)
}
