package session

import (
	"context"
	"fmt"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/server/grpcerr"
	"github.com/purser-io/purser/server/wire"
)

// operation is one operation that is under way. The loop owns it, but for the moments that
// its call or the pool has it; they give it back by Wake.
type operation struct {
	stream   *stream
	call     Call
	id       uint64
	kind     Kind
	deadline int64 // since the stream began
	answered bool

	on    reservation
	bound bool       // to on
	next  *operation // on the same reservation; it begins when this one is over

	err error // that Read returned
}

// reservation names what operations are kept in order by.
type reservation struct {
	lane     int64
	sequence uint64
}

// Wake implements authority.Waker.
func (o *operation) Wake() {
	s := o.stream
	s.mu.Lock()
	s.woken = append(s.woken, o)
	first := len(s.woken) == 1
	s.mu.Unlock()
	if first {
		s.ring()
	}
}

// begin starts the operations of a message, or none of them: false if there is no room yet.
// An error breaks the contract and ends the stream.
func (s *stream) begin(r *received) (bool, error) {
	ops := r.message.GetOperations()
	if n := len(ops); n == 0 || n > MaxOperations {
		return false, violation("operations", "there are %d, it must be 1 to %d", n, MaxOperations)
	}
	if len(s.unanswered)+s.lingering+len(ops) > MaxUnanswered {
		return false, nil
	}
	if err := s.register(ops); err != nil {
		return false, err
	}
	var count [Kinds]int
	for i, op := range ops {
		count[s.start(op, s.sizes[i], r.at)]++
	}
	for k, n := range count {
		if n > 0 {
			s.server.Metrics.SessionOperations(Kind(k), n)
		}
	}
	return true, nil
}

// register holds a message to its bounds and takes its ids.
func (s *stream) register(ops []*purserv1.Operation) error {
	total := 0
	s.sizes = s.sizes[:0]
	for i, op := range ops {
		if _, ok := s.unanswered[op.GetId()]; ok {
			return violation(fmt.Sprintf("operations[%d].id", i), "%d is the id of another operation that is not answered", op.GetId())
		}
		s.unanswered[op.GetId()] = nil
		size := wire.Size(op, min(s.server.OperationBytes, MaxMessageBytes/MaxOperations))
		s.sizes = append(s.sizes, size)
		total += size
	}
	if total > MaxMessageBytes {
		return violation("operations", "they have %d bytes, at most %d are allowed", total, MaxMessageBytes)
	}
	return nil
}

func violation(field, format string, args ...any) error {
	return grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// start begins one operation.
func (s *stream) start(op *purserv1.Operation, size int, at int64) Kind {
	o := s.operation()
	k, tok := KindOf(op)
	o.id, o.kind, o.deadline = op.GetId(), k, at+int64(s.server.Timeout)
	if err := s.admit(o, op, size, at); err != nil {
		s.refuse(o, err)
		s.over(o)
		return k
	}
	if tok != nil && s.follow(o, tok) {
		s.putAside(o)
		return k
	}
	s.step(o)
	return k
}

// operation is a fresh one, or one used before.
func (s *stream) operation() *operation {
	if n := len(s.spare); n > 0 {
		o := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return o
	}
	o := &operation{stream: s}
	o.call = s.server.Operations.NewCall(s.ctx, s.principal, o)
	return o
}

// admit checks an operation and takes it in.
func (s *stream) admit(o *operation, op *purserv1.Operation, size int, at int64) error {
	if o.kind == None {
		return violation("call", "it is missing; say what to do")
	}
	if size > s.server.OperationBytes {
		return violation("", "the operation has %d bytes, at most %d are allowed", size, s.server.OperationBytes)
	}
	if t := op.GetTimeout(); t != nil {
		limit := t.AsDuration()
		if limit < MinTimeout || limit > MaxTimeout {
			return violation("timeout", "%v is out of range: it must be %v to %v", limit, MinTimeout, MaxTimeout)
		}
		o.deadline = at + int64(limit)
	}
	if o.deadline <= s.now() { // it waited too long for room
		return context.DeadlineExceeded
	}
	return o.call.Take(op)
}

// follow binds an operation to its reservation; true if it has to wait for one before it.
func (s *stream) follow(o *operation, tok []byte) bool {
	lane, sequence, ok := token.Reservation(tok)
	if !ok {
		return false // it will be refused
	}
	o.on, o.bound = reservation{lane, sequence}, true
	last := s.chains[o.on]
	s.chains[o.on] = o
	if last == nil {
		return false
	}
	last.next = o
	return true
}

// putAside keeps an operation until it is woken or its time is over.
func (s *stream) putAside(o *operation) {
	s.unanswered[o.id] = o
	s.arm(o.deadline)
}

// run goes on with what was woken.
func (s *stream) run() {
	for i := 0; i < len(s.runnable); i++ { // it grows meanwhile
		o := s.runnable[i]
		s.runnable[i] = nil
		err := o.err
		o.err = nil
		switch {
		case o.answered: // its time was over
			s.lingering--
			s.over(o)
		case err != nil:
			s.refuse(o, err)
			s.over(o)
		default:
			s.step(o)
		}
	}
	s.runnable = s.runnable[:0]
}

// step goes on with an operation until it has to wait.
func (s *stream) step(o *operation) {
	out := &purserv1.OperationResult{Id: o.id}
	progress, err := o.call.Step(out)
	switch {
	case err != nil:
		s.refuse(o, err)
	case progress == authority.Done:
		s.answer(o, out)
	case progress == authority.Reading:
		if err := s.server.pool.put(&s.queue, o); err != nil {
			s.refuse(o, err)
			break
		}
		s.putAside(o)
		return
	default:
		s.putAside(o)
		return
	}
	s.over(o)
}

// refuse answers with an error.
func (s *stream) refuse(o *operation, err error) {
	s.answer(o, &purserv1.OperationResult{Id: o.id,
		Result: &purserv1.OperationResult_Error{Error: s.server.Status(s.ctx, o.kind.Method(), err)}})
}

// answer queues the answer.
func (s *stream) answer(o *operation, out *purserv1.OperationResult) {
	o.answered = true
	s.unanswered[o.id] = nil
	s.ready = append(s.ready, out)
}

// over lets the next operation on the same reservation begin. Nobody holds o any more.
func (s *stream) over(o *operation) {
	if o.bound {
		if o.next != nil {
			s.runnable = append(s.runnable, o.next)
		} else {
			delete(s.chains, o.on)
		}
	}
	if len(s.spare) < MaxOperations {
		*o = operation{stream: s, call: o.call}
		s.spare = append(s.spare, o)
	}
}

// limit is how much time an operation has left.
func (o *operation) limit() time.Duration {
	return time.Duration(o.deadline - o.stream.now())
}
