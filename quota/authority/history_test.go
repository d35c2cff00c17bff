package authority_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/storage/faultstore"
)

// What clients of two nodes see is looked at as a whole here: whether there is an order of all
// calls, each at some instant between its sending and its answer, in which one sequential model
// gives the same answers (I16). The database's answers get lost meanwhile, and a call whose
// outcome is unknown may take effect at any time, or never.

// TestReservationHistories: clients settle the same reservations at both nodes, in contradictory
// ways. TEST_HISTORIES says how many seeds to try, from 1.
func TestReservationHistories(t *testing.T) {
	histories(t, func(t *testing.T, h *history) {
		h.settleAgainstEachOther()
		h.check(t, settlements())
	})
}

// TestLifeHistories: clients report, extend and settle the same reservations at both nodes, until
// after they have expired. TEST_HISTORIES says how many seeds to try, from 1.
func TestLifeHistories(t *testing.T) {
	var met, late int
	histories(t, func(t *testing.T, h *history) {
		h.outlive()
		h.check(t, settlements())
		for _, op := range h.ops {
			c, a := op.Input.(call), op.Output.(answer)
			if a.fate == lapsed {
				met++
			}
			if c.kind == committing && a.fate == done && a.amount < c.amount {
				late++
			}
		}
	})
	t.Logf("%d calls met an expired reservation, %d commits came behind one with reports", met, late)
	if met == 0 || late == 0 {
		t.Error("the histories saw none of one of them")
	}
}

// TestAccountHistories: clients spend a scarce account at both nodes. Nothing is granted that is
// not there, a FIRM denial is true, a TRANSIENT one may come at any time. A model in which a
// denial means that nothing is free anywhere has to fail with one of them, or the check sees
// nothing.
func TestAccountHistories(t *testing.T) {
	seen := false
	histories(t, func(t *testing.T, h *history) {
		h.spend()
		h.check(t, account(false))
		strict := account(true)
		seen = porcupine.CheckOperationsTimeout(strict.ToModel(), h.ops, time.Minute) == porcupine.Illegal || seen
	})
	if !seen {
		t.Error("no history had a TRANSIENT denial while something was free: the model that must fail did not")
	}
}

// histories runs a test with two nodes on each database, and with one on SQLite, which has no more.
func histories(t *testing.T, test func(t *testing.T, h *history)) {
	c := shared()
	c.MaxHold = authority.DefaultConfig().MaxHold // what asks for a minute does not expire
	seeds(t, "TEST_HISTORIES", 4, func(t *testing.T, url string, seed uint64) {
		test(t, newHistory(t, seed, 2, func(wrap func(quota.Store) quota.Store) *node { return join(t, url, c, wrap) }))
	})
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "purser.db")
		for seed := range uint64(2) {
			t.Run(fmt.Sprint("seed ", seed+1), func(t *testing.T) {
				test(t, newHistory(t, seed+1, 1, func(wrap func(quota.Store) quota.Store) *node { return open(t, path, c, wrap) }))
			})
		}
	})
}

