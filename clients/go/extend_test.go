package purser

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// streaming asks for 100 output tokens at first, and 100 more at a time up to most.
func streaming(most int64) Request {
	return Request{Account: "acme", Features: []string{"chat"}, Labels: map[string]string{"user": "ann"},
		Estimates: []Estimate{Need("input_tokens", 10), Want("output_tokens", 100, 5).UpTo(most)}}
}

func gateFor(t *testing.T, c *Client, r Request) *Handle {
	t.Helper()
	h, err := c.Gate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// atRest waits for the round under way, if any, to end.
func atRest(h *Handle) {
	h.mu.Lock()
	busy := h.keep.busy
	h.mu.Unlock()
	if busy != nil {
		<-busy
	}
}

func awaitLimited(t *testing.T, h *Handle) {
	t.Helper()
	select {
	case <-h.Limited():
	case <-time.After(20 * time.Second):
		t.Fatal("the handle was not told that no more will come")
	}
}

func TestHeartbeats(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	r := request("acme")
	r.TTL = 30 * time.Millisecond
	h := gateFor(t, c, r)
	f.await(t, "extend", 3)
	if _, err := h.Commit(t.Context(), Used("input_tokens", 1)); err != nil {
		t.Fatal(err)
	}
	calls := f.seen()
	for i, call := range calls {
		switch {
		case call.Op == "extend" && call.Said != "":
			t.Errorf("a heartbeat asked for %q", call.Said)
		case call.Op == "extend" && call.Token != "token of acme"+strings.Repeat("+", i-1):
			t.Errorf("call %d extends %q, want the latest token", i, call.Token)
		case call.Op == "commit" && !strings.HasPrefix(call.Token, "token of acme++"): // the last round may be cut short
			t.Errorf("committed %q, want the latest token", call.Token)
		}
	}
	if last := calls[len(calls)-1]; last.Op != "commit" {
		t.Errorf("the last call is %s: a settled handle is extended no more", last.Op)
	}
}

func TestForgottenHandlesExpire(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.KeepFor = 50 * time.Millisecond })
	r := request("acme")
	r.TTL = 30 * time.Millisecond
	h := gateFor(t, c, r)
	awaitLimited(t, h)
	atRest(h)
	if n := len(f.seen()) - 1; n != 5 {
		t.Errorf("extended %d times, want 5 beats of 10 ms in 50 ms", n)
	}
}

// TestKeepForIsTime: it is not used up sooner while the authority is away and asked more often.
func TestKeepForIsTime(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.KeepFor = 50 * time.Millisecond })
	r := request("acme")
	r.TTL = 30 * time.Millisecond
	f.always("extend", refusal(codes.Unavailable, "STORE_UNAVAILABLE", true))
	h := gateFor(t, c, r)
	awaitLimited(t, h)
	atRest(h)
	if n := len(f.seen()) - 1; n != 2*13 {
		t.Errorf("%d tries, want two after 10 ms, and after every third of that for 40 ms more", n)
	}
}

func TestNothingIsExtendedIfSwitchedOff(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, func(cfg *Config) { cfg.KeepFor = -1 })
	h := gateFor(t, c, streaming(1000))
	if h.keep.timer != nil {
		t.Error("the handle waits for a beat")
	}
	if h.Report(Used("output_tokens", 99)) != true || h.Report(Used("output_tokens", 100)) != false {
		t.Error("want the work to stop at the 100 tokens that were granted")
	}
}

