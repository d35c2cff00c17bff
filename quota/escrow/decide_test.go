package escrow

import (
	"fmt"
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestDecisionOrder: the first claim that fails, in the order given, is the reason.
func TestDecisionOrder(t *testing.T) {
	for _, c := range []struct {
		quota, outer, inner, credits int64 // caps; 100 are asked, at 1 micro each
		want                         string
	}{
		{500, 500, 500, 500, "granted"},
		{50, 50, 50, 50, "QUOTA plan short 50"},
		{500, 50, 50, 50, "BUDGET outer short 50"},
		{500, 500, 30, 50, "BUDGET inner short 70"},
		{500, 500, 500, 50, "CREDITS  short 50"},
		{500, 500, 500, 0, "CREDITS  short 100"},
	} {
		r := newRig(t, c.credits)
		plan := r.budget("team", "plan", 0, c.quota)
		plan.Kind, plan.Window.Kind = quota.PotQuota, quota.PotQuota
		q := r.ask(candidate("f", 1, 100, 100, plan, r.budget("org", "outer", -1, c.outer), r.budget("team", "inner", -1, c.inner), wallet()))
		q.Epochs = r.db.Profile("team").Epochs()
		got := "granted"
		if r.reserve(q) == Denied {
			d := r.out.Denial
			got = fmt.Sprintf("%v %s short %d", d.Reason, d.Level.Limit, d.Shortfall)
		}
		if got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
}

func TestPartial(t *testing.T) {
	for _, c := range []struct {
		name                string
		credits, tokens     int64 // wallet, cap of a token budget
		price, desired, low int64
		granted             int64 // -1 = denied
		held                int64
		partial, exhausted  bool
		affordable, shortBy int64
	}{
		{"all", 1000, 1000, 3, 50, 10, 50, 150, false, false, 0, 0},
		{"what credits buy", 100, 1000, 3, 50, 10, 33, 99, true, true, 0, 0},
		{"exactly the minimum", 30, 1000, 3, 50, 10, 10, 30, true, true, 0, 0},
		{"one micro below the minimum", 29, 1000, 3, 50, 10, -1, 0, false, false, 9, 1},
		{"what a budget leaves", 1000, 20, 3, 50, 10, 20, 60, true, true, 0, 0},
		{"budget below the minimum", 1000, 5, 3, 50, 10, -1, 0, false, false, 5, 5},
		{"budget first, then credits", 30, 20, 3, 50, 1, 10, 30, true, true, 0, 0},
		{"free of charge", 1, 1000, 0, 50, 10, 50, 0, false, false, 0, 0},
		{"nothing wanted", 1, 1000, 3, 0, 0, 0, 0, false, false, 0, 0},
		{"not flexible", 100, 1000, 3, 50, 50, -1, 0, false, false, 0, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.credits)
			b := r.budget("team", "tokens", 0, c.tokens)
			st := r.reserve(r.ask(candidate("f", c.price, c.desired, c.low, b, wallet())))
			if c.granted < 0 {
				d := r.out.Denial
				var affordable int64
				if len(d.Affordable) > 0 {
					affordable = d.Affordable[0].Quantity
				}
				if st != Denied || affordable != c.affordable || d.Shortfall != c.shortBy || d.Transient {
					t.Fatalf("status %d, denial %+v", st, d)
				}
				return
			}
			o := &r.out
			if st != Granted || o.Quantity[0] != c.granted || o.Held != c.held || o.Partial != c.partial || o.Exhausted != c.exhausted {
				t.Fatalf("status %d: %v for %d, partial %v, exhausted %v", st, o.Quantity, o.Held, o.Partial, o.Exhausted)
			}
		})
	}
}

// TestCandidates: the first whose minimum is affordable is granted, a partial first choice
// beats a whole second one, and the first choice's reason stands.
func TestCandidates(t *testing.T) {
	for _, c := range []struct {
		credits int64
		want    string
	}{
		{1000, "large 100"}, {600, "large 60"}, {499, "small 100"}, {80, "small 80"}, {40, "denied CREDITS short 460"},
	} {
		r := newRig(t, c.credits)
		st := r.reserve(r.ask(candidate("large", 10, 100, 50, wallet()), candidate("small", 1, 100, 50, wallet())))
		got := fmt.Sprintf("denied %v short %d", r.out.Denial.Reason, r.out.Denial.Shortfall)
		if st == Granted {
			got = fmt.Sprintf("%s %d", r.out.Token.Feature, r.out.Quantity[0])
		}
		if got != c.want {
			t.Errorf("with %d: got %s, want %s", c.credits, got, c.want)
		}
	}
}

// TestFirmOrTransient: TRANSIENT if and only if the amount exists outside of what is spent.
func TestFirmOrTransient(t *testing.T) {
	big := func() Candidate { return candidate("f", 1, 80, 80, wallet()) }
	for _, c := range []struct {
		name      string
		before    func(r *rig)
		transient bool
	}{
		{"held here", func(r *rig) { r.grant(r.ask(candidate("f", 1, 50, 50, wallet()))) }, true},
		{"waiting for its record", func(r *rig) { r.settle(r.grant(r.ask(big()))) }, true},
		{"spent", func(r *rig) { r.durable(r.settle(r.grant(r.ask(candidate("f", 1, 50, 50, wallet()))), 50)) }, false},
		{"on its way home", func(r *rig) {
			r.durable(r.settle(r.grant(r.ask(big()))))
			r.s.BeginReturn(r.db.Now, true, 100)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 100)
			c.before(r)
			if st := r.reserve(r.ask(big())); st != Denied || r.out.Denial.Transient != c.transient {
				t.Fatalf("status %d, denial %+v", st, r.out.Denial)
			}
		})
	}
	t.Run("elsewhere", func(t *testing.T) {
		r := newRig(t, 100)
		q := r.ask(big())
		r.s.Reserve(r.db.Now, q, &r.out)
		d := r.s.BeginDraw(r.db.Now, rigID, &r.out)
		r.s.EndDraw(r.db.Now, d, []quota.Drawn{{Escrowed: 100}})
		if st := r.reserve(q); st != Denied || !r.out.Denial.Transient {
			t.Fatalf("status %d, denial %+v", st, r.out.Denial)
		}
	})
}

