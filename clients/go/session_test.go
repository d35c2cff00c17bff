package purser

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// messages counts what arrives on a session before it is answered.
type messages struct {
	mu         sync.Mutex
	sizes      []int
	unanswered int
	most       int
	repeated   bool
	ids        map[uint64]bool
}

func (m *messages) take(r *purserv1.SessionRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sizes = append(m.sizes, len(r.GetOperations()))
	m.unanswered += len(r.GetOperations())
	m.most = max(m.most, m.unanswered)
	for _, o := range r.GetOperations() {
		m.repeated = m.repeated || m.ids[o.GetId()] || o.GetId() == 0
		m.ids[o.GetId()] = true
	}
}

// TestSessionBounds sends far more at once than a session may carry: while nothing is answered
// 1 024 go out, at most 256 to a message, each with an id of its own; and all are answered.
func TestSessionBounds(t *testing.T) {
	seen := &messages{ids: map[uint64]bool{}}
	full := make(chan struct{})
	f := &fake{sessions: true}
	f.stream = func(n *fakeNode, stream purserv1.AuthorityService_SessionServer) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		var held []*purserv1.SessionRequest
		for {
			m, err := stream.Recv()
			if err != nil {
				return nil
			}
			seen.take(m)
			held = append(held, m)
			if seen.most < maxUnanswered {
				continue
			}
			if len(held) > 1 {
				close(full)
			}
			for _, m := range held { // the answers let more come
				if err := stream.Send(n.answers(stream.Context(), m)); err != nil {
					return err
				}
				seen.mu.Lock()
				seen.unanswered -= len(m.GetOperations())
				seen.mu.Unlock()
			}
			held = nil
		}
	}
	c := f.start(t, 1, func(cfg *Config) { cfg.AttemptTimeout = time.Hour }) // a busy machine takes its time
	var callers sync.WaitGroup
	for i := range 3000 {
		callers.Go(func() {
			if _, err := c.Gate(t.Context(), request(fmt.Sprint("a", i))); err != nil {
				t.Error(err)
			}
		})
	}
	<-full
	callers.Wait()
	if seen.most > maxUnanswered || slices.Max(seen.sizes) > maxPerMessage || seen.repeated {
		t.Errorf("at most %d unanswered, %d in a message, an id repeated: %v", seen.most, slices.Max(seen.sizes), seen.repeated)
	}
	if len(seen.sizes) > 1500 {
		t.Errorf("%d messages for 3000 operations: they were not put together", len(seen.sizes))
	}
	if n := len(f.seen()); n != 3000 {
		t.Errorf("%d calls, want each once", n)
	}
}

// TestSessionBreaks has the stream end before an answer to its n-th message, n = 1, 2, ...:
// every operation is sent again with the same token or key, and none fails.
func TestSessionBreaks(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("message %d, applied %v", n, applied), func(t *testing.T) {
				f := &fake{sessions: true}
				received := 0
				f.stream = func(node *fakeNode, stream purserv1.AuthorityService_SessionServer) error {
					if err := stream.SendHeader(nil); err != nil {
						return err
					}
					for {
						m, err := stream.Recv()
						if err != nil {
							return nil
						}
						f.mu.Lock()
						received++
						broken := received == n
						f.mu.Unlock()
						var response *purserv1.SessionResponse
						if !broken || applied {
							response = node.answers(stream.Context(), m)
						}
						if broken {
							return lost(codes.Internal)
						}
						if err := stream.Send(response); err != nil {
							return err
						}
					}
				}
				c := f.start(t, 2, nil)
				for i := range 3 {
					h := gate(t, c, fmt.Sprint("a", i))
					mustCommit(t, t.Context(), h)
				}
				calls := map[string]int{}
				for _, call := range f.seen() {
					calls[call.Op+" "+call.Token]++
				}
				if len(calls) != 6 {
					t.Errorf("calls = %v, want three keys and three tokens: a repeated one is the same", calls)
				}
				if total := len(f.seen()); applied != (total == 7) {
					t.Errorf("%d calls arrived", total)
				}
			})
		}
	}
}