// TestMoreAtAFifth: totals are asked for when a fifth of what is granted is left (R35), and no more
// than the caller allows.
func TestMoreAtAFifth(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	h := gateFor(t, c, streaming(250))
	if !h.Report(Used("input_tokens", 10), Used("output_tokens", 79)) {
		t.Error("told to stop at 79 of 100")
	}
	if n := len(f.seen()); n != 1 {
		t.Fatalf("calls = %+v, want none for more yet", f.seen())
	}
	h.Add("output_tokens", 1)
	if got := f.await(t, "extend", 1).Said; got != "output_tokens=200/100" {
		t.Errorf("asked for %q, want the total of 200, or whatever more there is", got)
	}
	atRest(h)
	if h.Granted("output_tokens") != 200 || h.Remaining("output_tokens") != 120 || h.Granted("input_tokens") != 10 {
		t.Errorf("granted %d, %d of them left; want 200, 120", h.Granted("output_tokens"), h.Remaining("output_tokens"))
	}
	if !h.Report(Used("output_tokens", 230)) {
		t.Error("told to stop while more may come")
	}
	if got := f.await(t, "extend", 2).Said; got != "output_tokens=250/200" {
		t.Errorf("asked for %q, want no more than 250", got)
	}
	atRest(h)
	if h.Report(Used("output_tokens", 249)) != true || h.Report(Used("output_tokens", 250)) != false {
		t.Error("want the work to stop at 250")
	}
	if _, err := h.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.await(t, "commit", 1).Said; got != "input_tokens=10 output_tokens=250" {
		t.Errorf("committed %q, want what was reported", got)
	}
}

// TestDeniedExtensions: a no leaves the handle what it has, and its time is extended still.
func TestDeniedExtensions(t *testing.T) {
	denial := func(kind purserv1.DenialKind, wait time.Duration) *purserv1.ExtendResponse {
		return &purserv1.ExtendResponse{Decision: purserv1.Decision_DECISION_DENIED,
			Denial: &purserv1.Denial{Kind: kind, RetryAfter: durationpb.New(wait)}}
	}
	for name, c := range map[string]struct {
		answer  func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse
		calls   []string // extensions asked for
		limited bool
		granted int64
	}{
		"firm": {func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
			if len(r.GetEstimates()) > 0 {
				return denial(purserv1.DenialKind_DENIAL_KIND_FIRM, 0)
			}
			return granted(r, false)
		}, []string{"output_tokens=200/100", ""}, true, 100},
		"transient": {func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
			if len(r.GetEstimates()) > 0 {
				return denial(purserv1.DenialKind_DENIAL_KIND_TRANSIENT, time.Hour)
			}
			return granted(r, false)
		}, []string{"output_tokens=200/100", ""}, false, 100},
		"the time too": {func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
			return denial(purserv1.DenialKind_DENIAL_KIND_FIRM, 0)
		}, []string{"output_tokens=200/100", ""}, true, 100},
		"all that is left": {func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
			r.Estimates[0].Quantity = 130
			return granted(r, true)
		}, []string{"output_tokens=200/100"}, true, 130},
		"nothing more now": {func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
			r.Estimates[0].Quantity = 100
			return granted(r, false)
		}, []string{"output_tokens=200/100"}, false, 100},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{extend: c.answer}
			client := f.start(t, 1, nil)
			h := gateFor(t, client, streaming(1000))
			h.Report(Used("output_tokens", 90))
			f.await(t, "extend", len(c.calls))
			atRest(h)
			for range 100 {
				h.Add("output_tokens", 1) // must not ask again with every token
			}
			atRest(h)
			var asked []string
			for _, call := range f.seen()[1:] {
				asked = append(asked, call.Said)
			}
			if !slices.Equal(asked, c.calls) {
				t.Errorf("asked for %q, want %q", asked, c.calls)
			}
			if h.Exhausted() != c.limited || h.Granted("output_tokens") != c.granted {
				t.Errorf("exhausted %v with %d granted, want %v with %d", h.Exhausted(), h.Granted("output_tokens"), c.limited, c.granted)
			}
			if more := h.Report(); !more {
				t.Error("a report of nothing says stop")
			}
			if more := h.Add("output_tokens", 1); more == c.limited {
				t.Errorf("at 191 of %d the work may go on: %v", c.granted, more)
			}
			if _, err := h.Commit(t.Context()); err != nil {
				t.Errorf("commit after a denial: %v", err)
			}
		})
	}
}

