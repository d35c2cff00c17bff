package escrow

import "testing"

// longer is an extension in short: what it was granted in all, or why not.
func (r *rig) longer(sequence uint64, k Candidate) string {
	r.t.Helper()
	switch r.extend(sequence, r.asked(k)) {
	case Granted:
		return r.granted("extended to")
	case Unchanged:
		return r.granted("still")
	case Denied:
		return r.denied()
	case Overloaded:
		return "overloaded"
	}
	return "?"
}

// TestExtendWithinLimits: rates count what an extension adds, exactly as they do what a request
// asks; requests and permits are not taken twice; what is denied takes nothing.
func TestExtendWithinLimits(t *testing.T) {
	tokens := rate("tpm", 0, 100, 200) // 100 tokens/s, 200 at once
	calls, streams := rate("rps", 1, 1, 1), concurrency("streams", 1)
	type step struct {
		k     Candidate
		want  string
		level int64 // of tokens, thereafter
	}
	for _, c := range []struct {
		name  string
		first Candidate
		steps []step
	}{
		{"what is added", limited(100, 100, tokens), []step{
			{limited(150, 150, tokens), "extended to 150", 150},
			{limited(150, 150, tokens), "still 150", 150},
			{limited(20, 20, tokens), "still 150", 150},
			{limited(200, 200, tokens), "extended to 200", 200}}},
		{"too much now", limited(100, 100, tokens), []step{
			{limited(210, 210, tokens), "RATE tpm in 100ms short 10", 100},
			{limited(200, 200, tokens), "extended to 200", 200},
			{limited(201, 201, tokens), "RATE tpm in 10ms short 1", 200}}},
		{"too much ever", limited(100, 100, tokens), []step{
			{limited(301, 301, tokens), "RATE tpm firm short 101", 100}}},
		{"as far as it goes", limited(100, 100, tokens), []step{
			{limited(500, 150, tokens), "extended to 200 partial", 200},
			{limited(500, 0, tokens), "still 200 partial", 200},
			{limited(500, 210, tokens), "RATE tpm in 100ms short 10 affordable 200", 200}}},
		{"one request and one permit", limited(10, 10, tokens, calls, streams), []step{
			{limited(0, 0, tokens, calls, streams), "still 10", 10},
			{limited(20, 20, tokens, calls, streams), "extended to 20", 20},
			{limited(30, 30, tokens, calls, streams), "extended to 30", 30}}},
		{"another limit failed", limited(100, 100, tokens), []step{
			{limited(150, 150, tokens, rate("slow", 0, 1, 10)), "RATE slow firm short 40", 100},
			{limited(110, 110, tokens, rate("slow", 0, 1, 10)), "extended to 110", 110}}},
		{"a limit that is new counts what is added", limited(100, 100), []step{
			{limited(100, 100, tokens, streams), "still 100", 0},
			{limited(130, 130, tokens, streams), "extended to 130", 30}}},
		{"a limit that is gone", limited(100, 100, tokens), []step{
			{limited(500, 500), "extended to 500", 100}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1000)
			n := r.grant(r.asked(c.first))
			for i, s := range c.steps {
				if got := r.longer(n, s.k); got != s.want || r.level(tokens) != s.level {
					t.Errorf("step %d: %q at level %d; want %q at %d", i, got, r.level(tokens), s.want, s.level)
				}
			}
			if l := r.s.byLimit[calls.Key]; l != nil && (l.bucket.level() != 1 || l.live != 1) {
				t.Errorf("%d requests, of %d live reservations", l.bucket.level(), l.live)
			}
			r.durable(r.settle(n, 1))
			for _, l := range r.s.limiters {
				if l.live != 0 {
					t.Errorf("%v has %d live reservations in the end", l.key, l.live)
				}
			}
		})
	}
}

