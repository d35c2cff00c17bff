package session

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server/caller"
)

// Bounds of R41. They are in the contract.
const (
	// MaxUnanswered is how many operations of a stream may be under way; more are not read.
	MaxUnanswered = 1024
	// MaxOperations is how many operations or answers a message may have.
	MaxOperations = 256
	// MaxMessageBytes is the largest message in either direction.
	MaxMessageBytes = 1 << 20
	// MinTimeout and MaxTimeout bound the time limit of an operation.
	MinTimeout = time.Millisecond
	MaxTimeout = time.Minute
)

// Call performs one operation. The loop of its stream uses it, one method at a time, and uses
// it for another operation when this one is over.
type Call interface {
	// Take begins a new operation: it checks and converts. An error is its answer, and definite.
	Take(op *purserv1.Operation) error
	// Step goes on as far as it can without blocking and, when Done, leaves the answer in out.
	// After Waiting it is called again when the call has woken its operation; after Reading,
	// when Read has returned nil. An error is the answer.
	Step(out *purserv1.OperationResult) (authority.Progress, error)
	// Read does what blocks on storage, within ctx, in a goroutine of the pool.
	Read(ctx context.Context) error
}

// Operations is the service behind a stream; package server/authority is one.
type Operations interface {
	// NewCall makes a Call for the caller of a stream, whose context ctx is. The Call wakes the
	// operation once for each Waiting.
	NewCall(ctx context.Context, p *authz.Principal, operation authority.Waker) Call
}

// Node says what becomes of the node.
type Node interface {
	// Draining reports whether it goes away, and how long settlements are still served.
	Draining() (settleFor time.Duration, draining bool)
}

// Metrics is told what happens; it must neither block nor allocate.
type Metrics interface {
	// SessionsOpen adds to the number of streams open.
	SessionsOpen(change int)
	// SessionOperations counts operations received.
	SessionOperations(k Kind, n int)
}

// Config is what a Server works with. All of it is required.
type Config struct {
	Operations Operations
	Node       Node
	Keys       authz.KeyStore
	Metrics    Metrics
	Now        func() time.Time
	// Status is what the caller of an operation is told of an error that is not nil.
	Status func(ctx context.Context, method string, err error) *purserv1.OperationStatus
	// Panicked turns what was recovered from a panic into an error, or panics with it.
	Panicked func(ctx context.Context, p any) error
	// Timeout is the time limit of operations that state none.
	Timeout time.Duration
	// OperationBytes is the largest operation.
	OperationBytes int
	// Workers is how many operations may read storage at once; Queue is how many of all streams
	// may wait for that: what comes beyond is refused with SERVER_OVERLOADED. Of one stream as
	// many may wait as may be unanswered: a gateway may begin with all it has, on one account.
	Workers, Queue int
	// Watch is how often keys and the node's state are looked at.
	Watch time.Duration
}

// Server serves the streams of a node.
type Server struct {
	Config
	pool pool

	mu      sync.Mutex
	streams map[*stream]struct{}
	closing bool
}

// New makes a Server. Its streams have what blocks done while Run runs.
func New(c Config) *Server {
	s := &Server{Config: c, streams: make(map[*stream]struct{})}
	s.pool.init(c.Queue)
	return s
}

// Serve serves one stream until it ends. It is nil after a half-close, when all is answered.
//
// Reasons: REQUEST_INVALID if a bound is broken, CREDENTIALS_INVALID when the key was revoked
// or expired, SHUTTING_DOWN after Close, when all that was received is answered. Whatever ends
// a stream leaves its unanswered operations unknown.
func (s *Server) Serve(wire purserv1.AuthorityService_SessionServer) error {
	p, ok := caller.From(wire.Context())
	if !ok {
		return quota.Errorf(quota.ReasonInternal, "")
	}
	// Headers go first: a stream that ends without them was not accepted, so nothing that was
	// sent on it has been applied. Clients rely on that.
	if err := wire.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	st := newStream(s, wire, p)
	s.mu.Lock()
	st.closing = s.closing
	s.streams[st] = struct{}{}
	s.mu.Unlock()
	s.Metrics.SessionsOpen(1)
	defer func() {
		s.Metrics.SessionsOpen(-1)
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
		s.pool.drop(&st.queue)
	}()
	if settleFor, draining := s.Node.Draining(); draining {
		st.drain(settleFor)
	}
	return st.serve()
}

// Close makes all streams end when what they have received is answered, and new ones at once.
func (s *Server) Close() {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	settleFor, _ := s.Node.Draining()
	for _, st := range s.open() {
		st.drain(settleFor)
		st.close()
	}
}

// open lists the streams.
func (s *Server) open() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*stream, 0, len(s.streams))
	for st := range s.streams {
		all = append(all, st)
	}
	return all
}

// Run does what streams need done beside them, until ctx ends and all of it has ended.
func (s *Server) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range s.Workers {
		workers.Go(s.work)
	}
	stop := context.AfterFunc(ctx, s.pool.stop)
	defer stop()
	s.watch(ctx)
	workers.Wait()
}
