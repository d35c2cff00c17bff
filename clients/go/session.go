package purser

import (
	"context"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// The bounds of a session (R41).
const (
	maxPerMessage  = 256
	maxUnanswered  = 1024
	maxMessageSize = 1<<20 - 1<<12 // leaves room for what frames the operations
	maxQueued      = 1 << 16       // callers waiting to be sent; each is a goroutine of the program
	maxOperation   = 60 * time.Second
)

// session carries the calls to one node over one stream: what callers want while a message is
// being written goes with the next one. It answers as the single calls do, so that the rules
// of this package need not know of it: an operation that was never sent fails definitely, one
// that was sent and not answered when the stream broke is unknown (R41).
type session struct {
	// The single calls, for an authority that has no sessions.
	purserv1.AuthorityServiceClient
	client  *Client
	timeout *durationpb.Duration // of an operation
	ctx     context.Context
	cancel  context.CancelFunc
	ended   chan struct{}
	wake    chan struct{} // something was queued, or the window has room again

	mu       sync.Mutex
	queue    []*operation
	sent     map[uint64]*operation // not answered yet
	lastID   uint64
	answers  uint64 // received on this stream
	running  bool
	closed   bool
	draining bool // the node said so
	single   bool // the authority has no sessions
}

// operation is a call under way.
type operation struct {
	request *purserv1.Operation
	done    chan struct{} // closed when result or err is there
	left    bool          // the caller has gone
	result  *purserv1.OperationResult
	err     error
}

func newSession(c *Client, api purserv1.AuthorityServiceClient) *session {
	s := &session{AuthorityServiceClient: api, client: c, ended: make(chan struct{}), wake: make(chan struct{}, 1),
		timeout: durationpb.New(max(min(c.cfg.AttemptTimeout, maxOperation), time.Millisecond)), sent: map[uint64]*operation{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// do has an operation sent and waits for its answer. single is set if it has to be sent as a call
// of its own.
func (s *session) do(ctx context.Context, request *purserv1.Operation) (result *purserv1.OperationResult, single bool, err error) {
	request.Timeout = s.timeout
	o := &operation{request: request, done: make(chan struct{})}
	if single, err = s.enqueue(o); single || err != nil {
		return nil, single, err
	}
	select {
	case <-o.done:
	case <-ctx.Done():
		if !s.leave(o) {
			err := status.FromContextError(ctx.Err())
			return nil, false, status.Error(err.Code(), err.Message()+": sent, and not answered yet")
		}
		return nil, false, refuse(status.FromContextError(ctx.Err()).Code(), "", "the operation was not sent in time")
	}
	if o.err == errSingle {
		return nil, true, nil
	}
	if failed := o.result.GetError(); failed != nil {
		return nil, false, fromStatus(failed)
	}
	return o.result, false, o.err
}

// errSingle says that an operation has to be sent as a call of its own.
var errSingle = status.Error(codes.Unimplemented, "the authority has no sessions")

func (s *session) enqueue(o *operation) (single bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.single:
		return true, nil
	case s.closed:
		return false, refuse(codes.Canceled, "", "the client is closed")
	case s.draining && o.request.GetCheckAndReserve() != nil:
		return false, refuse(codes.Unavailable, reasonShuttingDown, "the node said that it goes away")
	case len(s.queue) >= maxQueued:
		return false, refuse(codes.ResourceExhausted, "SERVER_OVERLOADED", "too many operations wait to be sent")
	}
	s.queue = append(s.queue, o)
	if !s.running {
		s.running = true
		go s.run()
	}
	s.poke()
	return false, nil
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// leave gives up waiting, and reports whether the operation had not been sent: then it never
// will be.
func (s *session) leave(o *operation) (unsent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.left = true
	return o.request.GetId() == 0
}

// run opens a stream whenever there is something to send and none is open.
func (s *session) run() {
	defer close(s.ended)
	for broken := 0; s.await(); {
		if s.stream() {
			broken = 0
			continue
		}
		// The first try again is at once: a node that was replaced is there.
		if broken++; broken > 1 && !pause(s.ctx, s.client.backoff(broken, 0)) {
			break
		}
	}
	s.fail(refuse(codes.Canceled, "", "the client is closed"), true)
}

// await waits until something is queued; no if the client was closed.
func (s *session) await() bool {
	for {
		s.mu.Lock()
		queued := len(s.queue) > 0
		s.mu.Unlock()
		if queued {
			return s.ctx.Err() == nil
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return false
		}
	}
}

// stream is the life of one stream. It reports whether the next one may be opened at once: not
// if this one was accepted and broke without an answer. Where none could be opened, gRPC paces
// the attempts, and callers go elsewhere meanwhile.
func (s *session) stream() (calm bool) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	stream, err := s.AuthorityServiceClient.Session(ctx)
	if err != nil {
		s.fail(asDefinite(classify("session", err)), true) // nothing was sent
		return true
	}
	ended := make(chan error, 1)
	go func() {
		err := s.receive(stream)
		cancel() // wakes a Send that waits for room
		ended <- err
	}()
	s.send(ctx, stream)
	cancel()
	broken := classify("session", <-ended)
	s.mu.Lock()
	answered := s.answers > 0
	s.draining, s.answers = false, 0
	s.mu.Unlock()
	if header, _ := stream.Header(); header == nil && broken.turnedAway() {
		s.turnedAway(broken) // the server sends its headers before it takes anything: it took nothing
		return true
	}
	s.fail(status.Errorf(codes.Unavailable, "the session broke: %s: %s", broken.Code, broken.Message), false)
	return answered
}

// turnedAway reports whether the error says that a stream was not accepted.
func (e *Error) turnedAway() bool {
	switch e.Code {
	case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
		return true
	}
	return e.Metadata[notApplied] == "true"
}

// turnedAway ends what was asked of a server that did not accept the stream.
func (s *session) turnedAway(why *Error) {
	if why.Code != codes.Unimplemented {
		s.fail(asDefinite(why), true)
		return
	}
	s.client.cfg.Logger.Info("the authority has no sessions: single calls are used", "message", why.Message)
	s.mu.Lock()
	s.single = true
	s.mu.Unlock()
	s.fail(errSingle, true)
}

// send writes messages until the stream ends, or nothing was answered for so long that nobody
// waits for it any more.
func (s *session) send(ctx context.Context, stream purserv1.AuthorityService_SessionClient) {
	patience := max(s.client.cfg.AttemptTimeout, time.Second)
	watch := time.NewTimer(patience)
	defer watch.Stop()
	answers, waiting := s.progress(), false
	for {
		// Whoever is about to ask gets its chance to go along.
		runtime.Gosched()
		message, full := s.take()
		if len(message.GetOperations()) > 0 {
			if stream.Send(message) != nil {
				return // Recv says why
			}
			continue
		}
		if now := s.progress(); !full || !waiting || now != answers {
			answers, waiting = now, full
			watch.Reset(patience)
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		case <-watch.C:
			if full && s.progress() == answers {
				return
			}
			waiting = false
		}
	}
}

func (s *session) progress() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers
}

// take makes the next message of what is queued, within the bounds; full says that more has to
// wait for answers.
func (s *session) take() (message *purserv1.SessionRequest, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	message = &purserv1.SessionRequest{}
	taken, size := 0, 0
	for _, o := range s.queue {
		if o.left {
			taken++
			continue
		}
		if len(s.sent) >= maxUnanswered {
			full = true
			break
		}
		if len(message.Operations) == maxPerMessage {
			break
		}
		if s.draining && o.request.GetCheckAndReserve() != nil {
			o.finish(nil, refuse(codes.Unavailable, reasonShuttingDown, "the node said that it goes away"))
			taken++
			continue
		}
		if size += proto.Size(o.request) + 16; size > maxMessageSize && len(message.Operations) > 0 {
			break
		}
		s.lastID++
		o.request.Id = s.lastID
		s.sent[s.lastID] = o
		message.Operations = append(message.Operations, o.request)
		taken++
	}
	clear(s.queue[:taken]) // so that what is done can be collected
	if s.queue = s.queue[taken:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return message, full
}

func (o *operation) finish(result *purserv1.OperationResult, err error) {
	o.result, o.err = result, err
	close(o.done)
}

// receive hands answers to those who wait for them until the stream ends.
func (s *session) receive(stream purserv1.AuthorityService_SessionClient) error {
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		room := len(s.sent) >= maxUnanswered
		if message.GetDrainNotice() != nil {
			s.draining = true
			room = true
		}
		for _, result := range message.GetResults() {
			if o := s.sent[result.GetId()]; o != nil {
				delete(s.sent, result.GetId())
				o.finish(result, nil)
				s.answers++
			}
		}
		s.mu.Unlock()
		if room {
			s.poke()
		}
	}
}

// fail ends everything that was sent; all says that what is queued ends with it.
func (s *session) fail(err error, all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.sent {
		delete(s.sent, id)
		o.finish(nil, err)
	}
	if !all {
		return
	}
	for _, o := range s.queue {
		if !o.left {
			o.finish(nil, err)
		}
	}
	s.queue = nil
}

// close ends the stream; no call may follow.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	running := s.running
	s.mu.Unlock()
	s.cancel()
	if running {
		<-s.ended
	}
}
