package purser

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func request(account string) Request {
	return Request{Account: account, Features: []string{"chat"}, Estimates: []Estimate{Need("input_tokens", 10), Want("output_tokens", 100, 5)}}
}

func gate(t *testing.T, c *Client, account string) *Handle {
	t.Helper()
	h, err := c.Gate(t.Context(), request(account))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestGateAndCommit(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	h := gate(t, c, "acme")
	if h.Feature() != "chat" || h.Granted("output_tokens") != 100 || h.Granted("images") != 0 {
		t.Errorf("handle = %q, %d output tokens", h.Feature(), h.Granted("output_tokens"))
	}
	receipt, err := h.Commit(t.Context(), Used("input_tokens", 10), Used("output_tokens", 80))
	if err != nil {
		t.Fatal(err)
	}
	want := Receipt{State: purserv1.ReservationState_RESERVATION_STATE_COMMITTED, Charged: 42, Covered: 40, Overage: 2, Uncovered: 2}
	if receipt != want {
		t.Errorf("receipt = %+v, want %+v", receipt, want)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	calls := f.seen()
	if len(calls) != 2 || calls[1].Usage != 2 || calls[0].Key != "Bearer "+testKey {
		t.Errorf("calls = %+v, want a reserve and a commit with the key", calls)
	}
}

func TestDenied(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	_, err := c.Gate(t.Context(), request("poor"))
	denied, ok := errors.AsType[*Denied](err)
	if !ok {
		t.Fatalf("error = %v, want a denial", err)
	}
	if denied.Reason != purserv1.DenialReason_DENIAL_REASON_CREDITS || !denied.Transient() || denied.RetryAfter != 250*time.Millisecond ||
		!slices.Equal(denied.Affordable, []Quantity{{"output_tokens", 7}}) {
		t.Errorf("denial = %+v", denied)
	}
	if n := len(f.seen()); n != 1 {
		t.Errorf("a denial was asked for %d times, want once: it is an answer", n)
	}
}

// TestRetryRule is the definite/indefinite rule, one case to a line: which errors of a commit
// are followed by another try, on which node, and what comes of it. Node h is the home, o the
// other.
func TestRetryRule(t *testing.T) {
	unavailable, draining := lost(codes.Unavailable), refusal(codes.Unavailable, "SHUTTING_DOWN", true)
	for _, c := range []struct {
		name  string
		errs  []error
		nodes string // the tries
		want  string // "ok", "definite", "kept"
	}{
		{"answered", nil, "h", "ok"},
		{"lost once", []error{unavailable}, "hh", "ok"},
		{"lost twice", []error{unavailable, unavailable}, "hho", "ok"},
		{"store unknown", []error{refusal(codes.Unavailable, "OUTCOME_UNKNOWN", false)}, "hh", "ok"},
		{"deadline", []error{lost(codes.DeadlineExceeded)}, "hh", "ok"},
		{"unknown", []error{lost(codes.Unknown)}, "hh", "ok"},
		{"internal", []error{lost(codes.Internal)}, "hh", "ok"},
		{"draining", []error{draining}, "ho", "ok"},
		{"overloaded", []error{refusal(codes.ResourceExhausted, "SERVER_OVERLOADED", true)}, "hh", "ok"},
		{"contention", []error{refusal(codes.Aborted, "CONTENTION", true)}, "hh", "ok"},
		{"too large", []error{lost(codes.ResourceExhausted)}, "h", "definite"},
		{"invalid", []error{refusal(codes.InvalidArgument, "UNIT_UNKNOWN", true)}, "h", "definite"},
		{"released", []error{refusal(codes.FailedPrecondition, "RESERVATION_RELEASED", true)}, "h", "definite"},
		{"credentials", []error{refusal(codes.Unauthenticated, "CREDENTIALS_INVALID", true)}, "h", "definite"},
		{"internal, definite", []error{refusal(codes.Internal, "INTERNAL", true)}, "h", "definite"},
		{"lost, then released", []error{unavailable, refusal(codes.FailedPrecondition, "RESERVATION_RELEASED", true)}, "hh", "definite"},
		{"lost, then not known elsewhere", []error{unavailable, unavailable, refusal(codes.PermissionDenied, "TOKEN_INVALID", true)}, "hho", "kept"},
		{"lost, then no credentials", []error{unavailable, refusal(codes.Unauthenticated, "CREDENTIALS_INVALID", true)}, "hh", "kept"},
		{"lost for long", []error{unavailable, unavailable, unavailable, unavailable, unavailable}, "hhooh", "kept"},
		{"lost, then refused", []error{unavailable, draining, draining, draining, draining}, "hhoho", "kept"},
		{"refused for long", []error{draining, draining, draining, draining, draining}, "hohoh", "kept"},
	} {
		eachWay(t, c.name, func(t *testing.T, f *fake) {
			client := f.start(t, 2, func(cfg *Config) { cfg.Attempts = 5 })
			h := gate(t, client, "acme")
			home := f.seen()[0].Node
			f.script("commit", c.errs...)
			_, err := h.Commit(t.Context(), Used("input_tokens", 1))
			if got := outcome(err); got != c.want {
				t.Errorf("outcome = %s (%v), want %s", got, err, c.want)
			}
			if got := tries(f.seen()[1:], home); !strings.HasPrefix(got, c.nodes) || c.want != "kept" && got != c.nodes {
				t.Errorf("tries = %s, want %s", got, c.nodes)
			}
		})
	}
}

// eachWay runs a test with single calls and over sessions: the rules are the same.
func eachWay(t *testing.T, name string, test func(t *testing.T, f *fake)) {
	t.Run(name, func(t *testing.T) { test(t, &fake{}) })
	t.Run(name+", in a session", func(t *testing.T) { test(t, &fake{sessions: true}) })
}

func outcome(err error) string {
	e, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return "ok"
	case ok && e.Kept:
		return "kept"
	case ok && e.Definite:
		return "definite"
	}
	return "unknown"
}

func tries(calls []fakeCall, home int) string {
	var s strings.Builder
	for _, c := range calls {
		if c.Node == home {
			s.WriteByte('h')
		} else {
			s.WriteByte('o')
		}
	}
	return s.String()
}

func TestReserveKeepsItsKey(t *testing.T) {
	f := &fake{}
	c := f.start(t, 2, nil)
	f.script("reserve", lost(codes.Unavailable), lost(codes.Unavailable))
	gate(t, c, "acme")
	gate(t, c, "acme")
	calls := f.seen()
	if len(calls) != 4 {
		t.Fatalf("calls = %+v, want three tries and one", calls)
	}
	if k := calls[0].Token; k == "" || calls[1].Token != k || calls[2].Token != k || calls[3].Token == k {
		t.Errorf("keys = %q %q %q, then %q; want three alike and another", k, calls[1].Token, calls[2].Token, calls[3].Token)
	}
}

func TestReserveUnknown(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.Attempts = 3 })
	f.script("reserve", lost(codes.Unavailable), lost(codes.Unavailable), refusal(codes.Unavailable, "SHUTTING_DOWN", true))
	_, err := c.Gate(t.Context(), request("acme"))
	if !IsUnknown(err) {
		t.Errorf("error = %v, want unknown: an earlier try may have been applied", err)
	}
	f.always("reserve", refusal(codes.Unavailable, "SHUTTING_DOWN", true))
	if _, err = c.Gate(t.Context(), request("acme")); err == nil || IsUnknown(err) {
		t.Errorf("error = %v, want a definite one", err)
	}
}

