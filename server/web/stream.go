package web

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"connectrpc.com/connect"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/quota"
)

// decodeInto decodes what came into what a gRPC handler made for it.
func decodeInto(in *message, to any) error {
	m, ok := to.(proto.Message)
	if !ok {
		return errNoMessage
	}
	return in.decode(m)
}

// answerOf wraps what a gRPC handler answered.
func answerOf(from any) (*message, error) {
	m, ok := from.(proto.Message)
	if !ok {
		return nil, errNoMessage
	}
	return &message{out: m}, nil
}

// transport is a grpc.ServerTransportStream: handlers and interceptors set headers by it.
type transport struct {
	name            string
	mu              sync.Mutex
	header, trailer metadata.MD
}

// Method implements grpc.ServerTransportStream.
func (t *transport) Method() string { return t.name }

// SetHeader implements grpc.ServerTransportStream.
func (t *transport) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header = metadata.Join(t.header, md)
	return nil
}

// SendHeader implements grpc.ServerTransportStream; headers go with the answer.
func (t *transport) SendHeader(md metadata.MD) error { return t.SetHeader(md) }

// SetTrailer implements grpc.ServerTransportStream.
func (t *transport) SetTrailer(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trailer = metadata.Join(t.trailer, md)
	return nil
}

func (t *transport) copyTo(header, trailer http.Header) {
	t.mu.Lock()
	defer t.mu.Unlock()
	copyMD(header, t.header)
	copyMD(trailer, t.trailer)
}

func copyMD(to http.Header, md metadata.MD) {
	for k, values := range md {
		for _, v := range values {
			if len(k) > 4 && k[len(k)-4:] == "-bin" {
				v = connect.EncodeBinaryHeader([]byte(v))
			}
			to.Add(k, v)
		}
	}
}

// stream is a grpc.ServerStream over a connect-go stream. As with gRPC, one goroutine may
// send and another receive.
type stream struct {
	method *method
	ctx    context.Context
	conn   connect.StreamingHandlerConn
	first  *message // if the method takes one message: it, until it is read
	one    bool
	seen   *observation
}

// Context implements grpc.ServerStream.
func (s *stream) Context() context.Context { return s.ctx }

// SetHeader implements grpc.ServerStream.
func (s *stream) SetHeader(md metadata.MD) error {
	copyMD(s.conn.ResponseHeader(), md)
	return nil
}

// SendHeader implements grpc.ServerStream.
func (s *stream) SendHeader(md metadata.MD) error {
	copyMD(s.conn.ResponseHeader(), md)
	return s.conn.Send(nil)
}

// SetTrailer implements grpc.ServerStream.
func (s *stream) SetTrailer(md metadata.MD) { copyMD(s.conn.ResponseTrailer(), md) }

// SendMsg implements grpc.ServerStream.
func (s *stream) SendMsg(m any) error {
	answer, err := answerOf(m)
	if err != nil {
		return err
	}
	s.seen.sent(s.ctx, m)
	return s.conn.Send(answer)
}

// RecvMsg implements grpc.ServerStream: io.EOF when the client has sent all.
func (s *stream) RecvMsg(m any) error {
	in := s.first
	switch {
	case in != nil:
		s.first = nil
	case s.one:
		return io.EOF
	default:
		in = &message{}
		if err := s.conn.Receive(in); err != nil {
			return received(err)
		}
	}
	s.seen.received(s.ctx, m, len(in.data))
	return decodeInto(in, m)
}

// received makes an error of the domain of what the body's reader refused, for interceptors
// and handlers do not know connect-go's.
func received(err error) error {
	var e *connect.Error
	switch {
	case errors.Is(err, io.EOF):
		return io.EOF
	case errors.As(err, &e) && e.Code() == connect.CodeInvalidArgument:
		return &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true, Message: e.Message(), Err: err}
	}
	return context.Canceled // the client went away
}

// streamTransport is the grpc.ServerTransportStream of a stream.
type streamTransport struct{ *stream }

// Method implements grpc.ServerTransportStream.
func (t *streamTransport) Method() string { return t.method.name }

// SetTrailer implements grpc.ServerTransportStream.
func (t *streamTransport) SetTrailer(md metadata.MD) error {
	t.stream.SetTrailer(md)
	return nil
}

// newCompressor makes what answers are compressed with.
func newCompressor() connect.Compressor { return gzip.NewWriter(io.Discard) }
