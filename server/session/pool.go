package session

import (
	"context"
	"sync"
	"time"

	"github.com/purser-io/purser/quota"
)

// pool is where operations wait for a worker: one queue per stream, served in turn, so that
// no stream waits for another's backlog.
type pool struct {
	bound int // operations waiting, of all streams

	mu      sync.Mutex
	some    sync.Cond
	turns   []*queue // those with something in them
	waiting int
	stopped bool
}

// queue is what one stream has waiting; it belongs to the pool.
type queue struct {
	operations []*operation
}

func (p *pool) init(bound int) {
	p.bound = bound
	p.some.L = &p.mu
}

// put queues an operation. An error is definite.
func (p *pool) put(q *queue, o *operation) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stopped:
		return &quota.Error{Reason: quota.ReasonShuttingDown, NotApplied: true, Message: "this node has stopped; use another"}
	case p.waiting >= p.bound:
		return &quota.Error{Reason: quota.ReasonServerOverloaded, NotApplied: true, RetryAfter: 100 * time.Millisecond,
			Message: "as many operations as may wait for the store do"}
	}
	if len(q.operations) == 0 {
		p.turns = append(p.turns, q)
	}
	q.operations = append(q.operations, o)
	p.waiting++
	p.some.Signal()
	return nil
}

// next waits for an operation; nil when the pool has stopped.
func (p *pool) next() *operation {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.turns) == 0 && !p.stopped {
		p.some.Wait()
	}
	if p.stopped {
		return nil
	}
	q := p.turns[0]
	p.turns = append(p.turns[:0], p.turns[1:]...)
	o := q.operations[0]
	q.operations = append(q.operations[:0], q.operations[1:]...)
	p.waiting--
	if len(q.operations) > 0 {
		p.turns = append(p.turns, q)
	}
	return o
}

// drop forgets what a stream that has ended had waiting.
func (p *pool) drop(q *queue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(q.operations) == 0 {
		return
	}
	p.waiting -= len(q.operations)
	q.operations = nil
	for i, t := range p.turns {
		if t == q {
			p.turns = append(p.turns[:i], p.turns[i+1:]...)
			return
		}
	}
}

func (p *pool) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	p.some.Broadcast()
}

// work is one worker.
func (s *Server) work() {
	for o := s.pool.next(); o != nil; o = s.pool.next() {
		s.read(o)
		o.Wake()
	}
}

// read has an operation do what blocks.
func (s *Server) read(o *operation) {
	ctx, cancel := context.WithTimeout(o.stream.ctx, o.limit())
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			o.err = s.Panicked(ctx, p)
		}
	}()
	o.err = o.call.Read(ctx)
}
