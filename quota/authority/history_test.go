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

func histories(t *testing.T, test func(t *testing.T, h *history)) {
	seeds(t, "TEST_HISTORIES", 4, func(t *testing.T, url string, seed uint64) { test(t, newHistory(t, url, seed)) })
}

// history is two nodes whose stores lose calls and answers, and what clients saw of them.
type history struct {
	t       *testing.T
	seed    uint64
	nodes   [2]*node
	account string
	began   time.Time

	mu  sync.Mutex
	ops []porcupine.Operation
}

// scarce is what a history's account has, in micros: some ten requests.
const scarce = int64(40e6)

func newHistory(t *testing.T, url string, seed uint64) *history {
	h := &history{t: t, seed: seed, account: fmt.Sprint("history-", seed), began: time.Now()}
	c := shared()
	c.MaxHold = authority.DefaultConfig().MaxHold // nothing expires
	var stores [2]*faultstore.Store
	for i := range h.nodes {
		h.nodes[i] = join(t, url, c, func(s quota.Store) quota.Store {
			stores[i] = faultstore.New(s)
			return stores[i]
		})
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

// call is what a client asked for, and answer what it was told.
type call struct {
	reservation int // which; 0 if the account is looked at
	kind        callKind
	amount      int64 // micros: asked for, or the price of what was used
	hold        int64 // micros: of a settlement
}

type callKind uint8

const (
	reserving callKind = iota + 1
	committing
	releasing
)

func (k callKind) String() string { return [...]string{"", "reserve", "commit", "release"}[k] }

type answer struct {
	fate   fate
	amount int64 // micros: granted, or charged
}

type fate uint8

const (
	unknown fate = iota
	done
	firm      // denied
	transient // denied
	committed // refused: it was before
	released
)

func (f fate) String() string {
	return [...]string{"?", "done", "FIRM", "TRANSIENT", "it is committed", "it is released"}[f]
}

// do makes a call and notes it. What has definitely not been done is no part of history.
func (h *history) do(client int, c call, send func() (answer, error)) answer {
	sent := time.Since(h.began)
	a, err := send()
	var known *quota.Error
	if errors.As(err, &known) && known.NotApplied && a.fate == unknown {
		return a
	}
	op := porcupine.Operation{ClientId: client, Input: c, Call: int64(sent), Output: a, Return: int64(time.Since(h.began))}
	if a.fate == unknown {
		op.Return = math.MaxInt64 // it may take effect at any time
	}
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
	switch {
	case err == nil:
		return answer{done, r.Charged}, nil
	case errors.Is(err, quota.ReasonReservationCommitted):
		return answer{fate: committed}, nil
	case errors.Is(err, quota.ReasonReservationReleased):
		return answer{fate: released}, nil
	}
	return answer{}, err
}

// settleAgainstEachOther has three clients settle each of some reservations, at either node.
func (h *history) settleAgainstEachOther() {
	var clients sync.WaitGroup
	for r := range 9 {
		var d quota.Decision
		h.insist(func() error { return h.nodes[r%2].Reserve(h.t.Context(), gate(), h.request(500, fmt.Sprint(r)), &d) })
		for i := range 3 {
			random := rand.New(rand.NewPCG(h.seed, uint64(8*r+i)))
			clients.Go(func() {
				for range 4 {
					out := 100 * (1 + random.Int64N(2))
					c := call{reservation: r + 1, kind: committing, amount: 3000 * out}
					if random.IntN(3) == 0 {
						c.kind, c.amount = releasing, 0
					}
					n, patience := h.nodes[random.IntN(2)], time.Second
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
				at, elsewhere := h.nodes[random.IntN(2)], h.nodes[random.IntN(2)]
				out := 500 + 500*random.Int64N(5)
				var d quota.Decision
				a := h.do(i, call{kind: reserving, amount: 3000 * out}, func() (answer, error) {
					h.insist(func() error { return at.Reserve(h.t.Context(), gate(), h.request(out, fmt.Sprint(i, "-", j)), &d) })
					switch {
					case d.Allowed:
						return answer{done, d.Held}, nil
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
	charged int64
}

// settlements is the model of each reservation: it ends once, and says for good how (I5).
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
		Step: func(state, input, output any) []any {
			s, c, a := state.(reservation), input.(call), output.(answer)
			after, says := s, answer{done, s.charged}
			switch {
			case s.kind == 0:
				after = reservation{c.kind, c.amount}
				says.amount = c.amount
			case s.kind == committing && (c.kind == releasing || c.amount != s.charged):
				says = answer{fate: committed}
			case s.kind == releasing && c.kind == committing:
				says = answer{fate: released}
			}
			switch {
			case a.fate == unknown:
				return []any{s, after}
			case a == says:
				return []any{after}
			}
			return nil
		},
		DescribeOperation: describe,
	}
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
	reserve := func(amount int64, a answer) seen { return seen{call{kind: reserving, amount: amount}, a} }
	end := func(hold int64, a answer) seen { return seen{call{kind: committing, hold: hold}, a} }
	for _, c := range []struct {
		what  string
		model porcupine.NondeterministicModel
		calls []seen
		want  bool
	}{
		{"committed, and again", settlements(), []seen{commit(5, answer{done, 5}), commit(5, answer{done, 5})}, true},
		{"charged otherwise the second time", settlements(), []seen{commit(5, answer{done, 5}), commit(6, answer{done, 6})}, false},
		{"charged what was not used", settlements(), []seen{commit(5, answer{done, 6})}, false},
		{"committed behind a release", settlements(), []seen{release(answer{fate: done}), commit(5, answer{done, 5})}, false},
		{"released behind a commit", settlements(), []seen{commit(5, answer{done, 5}), release(answer{fate: done})}, false},
		{"lost", settlements(), []seen{commit(5, answer{done, 5}), release(answer{fate: released})}, false},
		{"unknown, and done", settlements(), []seen{commit(5, answer{}), release(answer{fate: committed})}, true},
		{"unknown, and not done", settlements(), []seen{commit(5, answer{}), release(answer{fate: done})}, true},
		{"refused by nobody", settlements(), []seen{commit(5, answer{fate: committed})}, false},
		{"spent twice", account(false), []seen{reserve(scarce, answer{done, scarce}), reserve(1, answer{done, 1})}, false},
		{"spent, freed, spent", account(false), []seen{reserve(scarce, answer{done, scarce}), end(scarce, answer{done, 1}), reserve(scarce-1, answer{done, scarce - 1})}, true},
		{"more than was freed", account(false), []seen{reserve(scarce, answer{done, scarce}), end(scarce, answer{done, 1}), reserve(scarce, answer{done, scarce})}, false},
		{"denied for good while held", account(false), []seen{reserve(scarce, answer{done, scarce}), reserve(1, answer{fate: firm})}, false},
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
