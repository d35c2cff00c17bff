package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/server/web"
)

// answerTime is how long, beyond the longest a call may take, its answer may take to be read.
const answerTime = 30 * time.Second

// registrar keeps what is registered with gRPC, so that HTTP serves the very same.
type registrar struct {
	*grpc.Server
	services []web.Service
}

// RegisterService implements grpc.ServiceRegistrar.
func (r *registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	r.Server.RegisterService(desc, impl)
	r.services = append(r.services, web.Service{Desc: desc, Impl: impl})
}

// newHTTP makes the HTTP server over services, within the interceptors of gRPC.
func (s *Server) newHTTP(services []web.Service, c *chain) (*http.Server, error) {
	l := &s.deps.Limits
	calls, err := web.New(web.Config{
		Services: services, Unary: c.unary, Stream: c.stream, Settles: settles,
		Stats: []stats.Handler{c.stats}, Now: s.deps.Now,
		Refuse: c.refuse,
		MessageBytes: func(method string, stream bool) int {
			if stream { // gRPC has one bound for all of them
				return l.receiveBytes()
			}
			return l.messageBytes(method)
		},
		AllowOrigins: s.deps.Origins,
		Logger:       s.deps.Logger,
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", calls)
	s.healthEndpoints(mux)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)            // over TLS
	protocols.SetUnencryptedHTTP2(true) // on plain text: h2c by prior knowledge, as gRPC clients do
	h := &http.Server{
		Handler:           mux,
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: int(l.StreamsPerConnection), SendPingTimeout: l.KeepaliveTime, PingTimeout: 20 * time.Second},
		ReadHeaderTimeout: l.HeaderTime,
		ReadTimeout:       l.BodyTime,
		WriteTimeout:      l.BodyTime + max(l.AdminTimeout, l.DataTimeout) + answerTime,
		IdleTimeout:       l.IdleTime,
		MaxHeaderBytes:    int(l.HeaderBytes),
		// What clients do to their connections is no event of ours.
		ErrorLog: slog.NewLogLogger(s.deps.Logger.Handler(), slog.LevelDebug),
	}
	if s.deps.TLS != nil {
		h.TLSConfig = s.deps.TLS.Clone()
		h.TLSConfig.MinVersion = max(h.TLSConfig.MinVersion, tls.VersionTLS12)
	}
	return h, nil
}

// refuse maps an error to a status as the interceptors do.
func (c *chain) refuse(ctx context.Context, method string, err error) error {
	_, err = c.errors(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(context.Context, any) (any, error) { return nil, err })
	return err
}

// settles tells the methods whose effect is wanted though the caller has left.
func settles(method string) bool {
	return method == purserv1.AuthorityService_Commit_FullMethodName || method == purserv1.AuthorityService_Release_FullMethodName
}

// ServeWeb serves the same API on l until GracefulStop, and closes it: JSON and protobuf over
// POST, gRPC-Web, Connect streams and gRPC, on HTTP/1.1 and HTTP/2, with the health endpoints
// beside it. It refuses plain text as Serve does. It may be called with Serve only: that
// reports health.
func (s *Server) ServeWeb(l net.Listener) error {
	if err := s.checkPlainText(l); err != nil {
		return err
	}
	serve := s.http.Serve
	if s.deps.TLS != nil {
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	if err := serve(s.bound(l, "http")); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil // GracefulStop came first
}

// stopHTTP lets calls that run end; what still runs when ctx ends is cut off.
func (s *Server) stopHTTP(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // its errors are those of connections that are gone
	}
}
