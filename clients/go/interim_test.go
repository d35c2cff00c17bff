package purser

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestBeatsTellUsage: with Interim each beat tells what was reported since the last, and nothing
// else; settling is as before.
func TestBeatsTellUsage(t *testing.T) {
	for _, on := range []bool{false, true} {
		f := &fake{}
		c := f.start(t, 1, func(cfg *Config) { cfg.Interim = on })
		r := request("acme")
		r.TTL = 30 * time.Millisecond
		h := gateFor(t, c, r)
		f.await(t, "extend", 2)
		h.Report(Used("input_tokens", 7))
		if on {
			if got := f.await(t, "interim", 1); got.Said != "input_tokens=7" {
				t.Errorf("told %q", got.Said)
			}
			h.Report(Used("input_tokens", 9), Used("output_tokens", 3))
			if got := f.await(t, "interim", 2); !strings.Contains(got.Said, "output_tokens=3") || !strings.Contains(got.Said, "input_tokens=9") {
				t.Errorf("told %q", got.Said)
			}
		}
		beats := 0
		for _, call := range f.seen() {
			if call.Op == "extend" {
				beats++
			}
		}
		f.await(t, "extend", beats+3)
		if _, err := h.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, call := range f.seen() {
			if call.Op == "interim" {
				told++
			}
		}
		if want := map[bool]int{true: 2}[on]; told != want {
			t.Errorf("Interim %v: usage was told %d times, want %d", on, told, want)
		}
	}
}

// TestInterimByHand: at the node that issued, whichever an answer names; what fails changes nothing.
func TestInterimByHand(t *testing.T) {
	f := &fake{}
	c := f.start(t, 2, nil)
	h := gateFor(t, c, request("acme"))
	home := f.seen()[0].Node
	if err := h.Interim(t.Context()); err != nil || len(f.seen()) != 1 {
		t.Errorf("nothing was used: %v, calls %+v", err, f.seen())
	}
	h.Add("output_tokens", 5)
	f.script("interim", refusalWith(codes.FailedPrecondition, "EXTEND_ELSEWHERE", map[string]string{notApplied: "true", "owner_state": "LIVE",
		"address": c.cfg.Addresses[1-home]}))
	if err := h.Interim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := f.await(t, "interim", 2); got.Node != 1-home || got.Said != "output_tokens=5" {
		t.Errorf("told %+v, want the node that was named", got)
	}
	if err := h.Interim(t.Context()); err != nil || len(f.seen()) != 3 {
		t.Errorf("nothing new: %v, calls %+v", err, f.seen())
	}
	h.Add("output_tokens", 1)
	f.script("interim", refusal(codes.FailedPrecondition, "RESERVATION_EXPIRED", true))
	failure, ok := h.Interim(t.Context()).(*Error)
	if !ok || failure.Reason != "RESERVATION_EXPIRED" || !failure.Definite {
		t.Errorf("error %+v", failure)
	}
	if _, err := h.Commit(t.Context()); err != nil {
		t.Errorf("commit behind a report that failed: %v", err)
	}
	if err := Ungated(request("acme")).Interim(t.Context()); err != nil {
		t.Errorf("without a reservation: %v", err)
	}
}

// TestAuthorityWithoutInterim: an older one settles with the first report. It is not asked again.
func TestAuthorityWithoutInterim(t *testing.T) {
	f := &fake{old: true}
	c := f.start(t, 1, func(cfg *Config) { cfg.Interim = true })
	r := request("acme")
	r.TTL = 30 * time.Millisecond
	h := gateFor(t, c, r)
	h.Add("output_tokens", 5)
	f.await(t, "commit", 1)
	h.Add("output_tokens", 5)
	seen := len(f.seen())
	f.await(t, "extend", seen+3)
	for n, call := range f.seen() {
		if n > seen && call.Op == "commit" {
			t.Errorf("call %d reports again", n)
		}
	}
}