// TestGoesOnElsewhere is R35 from the client's side, one way to lose the issuing node to a line.
func TestGoesOnElsewhere(t *testing.T) {
	elsewhere := refusal(codes.FailedPrecondition, reasonExtendElsewhere, true)
	for name, c := range map[string]struct {
		op   string
		errs []error // of the first calls of op
		tail []string
	}{
		"not its own":       {"extend", []error{elsewhere}, []string{"extend 1", "reserve", "commit 1", "commit 2"}},
		"expired":           {"extend", []error{refusal(codes.FailedPrecondition, reasonExpired, true)}, []string{"extend 1", "reserve", "commit 1", "commit 2"}},
		"gone":              {"extend", []error{lost(codes.Unavailable), lost(codes.Unavailable)}, []string{"extend 1", "extend 1", "reserve", "commit 1", "commit 2"}},
		"draining":          {"extend", []error{refusal(codes.Unavailable, reasonShuttingDown, true), refusal(codes.Unavailable, reasonShuttingDown, true)}, []string{"extend 1", "extend 1", "reserve", "commit 1", "commit 2"}},
		"back in time":      {"extend", []error{lost(codes.Unavailable)}, []string{"extend 1", "extend 1", "commit 1+"}},
		"without a journal": {"extend", []error{refusal(codes.Unavailable, "STORE_UNAVAILABLE", true), refusal(codes.Unavailable, "STORE_UNAVAILABLE", true)}, []string{"extend 1", "extend 1", "commit 1"}},
	} {
		eachWay(t, name, func(t *testing.T, f *fake) {
			f.numbered = true
			client := f.start(t, 2, nil)
			h := gateFor(t, client, streaming(1000))
			f.script(c.op, c.errs...)
			h.Report(Used("output_tokens", 85))
			f.await(t, strings.Fields(c.tail[len(c.tail)-2])[0], 1)
			if slices.Contains(c.tail, "commit 2") {
				f.await(t, "commit", 1)
			} else {
				f.await(t, "extend", 2)
			}
			atRest(h)
			split := slices.Contains(c.tail, "reserve")
			if split && (h.Granted("output_tokens") != 200 || h.Granted("input_tokens") != 10) {
				t.Errorf("granted %d and %d, want 200 and 10 in all", h.Granted("output_tokens"), h.Granted("input_tokens"))
			}
			receipt, err := h.Commit(t.Context(), Used("input_tokens", 10), Used("output_tokens", 120))
			if err != nil {
				t.Fatal(err)
			}
			if got := tail(f.seen()); !slices.Equal(got, c.tail) {
				t.Fatalf("calls = %q, want %q", got, c.tail)
			}
			if !split {
				return
			}
			calls := f.seen()
			anew, first, rest := calls[len(calls)-3], calls[len(calls)-2], calls[len(calls)-1]
			if anew.Said != "input_tokens=10/0 output_tokens=115/0 requests=0" {
				t.Errorf("reserved %q anew, want the rest of what was granted and what is wanted", anew.Said)
			}
			if first.Said != "output_tokens=85" || rest.Said != "input_tokens=10 output_tokens=35 requests=0" {
				t.Errorf("committed %q and %q: each token has to be paid for once, and one request", first.Said, rest.Said)
			}
			if receipt.Charged != 84 || receipt.Overage != 4 || receipt.Kept != 0 {
				t.Errorf("receipt = %+v, want the sum of both", receipt)
			}
			if away := strings.Contains(name, "gone") || name == "draining"; away != (anew.Node != calls[0].Node) {
				t.Errorf("reserved at node %d, then at %d", calls[0].Node, anew.Node)
			}
			if first.Node != anew.Node || rest.Node != anew.Node {
				t.Errorf("settled at nodes %d and %d, want %d", first.Node, rest.Node, anew.Node)
			}
		})
	}
}

// tail lists the calls behind the first reserve, each with the number of its token.
func tail(calls []fakeCall) (out []string) {
	for _, c := range calls[1:] {
		if c.Op == "reserve" {
			out = append(out, c.Op)
			continue
		}
		number := strings.Replace(strings.TrimPrefix(c.Token, "token "), " of acme", "", 1)
		out = append(out, c.Op+" "+number)
	}
	return out
}