// history is some nodes whose stores lose calls and answers, and what clients saw of them.
type history struct {
	t       *testing.T
	seed    uint64
	nodes   []*node
	account string
	began   time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

// scarce is what a history's account has, in micros: some ten requests.
const scarce = int64(40e6)

func newHistory(t *testing.T, seed uint64, nodes int, begin beginning) *history {
	h := &history{t: t, seed: seed, account: fmt.Sprint("history-", seed), began: time.Now()}
	stores := make([]*faultstore.Store, nodes)
	for i := range stores {
		h.nodes = append(h.nodes, begin(func(s quota.Store) quota.Store {
			stores[i] = faultstore.New(s)
			return stores[i]
		}))
	}
	if seed == 1 {
		h.nodes[0].catalogue()
	}
	h.nodes[0].account(h.account, "", scarce)
	for i, f := range stores {
		f.Randomise(seed+uint64(i)<<32, faultstore.Rates{FailBefore: 20, FailAfter: 60, Swallow: 60})
	}
	return h
}

// anyNode is one of the nodes.
func (h *history) anyNode(random *rand.Rand) *node { return h.nodes[random.IntN(len(h.nodes))] }

// call is what a client asked for, and answer what it was told.
type call struct {
	reservation int // which; 0 if the account is looked at
	kind        callKind
	amount      int64 // micros: asked for, or the price of what was used
	hold        int64 // micros: of a settlement
	expires     int64 // ns since the history began: of the reservation, as it was made
}

type callKind uint8

const (
	reserving callKind = iota + 1
	committing
	releasing
	reporting
	extending
	expiring // nobody asks for it
)

func (k callKind) String() string {
	return [...]string{"", "reserve", "commit", "release", "report", "extend", "expire"}[k]
}

type answer struct {
	fate   fate
	amount int64 // micros: granted, or charged
	until  int64 // ns since the history began: of what was extended
	at     int64 // the same: when it came
}

type fate uint8

const (
	unknown fate = iota
	done
	firm      // denied
	transient // denied
	committed // refused: it was before
	released
	lapsed
)

func (f fate) String() string {
	return [...]string{"?", "done", "FIRM", "TRANSIENT", "it is committed", "it is released", "it has expired"}[f]
}

// do makes a call and notes it. What has definitely not been done is no part of history.
func (h *history) do(client int, c call, send func() (answer, error)) answer {
	sent := time.Since(h.began)
	a, err := send()
	var known *quota.Error
	if errors.As(err, &known) && known.NotApplied && a.fate == unknown {
		return a
	}
	a.at = int64(time.Since(h.began))
	if a.fate == unknown {
		a.at = math.MaxInt64 // it may take effect at any time
	}
	op := porcupine.Operation{ClientId: client, Input: c, Call: int64(sent), Output: a, Return: a.at}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
	return a
}

// settle is one attempt to settle at a node, for so long.
func settle(ctx context.Context, patience time.Duration, n *node, kind callKind, token []byte, out int64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var r quota.Receipt
	var err error
	if kind == committing {
		r, err = n.Commit(ctx, gate(), &quota.Settle{Token: token, Usage: usage(0, out)})
	} else {
		r, err = n.Release(ctx, gate(), &quota.Settle{Token: token})
	}
	return told(answer{fate: done, amount: r.Charged}, err)
}

// told is what an answer comes to: what was wanted, or how the reservation has ended.
func told(wanted answer, err error) (answer, error) {
	switch {
	case err == nil:
		return wanted, nil
	case errors.Is(err, quota.ReasonReservationCommitted):
		return answer{fate: committed}, nil
	case errors.Is(err, quota.ReasonReservationReleased):
		return answer{fate: released}, nil
	case errors.Is(err, quota.ReasonReservationExpired):
		return answer{fate: lapsed}, nil
	}
	return answer{}, err
}

// settleAgainstEachOther has three clients settle each of some reservations, at either node.
func (h *history) settleAgainstEachOther() {
	var clients sync.WaitGroup
	for r := range 9 {
		var d quota.Decision
		h.insist(func() error {
			return h.nodes[r%len(h.nodes)].Reserve(h.t.Context(), gate(), h.request(500, fmt.Sprint(r)), &d)
		})
		for i := range 3 {
			random := rand.New(rand.NewPCG(h.seed, uint64(8*r+i)))
			clients.Go(func() {
				for range 4 {
					out := 100 * (1 + random.Int64N(2))
					c := call{reservation: r + 1, kind: committing, amount: 3000 * out, expires: math.MaxInt64}
					if random.IntN(3) == 0 {
						c.kind, c.amount = releasing, 0
					}
					n, patience := h.anyNode(random), time.Second
					if random.IntN(4) == 0 {
						patience = 2 * time.Millisecond // it mostly does not hear what came of it
					}
					h.do(i, c, func() (answer, error) { return settle(h.t.Context(), patience, n, c.kind, d.Token, out) })
				}
			})
		}
	}
	clients.Wait()
}

// outlive has three clients report, extend and settle each of some reservations, at either node,
// while they expire: first mostly the former, then the latter.
func (h *history) outlive() {
	var clients sync.WaitGroup
	since := func(wall int64) int64 { return wall - h.began.UnixNano() }
	for r := range 9 {
		var d quota.Decision
		request := h.request(500, fmt.Sprint(r))
		request.TTL = time.Second
		h.insist(func() error { return h.nodes[r%len(h.nodes)].Reserve(h.t.Context(), gate(), request, &d) })
		for i := range 3 {
			random := rand.New(rand.NewPCG(h.seed, uint64(8*r+i)))
			clients.Go(func() {
				for turn := range 7 {
					time.Sleep(time.Duration(random.Int64N(int64(600 * time.Millisecond))))
					out := 50 * (1 + random.Int64N(4))
					c := call{reservation: r + 1, amount: 3000 * out, expires: since(d.ExpiresAt)}
					late := turn > 3+r%3
					switch what := random.IntN(10); {
					case what < 6 && late:
						c.kind = committing
					case what == 6 && late:
						c.kind, c.amount = releasing, 0
					case what > 8:
						c.kind, c.amount = extending, 0
					default:
						c.kind = reporting
					}
					n := h.anyNode(random)
					h.do(i, c, func() (answer, error) { return h.act(n, c, d.Token, out, since) })
				}
			})
		}
	}
	clients.Wait()
}

// act makes one of the calls that a reservation sees.
func (h *history) act(n *node, c call, token []byte, out int64, since func(wall int64) int64) (answer, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Second)
	defer cancel()
	switch c.kind {
	case reporting:
		return told(answer{fate: done}, n.Interim(ctx, gate(), &quota.Settle{Token: token, Usage: usage(0, out)}))
	case extending:
		var d quota.Decision
		err := n.Extend(h.t.Context(), gate(), &quota.Extension{Token: token, TTL: time.Second}, &d)
		if err == nil && !d.Allowed {
			h.t.Errorf("seed %d: an extension by time alone was denied: %+v", h.seed, d.Denial)
		}
		return told(answer{fate: done, until: since(d.ExpiresAt)}, err)
	}
	return settle(ctx, time.Second, n, c.kind, token, out)
}

