package session

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
)

// stream is one stream. Its loop owns everything but what stands below mu.
type stream struct {
	server    *Server
	wire      purserv1.AuthorityService_SessionServer
	ctx       context.Context
	principal *authz.Principal
	base      time.Time // origin of deadlines

	received chan received
	done     chan struct{} // closed when the loop has ended
	bell     chan struct{} // something below mu is new
	queue    queue         // of the pool

	parked     *received                  // read, and not begun for want of room
	ended      bool                       // the client has half-closed
	unanswered map[uint64]*operation      // by id; nil = answered, and not sent
	lingering  int                        // answered for want of time, and not over
	sizes      []int                      // of the operations of the message that begins
	chains     map[reservation]*operation // the last operation on a reservation
	runnable   []*operation               // whose turn has come
	ready      []*purserv1.OperationResult
	spare      []*operation // over, to be used again
	timer      *time.Timer
	armed      int64 // when the timer fires; never = not at all

	mu      sync.Mutex
	woken   []*operation
	notice  *purserv1.DrainNotice // to be sent
	noticed bool
	closing bool
	failure error
}

// received is what Recv gave.
type received struct {
	message *purserv1.SessionRequest
	err     error
	at      int64 // since base
}

// never is later than any deadline.
const never = int64(1<<63 - 1)

func newStream(s *Server, wire purserv1.AuthorityService_SessionServer, p *authz.Principal) *stream {
	return &stream{server: s, wire: wire, ctx: wire.Context(), principal: p, base: s.Now(),
		received: make(chan received, 1), done: make(chan struct{}), bell: make(chan struct{}, 1),
		unanswered: make(map[uint64]*operation), chains: make(map[reservation]*operation), armed: never}
}

// now is the time since the stream began.
func (s *stream) now() int64 { return int64(s.server.Now().Sub(s.base)) }

// receive reads messages until the stream ends; one at most waits to be taken.
func (s *stream) receive() {
	for {
		m, err := s.wire.Recv()
		select {
		case s.received <- received{message: m, err: err, at: s.now()}:
		case <-s.done:
			return
		}
		if err != nil {
			return
		}
	}
}

// serve is the loop.
func (s *stream) serve() error {
	s.timer = time.NewTimer(time.Hour)
	defer s.timer.Stop()
	defer close(s.done)
	go s.receive()
	for {
		closing, err := s.news()
		if err != nil {
			return err
		}
		s.run()
		if err := s.more(closing); err != nil {
			return err
		}
		if sent, err := s.send(); err != nil {
			return err
		} else if sent {
			continue // there may be room now for what is parked
		}
		switch {
		case len(s.unanswered) > 0:
		case closing:
			return &quota.Error{Reason: quota.ReasonShuttingDown, Message: "this node has drained; use another"}
		case s.ended && s.parked == nil:
			return nil
		}
		if err := s.wait(closing); err != nil {
			return err
		}
	}
}

// wait blocks until there is something to do.
func (s *stream) wait(closing bool) error {
	in := s.received
	if s.parked != nil || s.ended || closing {
		in = nil
	}
	select {
	case r := <-in:
		return s.take(r)
	case <-s.bell:
	case <-s.timer.C:
		s.expire()
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
	return nil
}

// more begins what was received and there is room for, until no more is there at once or the
// answers fill a message. A stream that closes begins nothing.
func (s *stream) more(closing bool) error {
	if closing {
		s.parked = nil
		return nil
	}
	for len(s.ready) < MaxOperations {
		if s.parked != nil {
			if ok, err := s.begin(s.parked); err != nil || !ok {
				return err
			}
			s.parked = nil
		}
		if s.ended {
			return nil
		}
		select {
		case r := <-s.received:
			if err := s.take(r); err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return nil
}

// take parks a message.
func (s *stream) take(r received) error {
	switch {
	case errors.Is(r.err, io.EOF):
		s.ended = true
		return nil
	case r.err != nil:
		return r.err
	}
	s.parked = &r
	return nil
}

// news takes in what others have left for the loop.
func (s *stream) news() (closing bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runnable, s.woken = append(s.runnable, s.woken...), s.woken[:0]
	return s.closing, s.failure
}

// ring says that something below mu is new.
func (s *stream) ring() {
	select {
	case s.bell <- struct{}{}:
	default:
	}
}

// drain tells the client, once, that the node goes away.
func (s *stream) drain(settleFor time.Duration) {
	s.mu.Lock()
	if !s.noticed {
		s.noticed, s.notice = true, &purserv1.DrainNotice{SettleFor: durationpb.New(settleFor)}
	}
	s.mu.Unlock()
	s.ring()
}

// close makes the stream end when all is answered.
func (s *stream) close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.ring()
}

// fail ends the stream.
func (s *stream) fail(err error) {
	s.mu.Lock()
	s.failure = err
	s.mu.Unlock()
	s.ring()
}

// send sends the answers there are, and the notice; sent says that there was something.
func (s *stream) send() (sent bool, err error) {
	s.mu.Lock()
	notice := s.notice
	s.notice = nil
	s.mu.Unlock()
	rest := s.ready
	for len(rest) > 0 || notice != nil {
		n := portion(rest)
		for _, r := range rest[:n] {
			delete(s.unanswered, r.GetId())
		}
		if err := s.wire.Send(&purserv1.SessionResponse{Results: rest[:n], DrainNotice: notice}); err != nil {
			return false, err
		}
		rest, notice, sent = rest[n:], nil, true
	}
	clear(s.ready)
	s.ready = s.ready[:0]
	return sent, nil
}

// portion is how many answers go into one message, at least one.
func portion(answers []*purserv1.OperationResult) int {
	size := 0
	for i, r := range answers {
		if i == MaxOperations {
			return i
		}
		if size += weight(r); size > MaxMessageBytes && i > 0 {
			return i
		}
	}
	return len(answers)
}

// weight is at least the size of an answer in a message: a bound that costs nothing for the
// usual ones, of which MaxOperations fit.
func weight(r *purserv1.OperationResult) int {
	const usual = MaxMessageBytes / MaxOperations
	switch a := r.GetResult().(type) {
	case *purserv1.OperationResult_CheckAndReserve:
		// A quantity has up to 80 bytes, what remains of a pot up to 560.
		v := a.CheckAndReserve.GetReservation()
		if v != nil && len(v.GetToken()) <= 1024 && len(v.GetGranted()) <= 8 && len(v.GetRemaining()) <= 2 && len(a.CheckAndReserve.GetWarnings()) == 0 {
			return usual
		}
	case *purserv1.OperationResult_Commit, *purserv1.OperationResult_Release:
		return usual
	}
	const frame = 8 // tag and length within the message
	return proto.Size(r) + frame
}

// arm sets the timer no later than at.
func (s *stream) arm(at int64) {
	if at >= s.armed {
		return
	}
	s.armed = at
	s.timer.Reset(time.Duration(max(at-s.now(), 0)))
}

// expire answers what has run out of time. What it had begun goes on: a settlement that is
// queued lands.
func (s *stream) expire() {
	now, next := s.now(), never
	for _, o := range s.unanswered {
		switch {
		case o == nil:
		case o.deadline <= now:
			s.refuse(o, context.DeadlineExceeded)
			s.lingering++
		default:
			next = min(next, o.deadline)
		}
	}
	s.armed = never
	if next != never {
		s.arm(next)
	}
}
