package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	"github.com/purser-io/purser/quota/escrow"
)

// Service is a gRPC service with what implements it.
type Service struct {
	Desc *grpc.ServiceDesc
	Impl any
}

// Config is what a handler is made of; all of it is required but Stats, Now and AllowOrigins.
type Config struct {
	Services []Service
	// Unary and Stream are the interceptors of the gRPC port, from the outside in.
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor
	// Stats are told of every call, with the times of Now.
	Stats []stats.Handler
	Now   func() time.Time
	// Refuse maps an error of the domain to a gRPC status, as those interceptors do. It is
	// called for what never reaches them.
	Refuse func(ctx context.Context, method string, err error) error
	// MessageBytes is the largest message that a method takes, before and behind compression.
	MessageBytes func(method string, stream bool) int
	// Settles tells methods that go on when their caller leaves: what was used is charged.
	Settles func(method string) bool
	// AllowOrigins are the web origins whose pages may call: "https://app.example.com", or "*".
	// None: no page of another origin may.
	AllowOrigins []string
	Logger       *slog.Logger
}

// New makes the handler of /package.Service/Method for every method of the services.
func New(c Config) (http.Handler, error) {
	d := &door{refuse: c.Refuse, writer: connect.NewErrorWriter(handlerOptions()...)}
	mux := http.NewServeMux()
	for _, s := range c.Services {
		for i := range s.Desc.Methods {
			m := newMethod(&c, d, s.Desc.ServiceName, s.Desc.Methods[i].MethodName, connect.StreamTypeUnary)
			m.rpc = m.unary(s.Impl, s.Desc.Methods[i].Handler, chainUnary(c.Unary))
			mux.Handle(m.name, m)
		}
		for i := range s.Desc.Streams {
			desc := &s.Desc.Streams[i]
			m := newMethod(&c, d, s.Desc.ServiceName, desc.StreamName, streamType(desc))
			m.rpc = m.stream(s.Impl, desc, chainStream(c.Stream))
			mux.Handle(m.name, m)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		d.shut(w, r, "unknown", http.StatusNotFound, notServed(
			"nothing is served at this path; calls go to /package.Service/Method, such as /purser.v1.AuthorityService/CheckAndReserve", nil))
	})
	cors, err := crossOrigin(c.AllowOrigins)
	if err != nil {
		return nil, fmt.Errorf("new web handler: %w", err)
	}
	return guarded(c.Logger, cors(mux)), nil
}

// guarded is outside everything else. net/http recovers from panics, and a broken invariant of
// the books must not be recovered from: it panics again where nobody does (docs/decisions).
func guarded(logger *slog.Logger, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if violation, ok := p.(escrow.Violation); ok {
				go panic(violation)
				select {} // the process ends
			}
			if p != http.ErrAbortHandler {
				logger.ErrorContext(r.Context(), "panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			panic(http.ErrAbortHandler)
		}()
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store") // answers hold tokens, and secrets of new keys
		next.ServeHTTP(w, r)
	})
}

// chainUnary makes one interceptor of several, the first outermost.
func chainUnary(all []grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		for i := len(all) - 1; i >= 0; i-- {
			next, outer := handler, all[i]
			handler = func(ctx context.Context, req any) (any, error) { return outer(ctx, req, info, next) }
		}
		return handler(ctx, req)
	}
}

// chainStream is chainUnary for streams.
func chainStream(all []grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		for i := len(all) - 1; i >= 0; i-- {
			next, outer := handler, all[i]
			handler = func(srv any, ss grpc.ServerStream) error { return outer(srv, ss, info, next) }
		}
		return handler(srv, ss)
	}
}