// request is of an account that falls back to nothing: small costs too little to be scarce.
func (h *history) request(out int64, key string) *quota.Request {
	r := chat(h.account, out, out)
	r.Estimates[0].Quantity, r.TTL, r.Key = 0, time.Minute, fmt.Sprintf("%s-%s", h.account, key)
	return r
}

// spend has clients reserve and settle at both nodes until the account is nearly empty.
func (h *history) spend() {
	var clients sync.WaitGroup
	for i := range 5 {
		random := rand.New(rand.NewPCG(h.seed, uint64(i)))
		clients.Go(func() {
			for j := range 9 {
				at, elsewhere := h.anyNode(random), h.anyNode(random)
				out := 500 + 500*random.Int64N(5)
				var d quota.Decision
				a := h.do(i, call{kind: reserving, amount: 3000 * out}, func() (answer, error) {
					h.insist(func() error { return at.Reserve(h.t.Context(), gate(), h.request(out, fmt.Sprint(i, "-", j)), &d) })
					switch {
					case d.Allowed:
						return answer{fate: done, amount: d.Held}, nil
					case d.Denial.Transient:
						return answer{fate: transient}, nil
					}
					return answer{fate: firm}, nil
				})
				if a.fate != done {
					continue
				}
				used, kind := out, committing
				switch random.IntN(6) {
				case 0:
					used, kind = 0, releasing
				case 1:
					used = random.Int64N(out)
				}
				h.do(i, call{kind: kind, hold: a.amount}, func() (last answer, err error) {
					h.insist(func() error {
						last, err = settle(h.t.Context(), time.Second, elsewhere, kind, d.Token, used)
						return err
					})
					return last, nil
				})
			}
		})
	}
	clients.Wait()
}

// insist does something until it succeeds.
func (h *history) insist(do func() error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if h.t.Failed() || time.Now().After(deadline) {
			h.t.Errorf("seed %d: %v", h.seed, err)
			return
		}
	}
}

// check compares what was seen with a model. If they do not agree, a picture shows how far an
// order was found.
func (h *history) check(t *testing.T, m porcupine.NondeterministicModel) {
	t.Helper()
	open, denied := 0, 0
	for _, op := range h.ops {
		switch op.Output.(answer).fate {
		case unknown:
			open++
		case firm:
			denied++
		}
	}
	if open > len(h.ops)/2 {
		t.Errorf("seed %d: of %d calls %d were never answered", h.seed, len(h.ops), open)
	}
	model := m.ToModel()
	got, info := porcupine.CheckOperationsVerbose(model, h.ops, time.Minute)
	t.Logf("seed %d: %d calls, %d of them open to the end, %d denied for good: %s", h.seed, len(h.ops), open, denied, got)
	if got != porcupine.Ok {
		file := filepath.Join(t.ArtifactDir(), "history.html")
		t.Errorf("seed %d: the history is %s; see %s (go test -artifacts keeps it): %v", h.seed, got, file, porcupine.VisualizePath(model, info, file))
	}
}

// reservation is how one stands.
type reservation struct {
	kind    callKind // that ended it; 0 = held
	claimed int64    // by the commit that ended it
	charged int64
	noted   int64 // the most that was reported
	until   int64 // to which it was extended
}

// early is by how much the clocks of nodes may make a reservation expire too soon.
const early = int64(50 * time.Millisecond)

