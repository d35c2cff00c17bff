// Package faultstore wraps a store with faults for tests: a call that fails before it was
// made, one that was made and whose answer is lost, one that never arrives, one that lands
// long after its caller gave up, one that hangs, and a store that is away for a while. A
// fault is chosen by the operation and its call number, or drawn from a seed; the same calls
// and the same seed meet the same faults.
package faultstore

import (
	"context"
	"hash/fnv"
	"sync"

	"github.com/purser-io/purser/quota"
)

// Kind is what goes wrong with a call.
type Kind uint8

// Kinds of faults.
const (
	// FailBefore answers STORE_UNAVAILABLE and makes no call: a definite failure.
	FailBefore Kind = iota + 1
	// FailAfter makes the call, then answers OUTCOME_UNKNOWN if it succeeded: the answer was lost.
	FailAfter
	// Swallow answers OUTCOME_UNKNOWN and makes no call: the request was lost.
	Swallow
	// Hold makes the call, and answers as it did, only when released or the context ends; in
	// the latter case no call is made and the outcome is UNKNOWN.
	Hold
	// HoldAnswer makes the call at once, and gives its answer only when released; OUTCOME_UNKNOWN
	// if the context ends before.
	HoldAnswer
	// LandLate answers OUTCOME_UNKNOWN at once; the call is made when released, even if its
	// context has ended by then: the write that nobody waits for any more (R5).
	LandLate
)

// Op is an operation: the name of a method of quota.Store, as "Append".
type Op string

// Any stands for every operation.
const Any Op = ""

// Fault says which calls go wrong, and how.
type Fault struct {
	Op   Op
	Call int // the first call concerned, counted from 1 per operation since New; 0 = the next
	Many int // how many calls from there on; 0 = one, negative = all
	Kind Kind
}

// Injected is a fault put into a store.
type Injected struct {
	fault   Fault
	hit     chan struct{}
	hitOnce sync.Once
	free    chan struct{}
	relOnce sync.Once
	landed  sync.WaitGroup
}

// Hit is closed when the fault has met its first call. Of HoldAnswer, when that call is made.
func (i *Injected) Hit() <-chan struct{} { return i.hit }

// Release lets held calls go on, and late calls land; it returns when all that were late then
// have landed. Calls that meet the fault later are not held any more.
func (i *Injected) Release() {
	i.relOnce.Do(func() { close(i.free) })
	i.landed.Wait()
}

func (i *Injected) met() { i.hitOnce.Do(func() { close(i.hit) }) }

// Rates are chances in 1 000 that a call goes wrong in some way.
type Rates struct{ FailBefore, FailAfter, Swallow int }

// Store is a quota.Store with faults. It is safe for concurrent use.
type Store struct {
	inner quota.Store

	mu     sync.Mutex
	calls  map[Op]int
	met    int
	faults []*Injected
	down   bool
	seed   uint64
	rates  Rates
}

// New wraps inner; without faults it behaves as inner does.
func New(inner quota.Store) *Store { return &Store{inner: inner, calls: map[Op]int{}} }

// Inject puts a fault in. The first one that concerns a call is the one it meets.
func (s *Store) Inject(f Fault) *Injected {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.Call == 0 && f.Op != Any {
		f.Call = s.calls[f.Op] + 1
	}
	i := &Injected{fault: f, hit: make(chan struct{}), free: make(chan struct{})}
	s.faults = append(s.faults, i)
	return i
}

// Clear takes all faults out, ends an outage and ends Randomise. Held calls stay held.
func (s *Store) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.down, s.rates = nil, false, Rates{}
}

// Randomise makes calls go wrong at random: whether one does is a function of the seed, the
// operation and its call number alone, whatever the order in which goroutines come.
func (s *Store) Randomise(seed uint64, r Rates) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seed, s.rates = seed, r
}

