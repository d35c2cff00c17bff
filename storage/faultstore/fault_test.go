package faultstore

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/purser-io/purser/quota"
)

// counting counts the calls that reach the store. Only these two are called.
type counting struct {
	quota.Store
	mu      sync.Mutex
	fences  []quota.LaneID
	unacked int
	fail    error
}

func (c *counting) Fence(ctx context.Context, lane quota.LaneID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fences = append(c.fences, lane)
	return errors.Join(c.fail, ctx.Err())
}

func (c *counting) Unacked(context.Context, int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unacked++
	return 7, nil
}

func reason(t *testing.T, err error, want quota.Reason) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %s", err, want)
	}
}

func TestByCall(t *testing.T) {
	for _, c := range []struct {
		name    string
		kind    Kind
		want    quota.Reason
		reached int
	}{
		{"fail before", FailBefore, quota.ReasonStoreUnavailable, 2},
		{"fail after", FailAfter, quota.ReasonOutcomeUnknown, 3},
		{"swallow", Swallow, quota.ReasonOutcomeUnknown, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := &counting{}
			s := New(inner)
			i := s.Inject(Fault{Op: "Fence", Call: 2, Kind: c.kind})
			for call := 1; call <= 3; call++ {
				err := s.Fence(t.Context(), quota.LaneID(call))
				if call == 2 {
					reason(t, err, c.want)
				} else if err != nil {
					t.Fatalf("call %d: %v", call, err)
				}
			}
			if n, err := s.Unacked(t.Context(), 1); n != 7 || err != nil {
				t.Errorf("Unacked = %d, %v", n, err)
			}
			if len(inner.fences) != c.reached || s.Calls("Fence") != 3 || s.Calls(Any) != 4 {
				t.Errorf("reached %d, counted %d and %d", len(inner.fences), s.Calls("Fence"), s.Calls(Any))
			}
			<-i.Hit()
			if s.Met() != 1 {
				t.Errorf("%d calls met a fault, want 1", s.Met())
			}
		})
	}
}

func TestManyAndAny(t *testing.T) {
	s := New(&counting{})
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	s.Inject(Fault{Many: 2, Kind: FailBefore})
	_, err := s.Unacked(t.Context(), 1)
	reason(t, err, quota.ReasonStoreUnavailable)
	reason(t, s.Fence(t.Context(), 1), quota.ReasonStoreUnavailable)
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Errorf("third call: %v", err)
	}
	s.Inject(Fault{Op: "Fence", Many: -1, Kind: Swallow})
	for range 5 {
		reason(t, s.Fence(t.Context(), 1), quota.ReasonOutcomeUnknown)
	}
	s.Clear()
	if err := s.Fence(t.Context(), 1); err != nil {
		t.Errorf("after Clear: %v", err)
	}
}

func TestFailAfterKeepsDefiniteErrors(t *testing.T) {
	s := New(&counting{fail: quota.ReasonFenced})
	s.Inject(Fault{Op: "Fence", Kind: FailAfter})
	reason(t, s.Fence(t.Context(), 1), quota.ReasonFenced)
}

func TestHold(t *testing.T) {
	inner := &counting{}
	s := New(inner)
	i := s.Inject(Fault{Op: "Fence", Kind: Hold})
	done := make(chan error, 1)
	go func() { done <- s.Fence(t.Context(), 1) }()
	<-i.Hit()
	if n := len(inner.fences); n != 0 {
		t.Fatalf("%d calls were made before the release", n)
	}
	i.Release()
	if err := <-done; err != nil || len(inner.fences) != 1 {
		t.Errorf("released: %v, %d calls", err, len(inner.fences))
	}

	s.Inject(Fault{Op: "Fence", Kind: Hold})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	reason(t, s.Fence(ctx, 2), quota.ReasonOutcomeUnknown)
	if len(inner.fences) != 1 {
		t.Error("a held call was made though its context had ended")
	}
}

func TestHoldAnswer(t *testing.T) {
	inner := &counting{}
	s := New(inner)
	i := s.Inject(Fault{Op: "Unacked", Kind: HoldAnswer})
	done := make(chan int, 1)
	go func() {
		n, _ := s.Unacked(t.Context(), 1)
		done <- n
	}()
	<-i.Hit()
	if inner.unacked != 1 {
		t.Fatal("the call was not made at once")
	}
	i.Release()
	if n := <-done; n != 7 {
		t.Errorf("answer %d, want 7", n)
	}
}

func TestLandLate(t *testing.T) {
	inner := &counting{}
	s := New(inner)
	i := s.Inject(Fault{Op: "Fence", Kind: LandLate})
	ctx, cancel := context.WithCancel(t.Context())
	reason(t, s.Fence(ctx, 5), quota.ReasonOutcomeUnknown)
	cancel()
	inner.mu.Lock()
	n := len(inner.fences)
	inner.mu.Unlock()
	if n != 0 {
		t.Fatal("it landed before it was released")
	}
	i.Release()
	if !reflect.DeepEqual(inner.fences, []quota.LaneID{5}) {
		t.Errorf("landed %v, want [5]", inner.fences)
	}
}

func TestDown(t *testing.T) {
	inner := &counting{}
	s := New(inner)
	s.SetDown(true)
	err := s.Fence(t.Context(), 1)
	reason(t, err, quota.ReasonStoreUnavailable)
	var e *quota.Error
	if !errors.As(err, &e) || !e.NotApplied {
		t.Error("an outage must be a definite failure")
	}
	s.SetDown(false)
	if err := s.Fence(t.Context(), 1); err != nil || len(inner.fences) != 1 {
		t.Errorf("after the outage: %v, %d calls", err, len(inner.fences))
	}
}

func TestRandomiseIsAFunctionOfTheSeed(t *testing.T) {
	run := func(seed uint64) (out []string) {
		s := New(&counting{})
		s.Randomise(seed, Rates{FailBefore: 100, FailAfter: 100, Swallow: 100})
		for range 2000 {
			text := "ok"
			if err := s.Fence(t.Context(), 1); err != nil {
				text = err.Error()
			}
			out = append(out, text)
		}
		return out
	}
	first := run(1)
	if !reflect.DeepEqual(first, run(1)) {
		t.Error("the same seed gave other faults")
	}
	if reflect.DeepEqual(first, run(2)) {
		t.Error("another seed gave the same faults")
	}
	failed := 0
	for _, text := range first {
		if text != "ok" {
			failed++
		}
	}
	if failed < 450 || failed > 750 {
		t.Errorf("%d of 2000 calls went wrong, want about 600", failed)
	}
}

// TestEveryOperationForwards walks the interface, so that no operation can be forgotten: each
// must meet a fault under its own name.
func TestEveryOperationForwards(t *testing.T) {
	store := reflect.TypeFor[quota.Store]()
	for i := range store.NumMethod() {
		m := store.Method(i)
		if m.Name == "Close" {
			continue
		}
		s := New(&counting{})
		s.Inject(Fault{Op: Op(m.Name), Kind: FailBefore})
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		for j := 1; j < m.Type.NumIn(); j++ {
			args = append(args, reflect.Zero(m.Type.In(j)))
		}
		out := reflect.ValueOf(s).MethodByName(m.Name).Call(args)
		err, _ := out[len(out)-1].Interface().(error)
		if !errors.Is(err, quota.ReasonStoreUnavailable) {
			t.Errorf("%s: error %v, want the fault", m.Name, err)
		}
	}
}