// settlements is the model of each reservation: it ends once, and says for good how (I5). One that
// nobody ends expires, but not before its end and the grace behind it, and is charged what was
// reported; a commit behind that is charged the rest (R23).
func settlements() porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
			by := map[int]int{}
			for _, op := range all {
				r := op.Input.(call).reservation
				if _, ok := by[r]; !ok {
					by[r] = len(parts)
					parts = append(parts, nil)
				}
				parts[by[r]] = append(parts[by[r]], op)
			}
			return parts
		},
		Init: func() []any { return []any{reservation{}} },
		Step: func(state, input, output any) (after []any) {
			s, c, a := state.(reservation), input.(call), output.(answer)
			befores := []reservation{s}
			if end := max(s.until, c.expires); s.kind == 0 && end < math.MaxInt64 && a.at >= end+int64(quick().Grace)-early {
				befores = append(befores, reservation{kind: expiring, charged: s.noted})
			}
			for _, before := range befores {
				then, fate, amount := before.step(c, a.until)
				switch {
				case a.fate == unknown:
					after = append(after, before, then)
				case a.fate == fate && a.amount == amount:
					after = append(after, then)
				}
				if c.kind == extending && a.fate == done && (before.kind == committing || before.kind == releasing) {
					after = append(after, before) // its owner has not heard yet of what another node settled (R27)
				}
				if c.kind == reporting && before.kind == expiring && a.fate == lapsed {
					// It may have come just before the end, which then charged it.
					after = append(after, reservation{kind: expiring, charged: max(before.charged, c.amount)})
				}
			}
			return after
		},
		DescribeOperation: describe,
	}
}

// step is what a call makes of a reservation, and what it is told.
func (s reservation) step(c call, until int64) (then reservation, told fate, amount int64) {
	switch c.kind {
	case reporting, extending:
		if s.kind != 0 {
			return s, s.ended(), 0
		}
		if c.kind == reporting {
			s.noted = max(s.noted, c.amount)
		}
		s.until = max(s.until, until)
		return s, done, 0
	case releasing:
		switch s.kind {
		case committing:
			return s, committed, 0
		case 0:
			return reservation{kind: releasing}, done, 0
		}
		return s, done, s.charged
	}
	switch {
	case s.kind == 0:
		return reservation{kind: committing, claimed: c.amount, charged: c.amount}, done, c.amount
	case s.kind == expiring:
		rest := max(c.amount-s.charged, 0)
		return reservation{kind: committing, claimed: c.amount, charged: rest}, done, rest
	case s.kind == committing && c.amount == s.claimed:
		return s, done, s.charged
	}
	return s, s.ended(), 0
}

// ended is what is said of a reservation that has ended.
func (s reservation) ended() fate {
	return map[callKind]fate{committing: committed, releasing: released, expiring: lapsed}[s.kind]
}

// purse is what an account has.
type purse struct{ free, held int64 }

// account is the model of a payer's credits: what is free, and what is held. In the strict one a
// denial says that not enough is free.
func account(strict bool) porcupine.NondeterministicModel {
	return porcupine.NondeterministicModel{
		Init: func() []any { return []any{purse{free: scarce}} },
		Step: func(state, input, output any) []any {
			s, c, a := state.(purse), input.(call), output.(answer)
			ok := true
			switch {
			case c.kind != reserving:
				ok = a.fate == done && a.amount <= c.hold
				s.free, s.held = s.free+c.hold-a.amount, s.held-c.hold
			case a.fate == done:
				ok = a.amount <= s.free
				s.free, s.held = s.free-a.amount, s.held+a.amount
			case a.fate == firm:
				ok = s.free+s.held < c.amount
			case a.fate == transient:
				ok = !strict || s.free < c.amount
			}
			if !ok {
				return nil
			}
			return []any{s}
		},
		DescribeOperation: describe,
	}
}

func describe(input, output any) string {
	c, a := input.(call), output.(answer)
	return fmt.Sprintf("%s %d: %s %d", c.kind, c.amount, a.fate, a.amount)
}

