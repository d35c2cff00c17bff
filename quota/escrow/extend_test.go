package escrow

import (
	"fmt"
	"reflect"
	"testing"
	"unsafe"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
)

// TestHoldIsSmall: a million live reservations have to fit into 600 MiB.
func TestHoldIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(hold{}); size > 176 {
		t.Errorf("a hold has %d bytes; the next size class after 176 has 192", size)
	}
}

// asked is ask with the tokens counted as a meter that was asked for.
func (r *rig) asked(k Candidate) *Request {
	q := r.ask(k)
	q.Asked = 1
	return q
}

// extend decides about an extension and carries it out, drawing as often as it takes.
func (r *rig) extend(sequence uint64, q *Request) Status {
	r.t.Helper()
	h := r.s.holds[sequence]
	for range 5 {
		st := r.s.Extend(r.db.Now, sequence, h.nonce, q, &r.out)
		if st == Granted {
			r.s.Extended(r.db.Now, q, &r.out)
		}
		if st != Short {
			return st
		}
		r.draw(r.s.BeginDraw(r.db.Now, rigID, &r.out))
	}
	r.t.Fatalf("short for ever")
	return 0
}

// slots writes a token's slots as unit:parts, a + before those that continue.
func slots(t *token.Token) string {
	text := ""
	for i := range t.Slots {
		s := &t.Slots[i]
		if s.Continues {
			text += "+"
		}
		text += fmt.Sprintf("%s:%d ", s.Unit, sumOf(s))
	}
	return text
}

// TestExtendAcrossTheWindow: the additional amount belongs to the window that is open now
// (R34); usage fills the old one first, at the owner and elsewhere alike.
func TestExtendAcrossTheWindow(t *testing.T) {
	for _, c := range []struct {
		usage   int64
		charges [2]int64 // of the old window and the new one
		after   string   // new window: free/held/spent
		missing int64    // elsewhere: uncovered in the new window
	}{
		{0, [2]int64{0, 0}, "160/0/0", 0},
		{4, [2]int64{4, 0}, "160/0/0", 0},
		{10, [2]int64{10, 0}, "160/0/0", 0},
		{12, [2]int64{10, 2}, "158/0/2", 0},
		{15, [2]int64{10, 5}, "155/0/5", 0},
		{20, [2]int64{10, 10}, "150/0/10", 5},
	} {
		t.Run(fmt.Sprint(c.usage), func(t *testing.T) {
			r := newRig(t, 1600)
			old := r.budget("team", "tokens", 0, 1000)
			sequence := r.grant(r.asked(candidate("f", 1, 10, 10, old, wallet())))
			r.db.Now = old.Window.End
			now := r.budget("team", "tokens", 0, 1000)
			if st := r.extend(sequence, r.asked(candidate("f", 1, 15, 15, now, wallet()))); st != Granted {
				t.Fatalf("status %d, %+v", st, r.out.Denial)
			}
			if got := slots(&r.out.Token); got != "tokens:10 +tokens:5 :15 " {
				t.Fatalf("slots %q", got)
			}
			window := r.out.fits[0].pool
			expectBooks(t, window, "155/5/0")
			issued := r.out.Token
			p := r.settle(sequence, c.usage, c.usage, c.usage)
			there := quota.Record{Usage: p.Record.Usage, Lines: p.Record.Lines}
			Foreign(&issued, &there)
			for i, want := range c.charges {
				here, away := &p.Record.Slots[i], &there.Slots[i]
				if here.Charge != want || here.Uncovered != 0 || here.Continues != (i == 1) {
					t.Errorf("here slot %d is %+v, want %d", i, here, want)
				}
				if away.Charge != want || away.Continues != (i == 1) || away.Anchor != here.Anchor {
					t.Errorf("elsewhere slot %d is %+v, want %d", i, away, want)
				}
			}
			if there.Slots[1].Uncovered != c.missing || there.Slots[0].Uncovered != 0 {
				t.Errorf("elsewhere %+v; want %d uncovered in the new window", there.Slots, c.missing)
			}
			r.durable(p)
			expectBooks(t, window, c.after)
		})
	}
}

// TestExtendTwiceInTheNewWindow: the slot of the open window grows, and a third window gets a
// slot of its own.
func TestExtendTwiceInTheNewWindow(t *testing.T) {
	r := newRig(t, 1600)
	b := r.budget("team", "tokens", 0, 1000)
	sequence := r.grant(r.asked(candidate("f", 1, 10, 10, b, wallet())))
	for _, step := range []struct {
		total int64
		roll  bool
		want  string
	}{
		{12, false, "tokens:12 :12 "},
		{15, true, "tokens:12 +tokens:3 :15 "},
		{18, false, "tokens:12 +tokens:6 :18 "},
		{19, true, "tokens:12 +tokens:6 +tokens:1 :19 "},
	} {
		if step.roll {
			r.db.Now = b.Window.End
			b = r.budget("team", "tokens", 0, 1000)
		}
		if st := r.extend(sequence, r.asked(candidate("f", 1, step.total, step.total, b, wallet()))); st != Granted {
			t.Fatalf("status %d, %+v", st, r.out.Denial)
		}
		if got := slots(&r.out.Token); got != step.want || r.out.Held != step.total {
			t.Fatalf("to %d: slots %q, held %d; want %q", step.total, got, r.out.Held, step.want)
		}
	}
}

