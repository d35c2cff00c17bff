package gategrpc

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	purser "github.com/purser-io/purser/clients/go"
)

// Stream is a grpc.StreamServerInterceptor. The call is gated by its first message, so the
// handle is in the stream's context from then on: a method that streams in both directions
// asks for the context after it has received.
func (g *Gate) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	s := &gatedStream{ServerStream: stream, gate: g, method: info.FullMethod, ctx: stream.Context()}
	panicked := true
	defer func() {
		h, refused := s.state()
		if refused != nil && !panicked {
			err = refused // whatever the method made of it
		}
		if h != nil {
			g.leave(stream.Context(), info.FullMethod, h, outcomeOf(stream.Context(), panicked, err))
		}
	}()
	err = next(service, s)
	panicked = false
	return err
}

// gatedStream is gated by the first message in either direction.
type gatedStream struct {
	grpc.ServerStream
	gate   *Gate
	method string

	mu      sync.Mutex // messages go both ways at the same time
	entered bool
	ctx     context.Context
	handle  *purser.Handle // nil = not gated
	refused error
}

// Context implements grpc.ServerStream.
func (s *gatedStream) Context() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ctx
}

func (s *gatedStream) state() (*purser.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handle, s.refused
}

// enter gates once; later messages get the answer of the first.
func (s *gatedStream) enter(message any) (*purser.Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.entered {
		s.entered = true
		if s.handle, s.refused = s.gate.enter(s.ctx, s.method, message); s.handle != nil {
			s.ctx = purser.NewContext(s.ctx, s.handle)
		}
	}
	return s.handle, s.refused
}

// RecvMsg implements grpc.ServerStream.
func (s *gatedStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	_, err := s.enter(message)
	return err
}

// SendMsg implements grpc.ServerStream. What could not be sent is counted too: it was made.
func (s *gatedStream) SendMsg(message any) error {
	h, err := s.enter(nil)
	if err != nil {
		return err
	}
	if h != nil {
		s.gate.count(h, message)
	}
	return s.ServerStream.SendMsg(message)
}