// TestPartsBound: what would need more parts than a hold may have counts as not available (R24).
func TestPartsBound(t *testing.T) {
	r := newRig(t, 0)
	q := r.ask(candidate("f", 1, 65, 10, wallet()))
	if st := r.s.Reserve(r.db.Now, q, &r.out); st != Short {
		t.Fatalf("status %d", st)
	}
	d := r.s.BeginDraw(r.db.Now, rigID, &r.out)
	var drawn quota.Drawn
	for n := range quota.AllotmentNo(70) {
		drawn.Allotments = append(drawn.Allotments, quota.Allotment{Lane: 1, Number: n + 1, Amount: 1, NotAfter: quota.Never})
	}
	r.s.EndDraw(r.db.Now, d, []quota.Drawn{drawn})
	q.Final = true
	if st := r.s.Reserve(r.db.Now, q, &r.out); st != Granted || r.out.Quantity[0] != 64 || len(r.out.Token.Slots[0].Parts) != 64 {
		t.Fatalf("status %d: %v in %d parts", st, r.out.Quantity, len(r.out.Token.Slots[0].Parts))
	}
	if r.out.Exhausted {
		t.Errorf("exhausted is said of an empty pot of which nothing is out, with 6 free")
	}
}

func TestKeys(t *testing.T) {
	r := newRig(t, 1000)
	q := r.ask(candidate("f", 1, 10, 10, wallet()))
	q.HasKey, q.Key, q.Content = true, KeyHash{1}, KeyHash{7}
	sequence := r.grant(q)
	r.s.Remember(r.db.Now, q, &quota.Decision{Allowed: true, Sequence: sequence, Token: []byte("token")})
	var d quota.Decision
	if st := r.reserve(q); st != Replayed || !r.s.Replay(q, &d) || d.Sequence != sequence || !d.Replayed || string(d.Token) != "token" {
		t.Fatalf("status %d, replay %+v", st, d)
	}
	other := *q
	other.Content = KeyHash{8}
	if st := r.reserve(&other); st != KeyReused {
		t.Fatalf("other content: status %d", st)
	}
	if r.s.Replay(&other, &d) {
		t.Fatalf("other content is replayed")
	}
	start := r.db.Now
	for r.db.Now < start+2*q.TTL {
		r.s.Tick(r.db.Now)
		if st := r.reserve(q); st != Replayed {
			t.Fatalf("after %d ms of %d: status %d", (r.db.Now-start)/1e6, 2*q.TTL/1e6, st)
		}
		r.db.Now += second / 4
	}
	r.db.Now += second
	r.s.Tick(r.db.Now)
	if st := r.reserve(q); st != Granted || r.out.Token.Sequence == sequence {
		t.Fatalf("after twice its TTL: status %d", st)
	}
	if n := r.s.Stats().Keys; n != 0 {
		t.Fatalf("%d keys are kept", n)
	}
}

func TestOverloaded(t *testing.T) {
	r := newRig(t, 1000)
	r.s.cfg.Room = NewRoom(2)
	q := r.ask(candidate("f", 1, 10, 10, wallet()))
	first := r.grant(q)
	r.grant(q)
	if st := r.reserve(q); st != Overloaded {
		t.Fatalf("third hold of two: status %d", st)
	}
	r.durable(r.settle(first))
	r.grant(q)
}

// The room is the node's: one shard may fill it, what leaves makes room in all of them, and an
// engine that is gone gives back all it had.
func TestRoomIsShared(t *testing.T) {
	room := NewRoom(2)
	a, b := newRig(t, 1000), newRig(t, 1000)
	a.s.cfg.Room, b.s.cfg.Room = room, room
	q := a.ask(candidate("f", 1, 10, 10, wallet()))
	first := a.grant(q)
	keyed := a.ask(candidate("f", 1, 10, 10, wallet()))
	keyed.HasKey, keyed.Key = true, KeyHash{1}
	a.grant(keyed)
	a.s.Remember(0, keyed, &quota.Decision{Allowed: true})
	if st := b.reserve(b.ask(candidate("f", 1, 10, 10, wallet()))); st != Overloaded {
		t.Fatalf("a third hold of two, in another shard: status %d", st)
	}
	a.durable(a.settle(first))
	b.grant(b.ask(candidate("f", 1, 10, 10, wallet())))
	if room.holds.Load() != 2 || room.keys.Load() != 1 {
		t.Errorf("%d holds and %d keys are counted, want 2 and 1", room.holds.Load(), room.keys.Load())
	}
	a.s.Abandon()
	b.s.Abandon()
	if room.holds.Load() != 0 || room.keys.Load() != 0 {
		t.Errorf("%d holds and %d keys are still counted", room.holds.Load(), room.keys.Load())
	}
}
