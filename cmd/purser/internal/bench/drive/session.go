package drive

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Sessions drives Session: many operations in each message, several streams.
type Sessions struct {
	Target   *Target
	Work     *Work
	Accounts []string
	Streams  int
	Batch    int  // operations in a message
	Window   int  // operations unanswered on a stream, at most 1024 (R41)
	Pairs    bool // commit what was reserved; else reservations are kept for Release
	Keep     bool // keep tokens for Release

	mu     sync.Mutex
	tokens [][]byte
}

// Run drives for the time given, and finishes what is under way then. It counts reservations,
// or pairs.
func (s *Sessions) Run(ctx context.Context, span time.Duration) (done int64, took time.Duration, err error) {
	ctx, cancel := context.WithCancel(s.Target.Context(ctx))
	defer cancel()
	var over atomic.Bool
	var total atomic.Int64
	start := time.Now()
	timer := time.AfterFunc(span, func() { over.Store(true) })
	defer timer.Stop()
	err = inParallel(s.Streams, func(i int) error {
		n, err := s.stream(ctx, i, &over)
		total.Add(n)
		if err != nil {
			over.Store(true)
			cancel()
		}
		return err
	})
	return total.Load(), time.Since(start), err
}

// Release gives back everything that is held.
func (s *Sessions) Release(ctx context.Context) error {
	s.mu.Lock()
	tokens := s.tokens
	s.tokens = nil
	s.mu.Unlock()
	return s.Target.Release(s.Target.Context(ctx), tokens)
}

// slot is one operation of the window at a time. Its messages are used again: an operation
// that was answered has been encoded.
type slot struct {
	op      purserv1.Operation
	reserve purserv1.Operation_CheckAndReserve
	commit  purserv1.Operation_Commit
}

// flow is one stream.
type flow struct {
	*Sessions
	stream  purserv1.AuthorityService_SessionClient
	slots   []slot
	random  *mathrand.Rand
	keys    keys
	batch   []*purserv1.Operation
	sending chan []*purserv1.Operation
	out     int // operations sent, or on their way, and not answered
	done    int64
	tokens  [][]byte
}

func (s *Sessions) stream(ctx context.Context, index int, over *atomic.Bool) (int64, error) {
	stream, err := s.Target.api[index%len(s.Target.api)].Session(ctx)
	if err != nil {
		return 0, fmt.Errorf("session: %w", err)
	}
	f := &flow{Sessions: s, stream: stream, slots: make([]slot, s.Window), keys: s.Work.newKeys(),
		random: mathrand.New(mathrand.NewPCG(2, uint64(index))), sending: make(chan []*purserv1.Operation, s.Window)}
	sent := make(chan error, 1)
	go func() { sent <- f.send() }()
	for i := range f.slots {
		f.prepare(i)
		f.next(i)
	}
	err = f.receive(over)
	close(f.sending)
	s.mu.Lock()
	s.tokens = append(s.tokens, f.tokens...)
	s.mu.Unlock()
	if failed := <-sent; err == nil {
		err = failed
	}
	return f.done, err
}

func (f *flow) prepare(i int) {
	s := &f.slots[i]
	s.op.Id = uint64(i)
	s.reserve.CheckAndReserve = f.Work.request()
	s.commit.Commit = &purserv1.CommitRequest{Usage: f.Work.Usage, Outcome: purserv1.Outcome_OUTCOME_SUCCESS}
}

// send sends batches. It has a goroutine of its own: one that also received could wait for
// the server to read while the server waits for it to read.
func (f *flow) send() error {
	var m purserv1.SessionRequest
	for batch := range f.sending {
		m.Operations = batch
		if err := f.stream.Send(&m); err != nil {
			for range f.sending {
			}
			return fmt.Errorf("session: %w", err)
		}
	}
	return f.stream.CloseSend()
}

// next has a slot reserve for some account.
func (f *flow) next(i int) {
	s := &f.slots[i]
	r := s.reserve.CheckAndReserve
	r.Account, r.IdempotencyKey = f.Accounts[f.random.IntN(len(f.Accounts))], f.keys.next()
	s.op.Call = &s.reserve
	f.add(&s.op)
}

// add puts an operation into the next message, which goes when it is full.
func (f *flow) add(op *purserv1.Operation) {
	f.batch = append(f.batch, op)
	if len(f.batch) >= f.Batch {
		f.flush()
	}
}

func (f *flow) flush() {
	if len(f.batch) == 0 {
		return
	}
	f.out += len(f.batch)
	f.sending <- f.batch
	f.batch = make([]*purserv1.Operation, 0, f.Batch)
}

// receive takes in answers until all are there and time is over.
func (f *flow) receive(over *atomic.Bool) error {
	for {
		if f.out == 0 {
			f.flush() // what is left is less than a message, and nothing else will come
			if f.out == 0 {
				return nil
			}
		}
		m, err := f.stream.Recv()
		if err != nil {
			return fmt.Errorf("session: %w", err)
		}
		f.out -= len(m.GetResults())
		for _, r := range m.GetResults() {
			if err := f.answered(r, over.Load()); err != nil {
				return err
			}
		}
	}
}

func (f *flow) answered(r *purserv1.OperationResult, over bool) error {
	i := int(r.GetId())
	if i >= len(f.slots) {
		return errors.New("session: an answer to nothing")
	}
	switch a := r.GetResult().(type) {
	case *purserv1.OperationResult_CheckAndReserve:
		if err := allowed(a.CheckAndReserve); err != nil {
			return err
		}
		token := a.CheckAndReserve.GetReservation().GetToken()
		if f.Pairs {
			s := &f.slots[i]
			s.commit.Commit.Token = token
			s.op.Call = &s.commit
			f.add(&s.op)
			return nil
		}
		if f.Keep {
			f.tokens = append(f.tokens, token)
		}
	case *purserv1.OperationResult_Commit:
	case *purserv1.OperationResult_Error:
		return fmt.Errorf("session: %s", a.Error)
	default:
		return fmt.Errorf("session: an answer of type %T", a)
	}
	f.done++
	if !over {
		f.next(i)
	}
	return nil
}
