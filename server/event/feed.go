package event

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/server/authority"
)

const (
	readersMost = 64   // of one node
	queueMost   = 4096 // events waiting for one reader
	messageMost = 256  // events in one message
)

// Feed hands what happens to those who read it. It implements the Watcher of quota/authority:
// without a reader its calls cost one atomic load, and with readers they never block.
type Feed struct {
	now     func() time.Time
	count   atomic.Int32 // of readers
	mu      sync.Mutex
	readers map[*reader]struct{}
	closed  chan struct{}
}

// NewFeed makes a feed without readers.
func NewFeed(now func() time.Time) *Feed {
	return &Feed{now: now, readers: make(map[*reader]struct{}), closed: make(chan struct{})}
}

// Close ends every reader, and those that come later.
func (f *Feed) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-f.closed:
	default:
		close(f.closed)
	}
}

// Watched reports whether anybody reads.
func (f *Feed) Watched() bool { return f.count.Load() > 0 }

// Decided shows a decision about a reservation. An answer that was given before is no news.
func (f *Feed) Decided(principal string, r *quota.Request, d *quota.Decision) {
	if d.Replayed {
		return
	}
	f.decided(purserv1.EventKind_EVENT_KIND_RESERVED, principal, r, d)
}

// Extended shows a decision about more of a reservation.
func (f *Feed) Extended(principal string, r *quota.Request, d *quota.Decision) {
	if d.Replayed {
		return
	}
	f.decided(purserv1.EventKind_EVENT_KIND_EXTENDED, principal, r, d)
}

func (f *Feed) decided(granted purserv1.EventKind, principal string, r *quota.Request, d *quota.Decision) {
	e := &purserv1.Event{Time: timestamppb.New(f.now()), Kind: granted, Account: r.Account, Principal: principal}
	if d.Allowed {
		e.Feature, e.AmountMicros, e.Partial = d.Feature, d.Held, d.Partial
		e.ReservationId = token.ReservationID(int64(d.Lane), d.Sequence, d.Nonce)
		e.Quantities = authority.QuantitiesToAPI(d.Granted)
	} else {
		e.Kind, e.Denial = purserv1.EventKind_EVENT_KIND_DENIED, authority.DenialToAPI(r, &d.Denial)
		e.Feature = r.Candidates[0]
	}
	f.publish(e)
}

// Settled shows a settlement that became durable through this node.
func (f *Feed) Settled(r *quota.Record, e *quota.Entry) {
	kind := purserv1.EventKind_EVENT_KIND_COMMITTED
	switch e.Kind {
	case quota.Released:
		kind = purserv1.EventKind_EVENT_KIND_RELEASED
	case quota.Expired:
		kind = purserv1.EventKind_EVENT_KIND_EXPIRED
	}
	f.publish(&purserv1.Event{Time: timestamppb.New(f.now()), Kind: kind, Account: r.Account, Principal: r.Principal,
		Feature: r.Feature, ReservationId: token.ReservationID(int64(r.Lane), r.Sequence, r.Nonce),
		Quantities: authority.QuantitiesToAPI(r.Usage), AmountMicros: e.Charged, UncoveredMicros: e.Uncovered,
		Late: e.Phase == quota.PhaseLate})
}

func (f *Feed) publish(e *purserv1.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r := range f.readers {
		r.offer(e)
	}
}

// reader is one who follows. Its queue is guarded by the feed's lock.
type reader struct {
	want   *purserv1.WatchEventsRequest
	queue  []*purserv1.Event
	missed int64
	bell   chan struct{}
}

// join adds a reader; ok is false if there are too many.
func (f *Feed) join(want *purserv1.WatchEventsRequest) (r *reader, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.readers) >= readersMost {
		return nil, false
	}
	r = &reader{want: want, bell: make(chan struct{}, 1)}
	f.readers[r] = struct{}{}
	f.count.Store(int32(len(f.readers)))
	return r, true
}

func (f *Feed) leave(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
	f.count.Store(int32(len(f.readers)))
}

// offer queues an event for a reader that wants it and has room.
func (r *reader) offer(e *purserv1.Event) {
	switch {
	case r.want.GetAccount() != "" && r.want.GetAccount() != e.GetAccount(),
		r.want.GetFeature() != "" && r.want.GetFeature() != e.GetFeature(),
		r.want.GetDeniedOnly() && e.GetKind() != purserv1.EventKind_EVENT_KIND_DENIED:
		return
	case len(r.queue) >= queueMost:
		r.missed++
		return
	}
	r.queue = append(r.queue, e)
	select {
	case r.bell <- struct{}{}:
	default:
	}
}

// take returns the next message for a reader; nil if nothing waits. Events are shared between
// readers and not changed any more.
func (f *Feed) take(r *reader) *purserv1.WatchEventsResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(r.queue) == 0 {
		return nil
	}
	n := min(len(r.queue), messageMost)
	m := &purserv1.WatchEventsResponse{Events: append([]*purserv1.Event(nil), r.queue[:n]...), Missed: r.missed}
	r.missed = 0
	left := copy(r.queue, r.queue[n:])
	clear(r.queue[left:])
	r.queue = r.queue[:left]
	return m
}