func TestSettleWhereReserved(t *testing.T) {
	f := &fake{}
	c := f.start(t, 2, nil)
	f.script("reserve", refusal(codes.Unavailable, "SHUTTING_DOWN", true))
	h := gate(t, c, "acme")
	if _, err := h.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls := f.seen()
	if calls[1].Node == calls[0].Node || calls[2].Node != calls[1].Node {
		t.Errorf("calls = %+v, want the commit at the node that reserved", calls)
	}
}

func TestCloseReleases(t *testing.T) {
	released := []string{"reserve", "release"}
	committed := []string{"reserve", "commit"}
	for name, c := range map[string]struct {
		work func(t *testing.T, ctx context.Context, cancel func(), h *Handle)
		want []string
	}{
		"abandoned": {func(*testing.T, context.Context, func(), *Handle) {}, released},
		"panic":     {func(*testing.T, context.Context, func(), *Handle) { panic("the model crashed") }, released},
		"cancelled": {func(_ *testing.T, _ context.Context, cancel func(), _ *Handle) { cancel() }, released},
		"closed twice": {func(t *testing.T, _ context.Context, _ func(), h *Handle) {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		}, released},
		"committed": {func(t *testing.T, ctx context.Context, _ func(), h *Handle) { mustCommit(t, ctx, h) }, committed},
		"cancelled, then committed": {func(t *testing.T, ctx context.Context, cancel func(), h *Handle) {
			cancel()
			mustCommit(t, ctx, h)
		}, committed},
	} {
		eachWay(t, name, func(t *testing.T, f *fake) {
			client := f.start(t, 1, nil)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			func() {
				defer func() { _ = recover() }()
				h, err := client.Gate(ctx, request("acme"))
				if err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				c.work(t, ctx, cancel, h)
			}()
			if got := ops(f.seen()); !slices.Equal(got, c.want) {
				t.Errorf("calls = %v, want %v", got, c.want)
			}
		})
	}
}