// TestExtendDecisions: what is granted, and that everything else leaves the hold as it was.
func TestExtendDecisions(t *testing.T) {
	for _, c := range []struct {
		name      string
		want, low int64
		limit     int64 // budget of tokens
		ttl       int64
		status    Status
		granted   int64
		exhausted bool
		reason    quota.DenialReason
	}{
		{"more", 15, 15, 100, 1, Granted, 15, false, 0},
		{"longer", 0, 0, 100, 6 * second, Granted, 10, false, 0},
		{"the same", 10, 10, 100, 1, Unchanged, 10, false, 0},
		{"less", 5, 0, 100, 1, Unchanged, 10, false, 0},
		{"all of the budget", 20, 20, 20, 1, Granted, 20, false, 0},
		{"as far as the budget goes", 30, 1, 20, 1, Granted, 20, true, 0},
		{"as far, which is nothing", 30, 1, 10, 1, Unchanged, 10, true, 0},
		{"beyond the budget", 21, 21, 20, 1, Denied, 0, false, quota.DeniedBudget},
		{"beyond the wallet", 101, 101, 1000, 1, Denied, 0, false, quota.DeniedCredits},
		{"beyond all there is", 1 << 55, 1 << 55, quota.Never, 1, Denied, 0, false, quota.DeniedCredits},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 100)
			b := r.budget("team", "tokens", 0, c.limit)
			first := r.asked(candidate("f", 1, 10, 10, b, wallet()))
			sequence := r.grant(first)
			h := r.s.holds[sequence]
			before, parts := *h, append([]part(nil), h.parts...)
			q := r.asked(candidate("f", 1, c.want, c.low, b, wallet()))
			q.TTL = c.ttl
			st := r.extend(sequence, q)
			if st != c.status || r.out.Denial.Reason != c.reason {
				t.Fatalf("status %d, denial %+v; want status %d, reason %s", st, r.out.Denial, c.status, c.reason)
			}
			if st != Denied && (r.out.Quantity[0] != c.granted || r.out.Held != c.granted || r.out.Exhausted != c.exhausted) {
				t.Errorf("granted %d, held %d, exhausted %v; want %d", r.out.Quantity[0], r.out.Held, r.out.Exhausted, c.granted)
			}
			if st != Granted {
				if !reflect.DeepEqual(*h, before) || !reflect.DeepEqual(h.parts, parts) {
					t.Errorf("it was %+v, it is %+v", before, *h)
				}
				return
			}
			if h.generation != 1 || h.expires != max(before.expires, r.db.Now+c.ttl) || h.granted[0] != c.granted ||
				r.out.Token.Generation != 1 || r.out.Token.Expires != h.expires || r.out.Token.IssuedAt != before.reserved {
				t.Errorf("hold %+v, token %+v", *h, r.out.Token)
			}
			r.durable(r.settle(sequence, c.granted, c.granted))
			if b, w := r.out.fits[0].pool, r.out.fits[1].pool; b.heldAll() != 0 || w.heldAll() != 0 {
				t.Errorf("%d and %d are held after the end", b.heldAll(), w.heldAll())
			}
		})
	}
}

// TestExtendStatuses: what is not there, not there any more, or more than the request knows.
func TestExtendStatuses(t *testing.T) {
	r := newRig(t, 160)
	more := func() *Request { return r.asked(candidate("f", 1, 20, 20, wallet())) }
	sequence := r.grant(r.asked(candidate("f", 1, 10, 10, wallet())))
	h := r.s.holds[sequence]
	if st := r.s.Extend(r.db.Now, sequence+1, h.nonce, more(), &r.out); st != Gone {
		t.Errorf("unknown: %d", st)
	}
	if st := r.s.Extend(r.db.Now, sequence, h.nonce+1, more(), &r.out); st != Gone {
		t.Errorf("another nonce: %d", st)
	}
	other := more()
	other.Candidates[0].Meters[0] = "images"
	none := more()
	none.Asked = 0
	for _, q := range []*Request{other, none} {
		if st := r.s.Extend(r.db.Now, sequence, h.nonce, q, &r.out); st != Outdated {
			t.Errorf("without the meter: %d", st)
		}
	}
	r.settle(sequence, 4)
	if st := r.s.Extend(r.db.Now, sequence, h.nonce, more(), &r.out); st != Ending {
		t.Errorf("under settlement: %d", st)
	}
	if granted, ending, ok := r.s.Holding(sequence, h.nonce, nil); !ok || ending != quota.Committed || len(granted) != 1 ||
		granted[0] != (quota.Quantity{Meter: "tokens", Quantity: 10}) {
		t.Errorf("holding %v, %v, %v", granted, ending, ok)
	}
}

