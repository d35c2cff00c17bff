package escrow

import (
	"fmt"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
)

// rate is so many tokens or requests each second, counted for all of team.
func rate(id string, meter int, limit, burst int64) Limit {
	return Limit{Key: LimitKey{Account: "team", Limit: id, Meter: []string{"tokens", "requests"}[meter]}, Meter: meter,
		Limit: limit, Burst: burst, Per: second}
}

func concurrency(id string, limit int64) Limit {
	return Limit{Key: LimitKey{Account: "team", Limit: id}, Meter: 1, Limit: limit}
}

// limited is a candidate that wants tokens for nothing, under limits.
func limited(want, low int64, limits ...Limit) Candidate {
	k := candidate("f", 0, want, low, wallet())
	k.Limits = limits
	return k
}

func (r *rig) level(l Limit) int64 {
	if x := r.s.byLimit[l.Key]; x != nil {
		b := x.bucket.seen(r.db.Now)
		return b.level()
	}
	return 0
}

// answer is a decision in short.
func (r *rig) answer(q *Request) string {
	r.t.Helper()
	switch r.reserve(q) {
	case Granted:
		return r.granted(r.out.Token.Feature)
	case Denied:
		return r.denied()
	case Overloaded:
		return "overloaded"
	}
	return "?"
}

func (r *rig) granted(what string) string {
	if r.out.Partial {
		return fmt.Sprintf("%s %d partial", what, r.out.Quantity[0])
	}
	return fmt.Sprintf("%s %d", what, r.out.Quantity[0])
}

func (r *rig) denied() string {
	d := &r.out.Denial
	kind := "firm"
	if d.Transient {
		kind = "in " + d.RetryIn.String()
	}
	said := fmt.Sprintf("%v %s %s short %d", d.Reason, d.Level.Limit, kind, d.Shortfall)
	for _, a := range d.Affordable {
		said += fmt.Sprintf(" affordable %d", a.Quantity)
	}
	return said
}

func TestLimits(t *testing.T) {
	tokens := rate("tpm", 0, 100, 200) // 100 tokens/s, 200 at once
	calls := rate("rps", 1, 10, 2)
	for _, c := range []struct {
		name string
		asks []Candidate
		want []string
	}{
		{"requests", []Candidate{limited(1, 1, calls), limited(1, 1, calls), limited(1, 1, calls)},
			[]string{"f 1", "f 1", "RATE rps in 100ms short 1"}},
		{"tokens", []Candidate{limited(150, 150, tokens), limited(60, 60, tokens), limited(50, 50, tokens)},
			[]string{"f 150", "RATE tpm in 100ms short 10", "f 50"}},
		{"what a rate leaves", []Candidate{limited(150, 150, tokens), limited(100, 10, tokens), limited(100, 10, tokens)},
			[]string{"f 150", "f 50 partial", "RATE tpm in 100ms short 10"}},
		{"less than the least", []Candidate{limited(195, 195, tokens), limited(100, 10, tokens)},
			[]string{"f 195", "RATE tpm in 50ms short 5 affordable 5"}},
		{"never", []Candidate{limited(201, 201, tokens), limited(500, 201, tokens), limited(500, 200, tokens)},
			[]string{"RATE tpm firm short 1", "RATE tpm firm short 1 affordable 200", "f 200 partial"}},
		{"no tokens asked", []Candidate{limited(200, 200, tokens), limited(0, 0, tokens)}, []string{"f 200", "f 0"}},
		{"the one that makes it wait longest", []Candidate{limited(200, 200, calls, tokens, rate("slow", 1, 1, 1)), limited(110, 110, calls, tokens, rate("slow", 1, 1, 1))},
			[]string{"f 200", "RATE tpm in 1.1s short 110"}},
		{"one that it never passes", []Candidate{limited(1, 1, calls), limited(1, 1, calls), limited(201, 201, calls, tokens)},
			[]string{"f 1", "f 1", "RATE tpm firm short 1"}},
		{"concurrency", []Candidate{limited(1, 1, concurrency("streams", 2)), limited(1, 1, concurrency("streams", 2)), limited(1, 1, concurrency("streams", 2))},
			[]string{"f 1", "f 1", "CONCURRENCY streams in 1s short 1"}},
		{"rate before concurrency", []Candidate{limited(200, 200, tokens, concurrency("streams", 1)), limited(10, 10, tokens, concurrency("streams", 1)), limited(10, 10, concurrency("streams", 1))},
			[]string{"f 200", "RATE tpm in 100ms short 10", "CONCURRENCY streams in 1s short 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1000)
			for i := range c.asks {
				if got := r.answer(r.ask(c.asks[i])); got != c.want[i] {
					t.Errorf("ask %d: got %q, want %q", i, got, c.want[i])
				}
			}
		})
	}
}