// TestExtendRetryAfterIsExact: the same extension is denied a ns before, and passes then.
func TestExtendRetryAfterIsExact(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("odd", 0, 7, 11)
	n := r.grant(r.asked(limited(10, 10, l)))
	for total := int64(15); total < 100; total += 5 {
		q := r.asked(limited(total, total, l))
		if st := r.extend(n, q); st != Denied {
			t.Fatalf("to %d: status %d", total, st)
		}
		wait := int64(r.out.Denial.RetryIn)
		r.db.Now += wait - 1
		if st := r.extend(n, q); st != Denied || r.out.Denial.RetryIn != 1 {
			t.Fatalf("to %d a ns early: status %d, %+v", total, st, r.out.Denial)
		}
		r.db.Now++
		if st := r.extend(n, q); st != Granted {
			t.Fatalf("to %d: status %d, %+v", total, st, r.out.Denial)
		}
	}
}

// TestExtendDeniedBehindRates: what a budget or the wallet denies has taken nothing of a rate.
func TestExtendDeniedBehindRates(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("tpm", 0, 100, 200)
	priced := func(total int64) Candidate {
		k := candidate("f", 10, total, total, wallet())
		k.Limits = []Limit{l}
		return k
	}
	n := r.grant(r.asked(priced(50)))
	if got := r.longer(n, priced(150)); got != "CREDITS  firm short 500" || r.level(l) != 50 {
		t.Fatalf("%q at level %d", got, r.level(l))
	}
	if got := r.longer(n, priced(100)); got != "extended to 100" || r.level(l) != 100 {
		t.Fatalf("%q at level %d", got, r.level(l))
	}
}

// TestExtendTrueUp: the settlement is compared with all that was granted. Of what was not used
// the units of the last extension come back; those before leak away.
func TestExtendTrueUp(t *testing.T) {
	l := rate("tpm", 0, 1, 1000)
	for _, c := range []struct{ used, level int64 }{
		{150, 150}, {500, 500}, {149, 149}, {100, 100}, {60, 100}, {0, 100},
	} {
		r := newRig(t, 1000)
		n := r.grant(r.asked(limited(100, 100, l)))
		if got := r.longer(n, limited(150, 150, l)); got != "extended to 150" {
			t.Fatal(got)
		}
		if r.use(n, c.used); r.level(l) != c.level {
			t.Errorf("%d used: level %d, want %d", c.used, r.level(l), c.level)
		}
	}
	// Of a limit that is new to the reservation only what was added may come back.
	for _, c := range []struct{ used, level int64 }{{150, 50}, {170, 70}, {120, 20}, {50, 0}} {
		r := newRig(t, 1000)
		n := r.grant(r.asked(limited(100, 100)))
		if got := r.longer(n, limited(150, 150, l)); got != "extended to 150" {
			t.Fatal(got)
		}
		if r.use(n, c.used); r.level(l) != c.level {
			t.Errorf("a new limit, %d used: level %d, want %d", c.used, r.level(l), c.level)
		}
	}
}

// TestExtendAboveTheRate: real usage has put the rate over its burst; an extension that would do
// with what it has stays as it is, one that needs more waits.
func TestExtendAboveTheRate(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("tpm", 0, 100, 100)
	n := r.grant(r.asked(limited(10, 10, l)))
	r.use(r.grant(r.asked(limited(10, 10, l))), 190)
	if got := r.longer(n, limited(50, 0, l)); got != "still 10 partial" {
		t.Error(got)
	}
	if got := r.longer(n, limited(50, 11, l)); got != "RATE tpm in 1.01s short 1 affordable 10" {
		t.Error(got)
	}
}

// TestExtendNeedsNoCounter: a node full of counters extends what it holds, and is overloaded
// only for the counter of a limit that is new.
func TestExtendNeedsNoCounter(t *testing.T) {
	r := newRig(t, 1000)
	r.s.cfg.MaxLimiters = 1
	l := rate("tpm", 0, 100, 200)
	n := r.grant(r.asked(limited(10, 10, l)))
	for _, c := range []struct {
		k    Candidate
		want string
	}{
		{limited(20, 20, l), "extended to 20"},
		{limited(20, 20, l, rate("other", 0, 1, 100)), "still 20"},
		{limited(30, 30, l, rate("other", 0, 1, 100)), "overloaded"},
		{limited(30, 30, l), "extended to 30"},
	} {
		if got := r.longer(n, c.k); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