// TestSessionTurnedAway: what was asked of a server that did not accept the stream has not
// happened, and is done by single calls if it has no sessions at all.
func TestSessionTurnedAway(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no sessions":     {lost(codes.Unimplemented), "ok"},
		"disabled":        {refusal(codes.Unimplemented, "FEATURE_DISABLED", true), "ok"},
		"bad credentials": {refusal(codes.Unauthenticated, "CREDENTIALS_INVALID", true), "definite"},
		"draining":        {refusal(codes.Unavailable, reasonShuttingDown, true), "definite"},
		"lost":            {lost(codes.Unavailable), "unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{sessions: true}
			streams := 0
			f.stream = func(*fakeNode, purserv1.AuthorityService_SessionServer) error {
				f.mu.Lock()
				defer f.mu.Unlock()
				streams++
				return c.err
			}
			client := f.start(t, 1, func(cfg *Config) { cfg.Attempts = 2 })
			for range 3 {
				_, err := client.Gate(t.Context(), request("acme"))
				if got := outcome(err); got != c.want {
					t.Errorf("outcome = %s (%v), want %s", got, err, c.want)
				}
			}
			if c.want == "ok" && streams != 1 {
				t.Errorf("%d streams were tried, want one", streams)
			}
		})
	}
}

// TestDrainNotice: new reservations go to another node, settlements stay.
func TestDrainNotice(t *testing.T) {
	f := &fake{sessions: true}
	noticed := make(chan struct{})
	home := -1
	f.stream = func(n *fakeNode, stream purserv1.AuthorityService_SessionServer) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return nil
			}
			response := n.answers(stream.Context(), m)
			f.mu.Lock()
			if home < 0 {
				home = n.node
				response.DrainNotice = &purserv1.DrainNotice{}
				close(noticed)
			}
			f.mu.Unlock()
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
	c := f.start(t, 2, nil)
	first := gate(t, c, "acme")
	<-noticed
	second := gate(t, c, "acme")
	mustCommit(t, t.Context(), first)
	mustCommit(t, t.Context(), second)
	var nodes []bool
	for _, call := range f.seen() {
		nodes = append(nodes, call.Node == home)
	}
	if want := []bool{true, false, true, false}; !slices.Equal(nodes, want) {
		t.Errorf("at home: %v, want %v", nodes, want)
	}
}

// TestSessionHonoursContexts: a caller that does not wait any longer is told whether its
// operation can still happen, and holds up nobody.
func TestSessionHonoursContexts(t *testing.T) {
	f := &fake{sessions: true}
	arrived, released := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f.stream = func(n *fakeNode, stream purserv1.AuthorityService_SessionServer) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		for {
			m, err := stream.Recv()
			if err != nil {
				return nil
			}
			once.Do(func() {
				close(arrived)
				<-released
			})
			if err := stream.Send(n.answers(stream.Context(), m)); err != nil {
				return err
			}
		}
	}
	c := f.start(t, 1, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-arrived
		cancel()
	}()
	_, err := c.Gate(ctx, request("acme"))
	if !IsUnknown(err) || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("error = %v, want unknown: it had been sent", err)
	}
	close(released)
	mustCommit(t, t.Context(), gate(t, c, "globex"))

	ended, cancelEnded := context.WithCancel(t.Context())
	cancelEnded()
	s := c.nodes[0].session
	o := &operation{request: &purserv1.Operation{}, done: make(chan struct{})}
	if !s.leave(o) {
		t.Error("an operation that was not sent is said to have been")
	}
	if _, _, err := s.do(ended, &purserv1.Operation{Call: &purserv1.Operation_Release{Release: &purserv1.ReleaseRequest{}}}); err == nil {
		t.Log("answered before the context was looked at")
	}
}

// TestStuckSessionIsGivenUp: a node that takes a thousand operations and answers none is dropped,
// not waited for.
func TestStuckSessionIsGivenUp(t *testing.T) {
	f := &fake{sessions: true}
	streams := make(chan int, 100)
	f.stream = func(n *fakeNode, stream purserv1.AuthorityService_SessionServer) error {
		if err := stream.SendHeader(nil); err != nil {
			return err
		}
		streams <- 1
		for {
			if _, err := stream.Recv(); err != nil {
				return nil
			}
		}
	}
	c := f.start(t, 1, func(cfg *Config) { cfg.Attempts, cfg.AttemptTimeout = 1, 50*time.Millisecond })
	var callers sync.WaitGroup
	for range maxUnanswered + 10 {
		callers.Go(func() {
			if _, err := c.Gate(t.Context(), request("acme")); err == nil {
				t.Error("answered by nobody")
			}
		})
	}
	callers.Wait()
	<-streams
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, _ = c.Gate(ctx, request("acme"))
		cancel()
		select {
		case <-streams:
			return // a new stream
		default:
		}
	}
}

func TestClosedClientRefuses(t *testing.T) {
	f := &fake{sessions: true}
	c := f.start(t, 1, nil)
	mustCommit(t, t.Context(), gate(t, c, "acme"))
	if err := c.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Gate(ctx, request("acme")); err == nil || IsUnknown(err) {
		t.Errorf("error = %v, want a definite one", err)
	}
}