// TestExtendAtTheOwner: an answer that names an address of this client is followed there.
func TestExtendAtTheOwner(t *testing.T) {
	f := &fake{}
	client := f.start(t, 2, nil)
	h := gateFor(t, client, streaming(1000))
	f.mu.Lock()
	f.next = func(c fakeCall) error {
		if c.Op == "extend" && c.Node == h.nodes()[0] && len(f.calls) == 2 {
			return withAddress(client.cfg.Addresses[1-c.Node])
		}
		return nil
	}
	f.mu.Unlock()
	h.Report(Used("output_tokens", 85))
	f.await(t, "extend", 2)
	atRest(h)
	mustCommit(t, t.Context(), h)
	calls := f.seen()
	if got := ops(calls); !slices.Equal(got, []string{"reserve", "extend", "extend", "commit"}) {
		t.Fatalf("calls = %v, want no second reservation", got)
	}
	if calls[2].Node == calls[1].Node || calls[3].Node != calls[2].Node {
		t.Errorf("calls = %+v, want the owner asked, and settled with", calls)
	}
}

// TestHalfOfAMove: whichever half of going on elsewhere fails, usage is neither lost nor paid twice.
func TestHalfOfAMove(t *testing.T) {
	elsewhere := refusal(codes.FailedPrecondition, reasonExtendElsewhere, true)
	start := func(t *testing.T, script func(c fakeCall) error) (*fake, *Client, *Handle, chan Settled) {
		f := &fake{numbered: true}
		settled := make(chan Settled, 10)
		client := f.start(t, 1, func(cfg *Config) {
			cfg.Attempts, cfg.OnSettled = 2, func(s Settled) { settled <- s }
		})
		h := gateFor(t, client, streaming(1000))
		f.mu.Lock()
		f.next = script
		f.mu.Unlock()
		h.Report(Used("output_tokens", 85))
		return f, client, h, settled
	}
	commitAll := func(t *testing.T, h *Handle) Receipt {
		receipt, err := h.Commit(t.Context(), Used("output_tokens", 120))
		if err != nil {
			t.Fatal(err)
		}
		return receipt
	}

	t.Run("the reservation fails", func(t *testing.T) {
		f, _, h, _ := start(t, func(c fakeCall) error {
			switch c.Op {
			case "extend":
				return elsewhere
			case "reserve":
				return lost(codes.Unavailable)
			}
			return nil
		})
		f.await(t, "reserve", 3)
		atRest(h)
		if got := commitAll(t, h).Charged; got != 42 {
			t.Errorf("charged %d, want 42 once", got)
		}
		if last := f.await(t, "commit", 1); last.Said != "output_tokens=120" || last.Token != "token 1 of acme" {
			t.Errorf("committed %+v, want all of it on the first reservation", last)
		}
	})
	t.Run("the first commit is refused", func(t *testing.T) {
		refused := false
		f, _, h, _ := start(t, func(c fakeCall) error {
			if c.Op == "commit" && !refused {
				refused = true
				return refusal(codes.FailedPrecondition, "TOKEN_TOO_OLD", true)
			}
			if c.Op == "extend" {
				return elsewhere
			}
			return nil
		})
		f.await(t, "commit", 1)
		atRest(h)
		commitAll(t, h)
		if last := f.await(t, "commit", 2); last.Said != "output_tokens=120" || last.Token != "token 2 of acme" {
			t.Errorf("committed %+v, want all of it on the second reservation", last)
		}
	})
	t.Run("the outcome of the first commit stays open", func(t *testing.T) {
		broken := 0
		f, client, h, settled := start(t, func(c fakeCall) error {
			if c.Op == "commit" && broken < 2 {
				broken++
				return lost(codes.Unavailable)
			}
			if c.Op == "extend" {
				return elsewhere
			}
			return nil
		})
		f.await(t, "commit", 2)
		atRest(h)
		receipt := commitAll(t, h)
		if receipt.Kept != 1 || receipt.Charged != 42 {
			t.Errorf("receipt = %+v, want one part of it kept", receipt)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s := <-settled; s.Err != nil || s.Receipt.Charged != 42 {
			t.Errorf("the part that was kept came to %+v", s)
		}
		paid := map[string]string{}
		for _, c := range f.seen() {
			if c.Op == "commit" {
				if said, ok := paid[c.Token]; ok && said != c.Said {
					t.Errorf("%s was committed with %q and with %q", c.Token, said, c.Said)
				}
				paid[c.Token] = c.Said
			}
		}
		if paid["token 1 of acme"] != "output_tokens=85" || paid["token 2 of acme"] != "output_tokens=35 requests=0" {
			t.Errorf("committed %v, want 85 and 35", paid)
		}
	})
}

func TestCloseCommitsWhatWasReported(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	func() {
		defer func() { _ = recover() }()
		h := gateFor(t, c, streaming(100))
		defer h.Close()
		h.Add("output_tokens", 7)
		panic("the model crashed")
	}()
	if last := f.await(t, "commit", 1); last.Said != "output_tokens=7" {
		t.Errorf("committed %q, want what was produced before the panic", last.Said)
	}
}

// TestSettlingCutsARoundShort: a commit does not wait for a node that does not answer.
func TestSettlingCutsARoundShort(t *testing.T) {
	f := &fake{}
	hang, released := make(chan struct{}), make(chan struct{})
	f.extend = func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse {
		close(hang)
		<-released
		return granted(r, false)
	}
	c := f.start(t, 1, func(cfg *Config) { cfg.AttemptTimeout = time.Hour })
	h := gateFor(t, c, streaming(1000))
	h.Report(Used("output_tokens", 85))
	<-hang
	mustCommit(t, t.Context(), h)
	close(released)
	if got := ops(f.seen()); !slices.Equal(got, []string{"reserve", "extend", "commit"}) {
		t.Errorf("calls = %v", got)
	}
}

func TestAuthorityWithoutExtend(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	f.always("extend", lost(codes.Unimplemented))
	h := gateFor(t, c, streaming(1000))
	h.Report(Used("output_tokens", 85))
	awaitLimited(t, h)
	if h.Report(Used("output_tokens", 100)) {
		t.Error("the work may go on beyond what is granted")
	}
	gateFor(t, c, streaming(1000)).Report(Used("output_tokens", 85))
	if n := len(f.seen()); n != 3 {
		t.Errorf("calls = %v, want no second try", ops(f.seen()))
	}
}

func TestManyGoroutinesReport(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	h := gateFor(t, c, streaming(1_000_000))
	var workers sync.WaitGroup
	for i := range 8 {
		workers.Go(func() {
			for range 1000 {
				h.Add("output_tokens", 1)
				h.Report(Used(fmt.Sprint("other_", i%4), 3))
			}
		})
	}
	workers.Wait()
	mustCommit(t, t.Context(), h)
	if h.Used("output_tokens") != 8000 {
		t.Errorf("counted %d of 8000", h.Used("output_tokens"))
	}
	if last := f.await(t, "commit", 1); last.Usage != 6 {
		t.Errorf("committed %q, want each meter once", last.Said)
	}
}

func TestReportAllocatesNothing(t *testing.T) {
	f := &fake{}
	c := f.start(t, 1, nil)
	h := gateFor(t, c, streaming(1_000_000))
	h.Report(Used("input_tokens", 10))
	total := int64(0)
	if n := testing.AllocsPerRun(50, func() {
		total++
		h.Report(Used("output_tokens", total))
	}); n != 0 {
		t.Errorf("a report allocates %v times", n)
	}
}

func TestUngated(t *testing.T) {
	h := Ungated(streaming(1000))
	if h.Granted("output_tokens") != 1000 || h.Feature() != "chat" || !h.Report(Used("output_tokens", 999)) || h.Add("output_tokens", 1) {
		t.Errorf("granted %d of 1000", h.Granted("output_tokens"))
	}
	if _, err := h.Commit(t.Context()); err != nil || h.Close() != nil {
		t.Error(err)
	}
}

func BenchmarkReport(b *testing.B) {
	h := Ungated(streaming(never))
	b.ReportAllocs()
	for b.Loop() {
		h.Add("output_tokens", 1)
	}
}

// withAddress is EXTEND_ELSEWHERE that names the owner.
func withAddress(address string) error {
	return refusalWith(codes.FailedPrecondition, reasonExtendElsewhere, map[string]string{notApplied: "true", metaAddress: address})
}