// SetDown begins or ends an outage: while it lasts every call is FailBefore.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Calls is how often the operation was called, faults included.
func (s *Store) Calls(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[op]
}

// Met is how many calls met a fault.
func (s *Store) Met() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met
}

// next counts a call and chooses its fault.
func (s *Store) next(op Op) (kind Kind, fault *Injected) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls[op]++
	s.calls[Any]++
	defer func() {
		if kind != 0 {
			s.met++
		}
	}()
	if s.down {
		return FailBefore, nil
	}
	for _, i := range s.faults {
		f := &i.fault
		if f.Op != Any && f.Op != op {
			continue
		}
		if f.Call == 0 {
			f.Call = s.calls[Any] // "the next call of any operation" is this one
		}
		call := s.calls[f.Op]
		if many := max(f.Many, 1); call >= f.Call && (f.Many < 0 || call < f.Call+many) {
			return f.Kind, i
		}
	}
	return s.drawn(op, s.calls[op]), nil
}

func (s *Store) drawn(op Op, call int) Kind {
	h := fnv.New64a()
	var b [16]byte
	for i := range 8 {
		b[i], b[8+i] = byte(s.seed>>(8*i)), byte(call>>(8*i))
	}
	_, _ = h.Write(b[:])
	_, _ = h.Write([]byte(op))
	x := h.Sum64()
	x ^= x >> 33 // FNV's low bits alone are too regular for neighbouring call numbers.
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	at := int(x % 1000)
	for _, c := range [...]struct {
		rate int
		kind Kind
	}{{s.rates.FailBefore, FailBefore}, {s.rates.FailAfter, FailAfter}, {s.rates.Swallow, Swallow}} {
		if at < c.rate {
			return c.kind
		}
		at -= c.rate
	}
	return 0
}

func unavailable(op Op) error {
	return &quota.Error{Reason: quota.ReasonStoreUnavailable, Message: string(op) + ": injected outage", NotApplied: true}
}

func unknown(op Op) error {
	return &quota.Error{Reason: quota.ReasonOutcomeUnknown, Message: string(op) + ": injected loss of the answer"}
}

// do makes the call as its fault lets it.
func do[T any](ctx context.Context, s *Store, op Op, call func(context.Context) (T, error)) (out T, err error) {
	var none T
	kind, fault := s.next(op)
	if fault != nil && kind != HoldAnswer {
		fault.met()
	}
	switch kind {
	case FailBefore:
		return none, unavailable(op)
	case Swallow:
		return none, unknown(op)
	case FailAfter:
		if _, err := call(ctx); err != nil {
			return none, err
		}
		return none, unknown(op)
	case Hold:
		if !fault.wait(ctx) {
			return none, unknown(op)
		}
	case HoldAnswer:
		out, err = call(ctx)
		fault.met()
		if !fault.wait(ctx) {
			return none, unknown(op)
		}
		return out, err
	case LandLate:
		fault.landed.Go(func() {
			<-fault.free
			_, _ = call(context.WithoutCancel(ctx)) // Nobody is left to be told.
		})
		return none, unknown(op)
	}
	return call(ctx)
}

func (i *Injected) wait(ctx context.Context) bool {
	select {
	case <-i.free:
		return true
	case <-ctx.Done():
		return false
	}
}

// run is do for calls that answer nothing.
func run(ctx context.Context, s *Store, op Op, call func(context.Context) error) error {
	_, err := do(ctx, s, op, func(ctx context.Context) (struct{}, error) { return struct{}{}, call(ctx) })
	return err
}

// pair carries two answers through do.
type pair[A, B any] struct {
	a A
	b B
}

func two[A, B any](ctx context.Context, s *Store, op Op, call func(context.Context) (A, B, error)) (A, B, error) {
	p, err := do(ctx, s, op, func(ctx context.Context) (pair[A, B], error) {
		a, b, err := call(ctx)
		return pair[A, B]{a, b}, err
	})
	return p.a, p.b, err
}