func TestCloseNeverReleasesWhatMayBeCharged(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	f.script("commit", refusal(codes.InvalidArgument, "UNIT_UNKNOWN", true))
	h := gate(t, c, "acme")
	if _, err := h.Commit(t.Context(), Used("typo", 1)); err == nil {
		t.Fatal("the commit went through")
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if got := ops(f.seen()); !slices.Equal(got, []string{"reserve", "commit"}) {
		t.Errorf("calls = %v: a release would make the usage free", got)
	}
	mustCommit(t, t.Context(), h) // the caller can still put it right
}

func mustCommit(t *testing.T, ctx context.Context, h *Handle) {
	t.Helper()
	if _, err := h.Commit(ctx, Used("input_tokens", 1)); err != nil {
		t.Error(err)
	}
}

func ops(calls []fakeCall) (out []string) {
	for _, c := range calls {
		out = append(out, c.Op)
	}
	return out
}

func TestKeptSettlementIsSentAgain(t *testing.T) {
	f := &fake{}
	settled := make(chan Settled, 10)
	c := f.start(t, 2, func(cfg *Config) {
		cfg.Attempts = 2
		cfg.OnSettled = func(s Settled) { settled <- s }
	})
	first, second := gate(t, c, "acme"), gate(t, c, "globex")
	f.always("commit", lost(codes.Unavailable))
	for _, h := range []*Handle{first, second} {
		if _, err := h.Commit(t.Context(), Used("input_tokens", 3)); outcome(err) != "kept" {
			t.Fatalf("error = %v, want the settlement kept", err)
		}
	}
	if n := c.Unsettled(); n != 2 {
		t.Errorf("kept = %d, want 2", n)
	}
	f.script("commit", refusal(codes.FailedPrecondition, "TOKEN_TOO_OLD", true))
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	results := map[bool]int{}
	for range 2 {
		s := <-settled
		results[s.Err == nil]++
		if s.Err == nil && s.Receipt.Charged != 42 {
			t.Errorf("receipt = %+v", s.Receipt)
		}
	}
	if results[true] != 1 || results[false] != 1 {
		t.Errorf("outcomes = %v, want one settled, one refused", results)
	}
	for _, call := range f.seen() {
		if call.Op == "commit" && (call.Usage != 1 || !strings.HasPrefix(call.Token, "token of ")) {
			t.Errorf("call = %+v, want the same token and usage each time", call)
		}
	}
}

// TestKeptSettlementIsRefused: a refusal that says nothing of the tries before it ends the
// sending, and leaves the outcome open.
func TestKeptSettlementIsRefused(t *testing.T) {
	for _, c := range []struct {
		refusal error
		want    string
	}{
		{refusal(codes.FailedPrecondition, "RESERVATION_RELEASED", true), "definite"},
		{refusal(codes.Unauthenticated, "CREDENTIALS_INVALID", true), "unknown"},
	} {
		f := &fake{}
		settled := make(chan Settled, 1)
		client := f.start(t, 1, func(cfg *Config) {
			cfg.Attempts = 1
			cfg.OnSettled = func(s Settled) { settled <- s }
		})
		h := gate(t, client, "acme")
		f.script("commit", lost(codes.Unavailable), c.refusal)
		if _, err := h.Commit(t.Context(), Used("input_tokens", 3)); outcome(err) != "kept" {
			t.Fatalf("error = %v, want the settlement kept", err)
		}
		if s := <-settled; outcome(s.Err) != c.want {
			t.Errorf("outcome = %s (%v), want %s", outcome(s.Err), s.Err, c.want)
		}
	}
}

func TestSpoolIsBounded(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.Attempts, cfg.SpoolSize = 1, 2 })
	f.always("release", lost(codes.Unavailable))
	var got []string
	for i := range 3 {
		_, err := gate(t, c, fmt.Sprint("a", i)).Release(t.Context())
		got = append(got, outcome(err))
	}
	if want := []string{"kept", "kept", "unknown"}; !slices.Equal(got, want) {
		t.Errorf("outcomes = %v, want %v", got, want)
	}
}