// TestRetryAfterIsExact: the same request is denied a ns before, and granted at retry_after.
func TestRetryAfterIsExact(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("odd", 0, 7, 11)
	q := r.ask(limited(5, 5, l))
	r.grant(q)
	r.grant(q)
	for range 20 {
		if st := r.reserve(q); st != Denied {
			t.Fatalf("status %d", st)
		}
		wait := int64(r.out.Denial.RetryIn)
		r.db.Now += wait - 1
		if st := r.reserve(q); st != Denied || r.out.Denial.RetryIn != 1 {
			t.Fatalf("a ns early: status %d, %+v", st, r.out.Denial)
		}
		r.db.Now++
		r.grant(q)
	}
}

// TestDenialTakesNothing: neither a denial by what stands behind the limits, nor one by a
// limit behind another, nor a quote, nor a replay takes anything.
func TestDenialTakesNothing(t *testing.T) {
	r := newRig(t, 100)
	tokens, calls, streams := rate("tpm", 0, 100, 100), rate("rps", 1, 10, 10), concurrency("streams", 1)
	k := candidate("f", 10, 50, 50, wallet()) // costs 500
	k.Limits = []Limit{tokens, calls, streams}
	if got := r.answer(r.ask(k)); got != "CREDITS  firm short 400" {
		t.Fatalf("got %q", got)
	}
	if st := r.s.Quote(r.db.Now, r.ask(limited(50, 50, tokens, calls, streams)), &r.out); st != Granted {
		t.Fatalf("quote: status %d, %+v", st, r.out.Denial)
	}
	if r.level(tokens) != 0 || r.level(calls) != 0 || len(r.s.limiters) != 0 {
		t.Fatalf("levels %d and %d in %d limiters", r.level(tokens), r.level(calls), len(r.s.limiters))
	}
	q := r.ask(limited(50, 50, tokens, calls, streams))
	q.HasKey, q.Key, q.Content = true, KeyHash{1}, KeyHash{2}
	r.grant(q)
	r.s.Remember(r.db.Now, q, &quota.Decision{Allowed: true})
	for range 3 {
		if st := r.reserve(q); st != Replayed {
			t.Fatalf("replay: status %d", st)
		}
		if got := r.answer(r.ask(limited(50, 50, tokens, calls, streams))); got != "CONCURRENCY streams in 1s short 1" {
			t.Fatalf("got %q", got)
		}
	}
	if r.level(tokens) != 50 || r.level(calls) != 1 || r.s.byLimit[streams.Key].live != 1 {
		t.Fatalf("levels %d and %d, %d streams", r.level(tokens), r.level(calls), r.s.byLimit[streams.Key].live)
	}
}