// TestHeartbeatPutsOffTheExpiry: the wheel goes by the end as it is.
func TestHeartbeatPutsOffTheExpiry(t *testing.T) {
	r := newRig(t, 160)
	sequence := r.grant(r.asked(candidate("f", 1, 10, 10, wallet())))
	h := r.s.holds[sequence]
	for range 20 { // far beyond M0
		r.db.Now = h.expires - second
		if out := r.s.Tick(r.db.Now); len(out) != 0 {
			t.Fatalf("expired before its end: %+v", out[0].Record)
		}
		if st := r.extend(sequence, r.asked(candidate("f", 1, 0, 0, wallet()))); st != Granted {
			t.Fatalf("status %d", st)
		}
	}
	if h.generation != 20 {
		t.Errorf("generation %d", h.generation)
	}
	r.db.Now = h.expires + grace + second
	if out := r.s.Tick(r.db.Now); len(out) != 1 || out[0].Record.ExpiresAt != h.expires {
		t.Fatalf("expired: %+v", out)
	}
	h.generation = maxGeneration
	h.settling = nil
	if st := r.extend(sequence, r.asked(candidate("f", 1, 0, 0, wallet()))); st != Granted || h.generation != maxGeneration {
		t.Errorf("the last generation: status %d, generation %d", st, h.generation)
	}
}

// TestExtendPartsAreBounded: a hold has at most MaxParts parts; more on an allotment that it
// has is no new part (R24).
func TestExtendPartsAreBounded(t *testing.T) {
	r := newRig(t, 1<<40)
	sequence := r.grant(r.asked(candidate("f", 1, 1, 1, wallet())))
	h := r.s.holds[sequence]
	w := r.out.payer.wallet
	for _, a := range w.allotments { // used up
		a.amount, a.free = a.amount-a.free, 0
	}
	for i := range 2 * quota.MaxParts { // one unit each
		a := &allotment{number: quota.AllotmentNo(100_000 + i), pool: w, amount: 1, free: 1, notAfter: quota.Never}
		w.allotments = append(w.allotments, a)
		r.s.byNo[a.number] = a
	}
	w.dryUntil = quota.Never
	q := r.asked(candidate("f", 1, 1000, 1, wallet()))
	if st := r.extend(sequence, q); st != Granted || len(h.parts) != quota.MaxParts || r.out.Quantity[0] != quota.MaxParts || r.out.Exhausted {
		t.Fatalf("status %d, %d parts, granted %d, exhausted %v", st, len(h.parts), r.out.Quantity[0], r.out.Exhausted)
	}
	last := h.parts[len(h.parts)-1].a
	last.amount, last.free = last.amount+5, 5
	if st := r.extend(sequence, q); st != Granted || len(h.parts) != quota.MaxParts || r.out.Quantity[0] != quota.MaxParts+5 {
		t.Fatalf("on an allotment it has: status %d, %d parts, granted %d", st, len(h.parts), r.out.Quantity[0])
	}
	if st := r.extend(sequence, r.asked(candidate("f", 1, 1000, 1000, wallet()))); st != Denied {
		t.Fatalf("beyond: status %d", st)
	}
}

// TestExtendMeetsANewLimit: one that was made meanwhile counts the whole reservation, from the
// first extension that asks for more.
func TestExtendMeetsANewLimit(t *testing.T) {
	r := newRig(t, 1600)
	sequence := r.grant(r.asked(candidate("f", 1, 10, 10, wallet())))
	b := r.budget("team", "tokens", 0, 15)
	beat := r.asked(candidate("f", 1, 0, 0, b, wallet()))
	beat.TTL = 6 * second
	if st := r.extend(sequence, beat); st != Granted || slots(&r.out.Token) != ":10 " {
		t.Fatalf("more time: status %d, slots %q", st, slots(&r.out.Token))
	}
	if st := r.extend(sequence, r.asked(candidate("f", 1, 16, 16, b, wallet()))); st != Denied || r.out.Denial.Reason != quota.DeniedBudget {
		t.Fatalf("beyond it: status %d, %+v", st, r.out.Denial)
	}
	if st := r.extend(sequence, r.asked(candidate("f", 1, 15, 15, b, wallet()))); st != Granted || slots(&r.out.Token) != ":15 tokens:15 " {
		t.Fatalf("within it: status %d, slots %q", st, slots(&r.out.Token))
	}
}

// TestNamesAreShared: a shard keeps a bounded number of lists, and holds that need others keep
// their own.
func TestNamesAreShared(t *testing.T) {
	r := newRig(t, 1600)
	p := r.s.payerOf("org")
	one, other := r.s.namesOf(p, []string{"a", "b"}), r.s.namesOf(r.s.payerOf("team"), []string{"a", "b"})
	if one != other {
		t.Error("the same names are two lists")
	}
	for i := range 3 * maxNames {
		r.s.namesOf(p, []string{fmt.Sprint(i)})
	}
	if len(r.s.names) != maxNames || (*one)[1] != "b" {
		t.Errorf("%d lists are kept; the first is %v", len(r.s.names), *one)
	}
}