func TestUnsettledGoToAnotherClient(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.Attempts = 1 })
	h := gate(t, c, "acme")
	f.always("commit", lost(codes.Unavailable))
	if _, err := h.Commit(t.Context(), Used("input_tokens", 3)); outcome(err) != "kept" {
		t.Fatalf("error = %v, want the settlement kept", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	left, ok := errors.AsType[*UnsettledError](c.Close(ended))
	if !ok || len(left.Pending) != 1 || left.Pending[0].ReservationID != "id of acme" {
		t.Fatalf("left = %+v, want the one settlement", left)
	}
	g := &fake{}
	other := g.start(t, 1, nil)
	if !other.Resend(left.Pending[0]) {
		t.Fatal("not taken")
	}
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if calls := g.seen(); len(calls) != 1 || calls[0].Op != "commit" || calls[0].Token != "token of acme" {
		t.Errorf("calls = %+v, want the commit", calls)
	}
	if other.Resend(left.Pending[0]) {
		t.Error("a closed client took a settlement")
	}
}

func TestConfigRefuses(t *testing.T) {
	good := Config{Addresses: []string{"127.0.0.1:1", "[::1]:2", "localhost:3"}, Key: testKey}
	if _, err := good.withDefaults(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"want 1 to 64":        func(c *Config) { c.Addresses = nil },
		"want host:port":      func(c *Config) { c.Addresses = []string{"purser"} },
		"twice":               func(c *Config) { c.Addresses = []string{"[::1]:2", "[::1]:2"} },
		"not on this machine": func(c *Config) { c.Addresses = []string{"10.0.0.1:1"} },
		"key is empty":        func(c *Config) { c.Key = "" },
		"line break":          func(c *Config) { c.Key += "\n" },
		"attempts is 101":     func(c *Config) { c.Attempts = 101 },
		"negative":            func(c *Config) { c.SettleTimeout = -1 },
	} {
		c := good
		change(&c)
		if _, err := Dial(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want it to contain %q", err, want)
		}
	}
	for name, change := range map[string]func(*Config){
		"tls":      func(c *Config) { c.TLS = &tls.Config{} },
		"insecure": func(c *Config) { c.Insecure = true },
	} {
		c := good
		c.Addresses = []string{"purser.example:443"}
		change(&c)
		if _, err := c.withDefaults(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDialNamesWhoDoesNotAnswer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, Config{Addresses: []string{"127.0.0.1:1"}, Key: testKey})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error = %v, want it to name the address and the cause", err)
	}
}

func TestRank(t *testing.T) {
	nodes := []string{"a:1", "b:1", "c:1", "d:1"}
	homes := map[string]int{}
	for i := range 4000 {
		account := fmt.Sprint("account-", i)
		order := rank(nodes, account)
		home := nodes[order[0]]
		homes[home]++
		if other := []string{"d:1", "c:1", "b:1", "a:1"}; other[rank(other, account)[0]] != home {
			t.Fatalf("%s: the home depends on the order of the list", account)
		}
		if without := nodes[:3]; home != "d:1" && without[rank(without, account)[0]] != home {
			t.Fatalf("%s: moved though its home stayed", account)
		}
	}
	for _, node := range nodes {
		if n := homes[node]; n < 850 || n > 1150 {
			t.Errorf("%s is home to %d of 4000 accounts, want about 1000", node, n)
		}
	}
}