// TestNextCandidate: who is over the rate of the first choice gets the second.
func TestNextCandidate(t *testing.T) {
	r := newRig(t, 1000)
	large, small := limited(100, 100, rate("tpm", 0, 100, 100)), limited(100, 100)
	small.Feature = "small"
	for _, want := range []string{"f 100", "small 100", "small 100"} {
		if got := r.answer(r.ask(large, small)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	all := rate("all", 1, 1, 3)
	large.Limits, small.Limits = append(large.Limits, all), append(small.Limits, all)
	for _, want := range []string{"small 100", "small 100", "small 100", "RATE tpm in 1s short 100"} {
		if got := r.answer(r.ask(large, small)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestTrueUp: rates learn what was really used when the settlement is queued.
func TestTrueUp(t *testing.T) {
	tokens, calls := rate("tpm", 0, 1, 1000), rate("rps", 1, 1, 1000)
	for _, c := range []struct {
		name         string
		settle       func(r *rig, sequence uint64)
		tokens, call int64
	}{
		{"committed whole", func(r *rig, n uint64) { r.use(n, 100) }, 100, 1},
		{"committed less", func(r *rig, n uint64) { r.use(n, 30) }, 30, 1},
		{"committed more", func(r *rig, n uint64) { r.use(n, 2500) }, 2500, 1},
		{"released", func(r *rig, n uint64) { r.settle(n, 0) }, 0, 0},
		{"expired", func(r *rig, n uint64) {
			r.db.Now += 4*second + grace + second/10
			r.s.Tick(r.db.Now)
		}, 0, 0},
		{"committed elsewhere", func(r *rig, n uint64) {
			r.s.Noted(&quota.Entry{EntryKey: quota.EntryKey{Lane: 1, Sequence: n}, Kind: quota.Committed})
		}, 100, 1},
		{"released elsewhere", func(r *rig, n uint64) {
			r.s.Noted(&quota.Entry{EntryKey: quota.EntryKey{Lane: 1, Sequence: n}, Kind: quota.Released})
		}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, 1000)
			n := r.grant(r.ask(limited(100, 100, tokens, calls, concurrency("streams", 1))))
			if r.level(tokens) != 100 || r.level(calls) != 1 {
				t.Fatalf("taken %d and %d", r.level(tokens), r.level(calls))
			}
			c.settle(r, n)
			if r.level(tokens) != c.tokens || r.level(calls) != c.call {
				t.Errorf("levels %d and %d, want %d and %d", r.level(tokens), r.level(calls), c.tokens, c.call)
			}
			if live := r.s.byLimit[concurrency("streams", 1).Key].live; live != 0 {
				t.Errorf("%d permits are out", live)
			}
		})
	}
}

// use queues a commit of so many tokens.
func (r *rig) use(sequence uint64, tokens int64) {
	rec := quota.Record{EntryKey: quota.EntryKey{Lane: 1, Sequence: sequence}, Nonce: r.s.holds[sequence].nonce, Kind: quota.Committed,
		Usage: []quota.Quantity{{Meter: "tokens", Quantity: tokens}, {Meter: "requests", Quantity: 1}}}
	if st, _ := r.s.Settle(r.db.Now, rec, nil); st != Enqueue {
		r.t.Fatalf("settle: status %d", st)
	}
}

// TestGivenBackOnce: what has leaked in the meantime is not given back as well.
func TestGivenBackOnce(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("tpm", 0, 100, 100)
	first := r.grant(r.ask(limited(100, 100, l)))
	r.db.Now += second // all of it has leaked
	r.grant(r.ask(limited(100, 100, l)))
	r.settle(first, 0)
	if got := r.answer(r.ask(limited(1, 1, l))); got != "RATE tpm in 10ms short 1" {
		t.Fatalf("got %q", got)
	}
}

// TestPermitsComeBack: at the end of any reservation, once; retry_after follows how long they last.
func TestPermitsComeBack(t *testing.T) {
	r := newRig(t, 1000)
	l := concurrency("streams", 2)
	q := r.ask(limited(1, 1, l))
	a, b := r.grant(q), r.grant(q)
	r.db.Now += second / 2
	p := r.settle(a, 0)
	c := r.grant(q) // though the release is not durable
	r.durable(p)
	if got := r.answer(q); got != "CONCURRENCY streams in 250ms short 1" {
		t.Fatalf("got %q", got)
	}
	r.durable(r.settle(b, 0))
	r.durable(r.settle(c, 0))
	if live := r.s.byLimit[l.Key].live; live != 0 {
		t.Fatalf("%d permits are out", live)
	}
	expectViolation(t, "R55", func() { r.s.byLimit[l.Key].returned(1) })
}

// TestEachLabelValue is counted by itself.
func TestEachLabelValue(t *testing.T) {
	r := newRig(t, 1000)
	of := func(user string) *Request {
		l := rate("user", 1, 1, 1)
		l.Label, l.Key.Value = "user", user
		return r.ask(limited(1, 1, l))
	}
	for _, c := range []struct{ user, want string }{
		{"ann", "f 1"}, {"ann", "RATE user in 1s short 1"}, {"bob", "f 1"}, {"bob", "RATE user in 1s short 1"}, {"", "f 1"},
	} {
		if got := r.answer(of(c.user)); got != c.want {
			t.Errorf("%s: got %q, want %q", c.user, got, c.want)
		}
	}
	r.answer(of("ann"))
	if l := r.out.Denial.Level; l.LabelKey != "user" || l.Selector != "ann" || l.Account != "team" || l.Unit != "requests" {
		t.Errorf("level %+v", l)
	}
}

// TestShares: each of several nodes gives its share, rounded up; a request that fits the whole
// burst passes on a node on which nothing else was taken.
func TestShares(t *testing.T) {
	tokens, streams := rate("tpm", 0, 100, 100), concurrency("streams", 5)
	r := newRig(t, 1000)
	r.s.SetLiveNodes(3)
	for _, c := range []struct {
		k    Candidate
		want string
	}{
		{limited(34, 34, tokens), "f 34"},
		{limited(1, 1, tokens), "RATE tpm in 29.411765ms short 1"}, // 34 tokens/s
		{limited(1, 1, streams), "f 1"},
		{limited(1, 1, streams), "f 1"},
		{limited(1, 1, streams), "CONCURRENCY streams in 1s short 1"},
		{limited(80, 80, tokens), "RATE tpm in 1s short 80"}, // when all has leaked
		{limited(101, 101, tokens), "RATE tpm firm short 101"},
	} {
		if got := r.answer(r.ask(c.k)); got != c.want {
			t.Errorf("want %q, got %q", c.want, got)
		}
	}
	r.db.Now += second
	if got := r.answer(r.ask(limited(80, 80, tokens))); got != "f 80" {
		t.Errorf("got %q on an empty bucket", got)
	}
	r.s.SetLiveNodes(1) // the others are gone
	if got := r.answer(r.ask(limited(20, 20, tokens))); got != "f 20" {
		t.Errorf("got %q when the others have gone", got)
	}
}

// TestNewPlanVersion: its limits hold at once, the counts go on by limit id.
func TestNewPlanVersion(t *testing.T) {
	r := newRig(t, 1000)
	r.grant(r.ask(limited(100, 100, rate("tpm", 0, 100, 100))))
	if got := r.answer(r.ask(limited(900, 900, rate("tpm", 0, 1000, 1000)))); got != "f 900" {
		t.Fatalf("after an upgrade: %q", got)
	}
	if got := r.answer(r.ask(limited(1, 1, rate("tpm", 0, 50, 50)))); got != "RATE tpm in 19.02s short 1" {
		t.Fatalf("after a downgrade: %q", got)
	}
	if got := r.answer(r.ask(limited(1, 1, rate("tpm", 0, 1000, 50)))); got != "RATE tpm in 951ms short 1" { // nobody waits as long as before
		t.Fatalf("after an upgrade that lets no more in at once: %q", got)
	}
	if got := r.answer(r.ask(limited(50, 50, rate("other", 0, 50, 50)))); got != "f 50" {
		t.Fatalf("another limit: %q", got)
	}
}

// TestLimitersAreBounded: beyond the bound the node is overloaded for new counters only, and
// those at rest make room.
func TestLimitersAreBounded(t *testing.T) {
	r := newRig(t, 1000)
	r.s.cfg.MaxLimiters = 3
	of := func(user int) *Request {
		l := rate("user", 1, 1, 2)
		l.Key.Value = fmt.Sprint(user)
		return r.ask(limited(1, 1, l))
	}
	var sequences []uint64
	for user := range 3 {
		sequences = append(sequences, r.grant(of(user)))
	}
	if got := r.answer(of(3)); got != "overloaded" {
		t.Fatalf("a fourth counter of three: %q", got)
	}
	if got := r.answer(of(0)); got != "f 1" {
		t.Fatalf("one that is there: %q", got)
	}
	r.db.Now += second // 1 is at rest but for its live reservation
	r.use(sequences[1], 1)
	if got := r.answer(of(3)); got != "f 1" {
		t.Fatalf("with one at rest: %q", got)
	}
	if n := r.s.Stats().Limiters; n != 3 {
		t.Fatalf("%d limiters", n)
	}
	for range 100 { // everything ends and is forgotten
		r.db.Now += second
		for _, p := range r.s.Tick(r.db.Now) {
			r.durable(p)
		}
	}
	if n := r.s.Stats().Limiters; n != 0 || len(r.s.byLimit) != 0 {
		t.Fatalf("%d limiters are kept", n)
	}
}

// TestQuoteSeesLimits: a quote says what a reserve would, in time too, and leaves no trace.
func TestQuoteSeesLimits(t *testing.T) {
	r := newRig(t, 1000)
	l := rate("tpm", 0, 100, 100)
	r.grant(r.ask(limited(100, 100, l)))
	q := r.ask(limited(50, 10, l))
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{0, "RATE"}, {99 * time.Millisecond, "RATE"}, {100 * time.Millisecond, "10"}, {300 * time.Millisecond, "30"}, {time.Second, "50"}} {
		got := "?"
		switch r.s.Quote(r.db.Now+int64(c.after), q, &r.out) {
		case Granted:
			got = fmt.Sprint(r.out.Quantity[0])
		case Denied:
			got = r.out.Denial.Reason.String()
		}
		if got != c.want {
			t.Errorf("after %v: %s, want %s", c.after, got, c.want)
		}
	}
	if r.level(l) != 100 {
		t.Errorf("level %d", r.level(l))
	}
}