// TestHistoryModels: the models refuse what may not be.
func TestHistoryModels(t *testing.T) {
	type seen struct {
		call
		answer
	}
	commit := func(amount int64, a answer) seen {
		return seen{call{reservation: 1, kind: committing, amount: amount}, a}
	}
	release := func(a answer) seen { return seen{call{reservation: 1, kind: releasing}, a} }
	const ends, farther = int64(time.Second), int64(2 * time.Second)
	due := ends + int64(quick().Grace) - early // before that, it may not expire
	report := func(amount int64) seen {
		return seen{call{reservation: 1, kind: reporting, amount: amount, expires: ends}, answer{fate: done}}
	}
	extend := func() seen {
		return seen{call{reservation: 1, kind: extending, expires: ends}, answer{fate: done, until: farther}}
	}
	lapse := func() seen { return seen{call{reservation: 1, kind: reporting, expires: ends}, answer{fate: lapsed}} }
	at := func(when int64, s seen) seen {
		s.expires, s.at = ends, when
		return s
	}
	reserve := func(amount int64, a answer) seen { return seen{call{kind: reserving, amount: amount}, a} }
	end := func(hold int64, a answer) seen { return seen{call{kind: committing, hold: hold}, a} }
	for _, c := range []struct {
		what  string
		model porcupine.NondeterministicModel
		calls []seen
		want  bool
	}{
		{"committed, and again", settlements(), []seen{commit(5, answer{fate: done, amount: 5}), commit(5, answer{fate: done, amount: 5})}, true},
		{"charged otherwise the second time", settlements(), []seen{commit(5, answer{fate: done, amount: 5}), commit(6, answer{fate: done, amount: 6})}, false},
		{"charged what was not used", settlements(), []seen{commit(5, answer{fate: done, amount: 6})}, false},
		{"committed behind a release", settlements(), []seen{release(answer{fate: done}), commit(5, answer{fate: done, amount: 5})}, false},
		{"released behind a commit", settlements(), []seen{commit(5, answer{fate: done, amount: 5}), release(answer{fate: done})}, false},
		{"lost", settlements(), []seen{commit(5, answer{fate: done, amount: 5}), release(answer{fate: released})}, false},
		{"unknown, and done", settlements(), []seen{commit(5, answer{}), release(answer{fate: committed})}, true},
		{"unknown, and not done", settlements(), []seen{commit(5, answer{}), release(answer{fate: done})}, true},
		{"expired", settlements(), []seen{report(5), at(due, lapse())}, true},
		{"expired too soon", settlements(), []seen{report(5), at(due-1, lapse())}, false},
		{"extended behind an expiry", settlements(), []seen{at(due, lapse()), at(due, extend())}, false},
		{"expired although extended", settlements(), []seen{extend(), at(due, lapse())}, false},
		{"committed behind an expiry", settlements(), []seen{report(5), at(due, commit(7, answer{fate: done, amount: 2})), at(due, commit(7, answer{fate: done, amount: 2}))}, true},
		{"committed too late, too soon", settlements(), []seen{report(5), at(due-1, commit(7, answer{fate: done, amount: 2}))}, false},
		{"charged again behind an expiry", settlements(), []seen{report(5), at(due, lapse()), at(due, commit(7, answer{fate: done, amount: 7}))}, false},
		{"a report that was lost", settlements(), []seen{report(5), at(due, release(answer{fate: done}))}, true}, // it may be released in time
		{"a report that the expiry forgot", settlements(), []seen{report(5), at(due, lapse()), at(due, release(answer{fate: done}))}, false},
		{"released behind an expiry", settlements(), []seen{report(5), at(due, lapse()), at(due, release(answer{fate: done, amount: 5}))}, true},
		{"released behind a late commit", settlements(), []seen{report(5), at(due, commit(7, answer{fate: done, amount: 2})), at(due, release(answer{fate: done, amount: 5}))}, false},
		{"reported behind a commit", settlements(), []seen{commit(5, answer{fate: done, amount: 5}), report(7)}, false},
		{"refused by nobody", settlements(), []seen{commit(5, answer{fate: committed})}, false},
		{"spent twice", account(false), []seen{reserve(scarce, answer{fate: done, amount: scarce}), reserve(1, answer{fate: done, amount: 1})}, false},
		{"spent, freed, spent", account(false), []seen{reserve(scarce, answer{fate: done, amount: scarce}), end(scarce, answer{fate: done, amount: 1}), reserve(scarce-1, answer{fate: done, amount: scarce - 1})}, true},
		{"more than was freed", account(false), []seen{reserve(scarce, answer{fate: done, amount: scarce}), end(scarce, answer{fate: done, amount: 1}), reserve(scarce, answer{fate: done, amount: scarce})}, false},
		{"denied for good while held", account(false), []seen{reserve(scarce, answer{fate: done, amount: scarce}), reserve(1, answer{fate: firm})}, false},
		{"denied for now", account(false), []seen{reserve(1, answer{fate: transient})}, true},
		{"denied for now, strictly", account(true), []seen{reserve(1, answer{fate: transient})}, false},
	} {
		var ops []porcupine.Operation
		for i, s := range c.calls {
			op := porcupine.Operation{Input: s.call, Output: s.answer, Call: int64(2 * i), Return: int64(2*i + 1)}
			if s.fate == unknown {
				op.Return = math.MaxInt64
			}
			ops = append(ops, op)
		}
		if got := porcupine.CheckOperations(c.model.ToModel(), ops); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
