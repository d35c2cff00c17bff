package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	engine "github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server/account"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/authority"
	"github.com/purser-io/purser/server/catalog"
	"github.com/purser-io/purser/server/event"
	"github.com/purser-io/purser/server/grpcerr"
	"github.com/purser-io/purser/server/interceptor"
	"github.com/purser-io/purser/server/key"
	"github.com/purser-io/purser/server/session"
	"github.com/purser-io/purser/server/usage"
	"github.com/purser-io/purser/server/web"
)

// Authority is the engine as the server needs it; *authority.Authority of quota/authority is one.
type Authority interface {
	authority.Authority
	admin.Refresher
	account.Waiter
	session.Node
	KeyLookup() authz.KeyStore
	Ready() error
	Status() engine.Status
}

// Store is what the admin services need of storage.
type Store interface {
	quota.CatalogueStore
	quota.AccountStore
	quota.KeyAdminStore
	quota.UsageStore
}

// Deps are what a server works with. Authority, Store, Logger and Now are required.
type Deps struct {
	Authority Authority
	Store     Store
	Logger    *slog.Logger
	Now       func() time.Time     // wall clock: keys expire, grants begin by it
	Random    io.Reader            // cryptographic; nil = the system's
	Metrics   *Metrics             // nil = some of its own
	Feed      *event.Feed          // what the authority shows to those who follow it; nil = nothing ever
	Tracer    trace.TracerProvider // nil = no traces
	TLS       *tls.Config          // nil = plain text: on loopback only, unless Insecure
	Insecure  bool                 // plain text anywhere; calls need a key all the same
	Origins   []string             // web origins whose pages may call over HTTP; "*" = all; none = no page of another origin
	Limits    Limits

	failures *interceptor.Failures
}

// Server serves the API over gRPC, and over HTTP if asked to.
type Server struct {
	deps     Deps
	grpc     *grpc.Server
	http     *http.Server
	options  Options
	sessions *session.Server
	health   *health.Server
	metrics  *Metrics
}

// Options are how gRPC is set up, for who serves something else in the same way beside it.
type Options struct {
	Transport []grpc.ServerOption // bounds of the transport, and TLS
	Chain     []grpc.ServerOption // interceptors, tracing and metrics
}

// All lists all of them.
func (o *Options) All() []grpc.ServerOption { return slices.Concat(o.Transport, o.Chain) }

// wallClock is Deps.Now as the clock that others ask for.
type wallClock func() time.Time

// Now tells the time.
func (c wallClock) Now() time.Time { return c() }

// New builds a server; it listens to nobody yet. End it with GracefulStop, whether it served or
// not. The error names everything that is missing.
func New(d Deps) (*Server, error) {
	if err := d.complete(); err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	options, chain, err := d.options()
	if err != nil {
		return nil, fmt.Errorf("new server: %w", err)
	}
	if err := d.Metrics.registry.Register(newStatusCollector(d.Authority.Status)); err != nil {
		return nil, fmt.Errorf("new server: register metrics: %w", err)
	}
	s := &Server{deps: d, grpc: grpc.NewServer(options.All()...), options: options, health: health.NewServer(), metrics: d.Metrics}
	if s.http, err = s.newHTTP(s.register(), chain); err != nil {
		s.grpc.Stop()
		return nil, fmt.Errorf("new server: %w", err)
	}
	return s, nil
}

// complete fills in what may be left out.
func (d *Deps) complete() error {
	var errs []error
	for _, need := range []struct {
		missing bool
		name    string
	}{{d.Authority == nil, "Authority"}, {d.Store == nil, "Store"}, {d.Logger == nil, "Logger"}, {d.Now == nil, "Now"}} {
		if need.missing {
			errs = append(errs, errors.New("Deps."+need.name+" is missing"))
		}
	}
	if d.Random == nil {
		d.Random = rand.Reader
	}
	if d.Metrics == nil {
		d.Metrics = NewMetrics()
	}
	if d.Feed == nil {
		d.Feed = event.NewFeed(d.Now)
	}
	if d.Tracer == nil {
		d.Tracer = noop.NewTracerProvider()
	}
	d.Limits = d.Limits.withDefaults()
	d.Metrics.connectionsLimit.Set(float64(d.Limits.Connections))
	d.failures = &interceptor.Failures{Logger: d.Logger, Errs: grpcerr.New(d.Logger), Count: d.Metrics,
		Sample: &interceptor.Sampler{First: d.Limits.LogFirst, Every: d.Limits.LogEvery}}
	return errors.Join(errs...)
}

// streamWorkers serve calls one after the other, on stacks that have grown once; a goroutine
// of its own for each call spends a tenth of the server's time growing its stack. Calls that
// come while all are busy get one all the same, so nothing waits for a worker.
const streamWorkers = 64

// options are the transport's bounds and the interceptors.
func (d *Deps) options() (o Options, c *chain, err error) {
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(d.Metrics.registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo())
	if err != nil {
		return o, nil, fmt.Errorf("export metrics: %w", err)
	}
	validator, err := protovalidate.New()
	if err != nil {
		return o, nil, fmt.Errorf("build validator: %w", err)
	}
	c = d.chain(validator)
	c.stats = otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(d.Tracer),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))))
	o.Chain = []grpc.ServerOption{
		grpc.StatsHandler(c.stats),
		grpc.ChainUnaryInterceptor(c.unary...),
		grpc.ChainStreamInterceptor(c.stream...),
	}
	l := &d.Limits
	o.Transport = []grpc.ServerOption{
		grpc.MaxRecvMsgSize(l.receiveBytes()),
		grpc.MaxHeaderListSize(l.HeaderBytes),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.ConnectionTimeout(l.HandshakeTime),
		grpc.MaxConcurrentStreams(l.StreamsPerConnection),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: l.KeepaliveMin, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: l.KeepaliveTime, Timeout: 20 * time.Second}),
	}
	if d.TLS != nil {
		config := d.TLS.Clone()
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
		o.Transport = append(o.Transport, grpc.Creds(credentials.NewTLS(config)))
	}
	return o, c, nil
}

// chain is the interceptors of every call, whichever port it comes by.
type chain struct {
	unary  []grpc.UnaryServerInterceptor
	stream []grpc.StreamServerInterceptor
	stats  stats.Handler               // spans and metrics of calls
	errors grpc.UnaryServerInterceptor // of unary: the one that maps, counts and logs errors
}

// chain orders the interceptors from the outside in. Errors are mapped outside everything
// that may refuse; what is logged and who may call depends on who it is.
func (d *Deps) chain(v protovalidate.Validator) *chain {
	l := &d.Limits
	policy := authz.NewPolicy()
	recoverUnary, recoverStream := interceptor.Recover(d.Logger, d.failures.Errs)
	errorsUnary, errorsStream := d.failures.Interceptors()
	whoUnary, whoStream := interceptor.NewAuthenticator(d.Authority.KeyLookup(), wallClock(d.Now)).Interceptors(policy)
	mayUnary, mayStream := interceptor.Authorize(policy)
	validUnary, validStream := interceptor.Validate(v, adminPlane)
	return &chain{
		errors: errorsUnary,
		unary: []grpc.UnaryServerInterceptor{
			recoverUnary, errorsUnary, whoUnary,
			interceptor.Log(d.Logger, adminPlane),
			mayUnary,
			interceptor.Size(l.messageBytes),
			interceptor.Deadline(l.DeadlineShave, l.timeout),
			validUnary,
		},
		stream: []grpc.StreamServerInterceptor{
			recoverStream, errorsStream, whoStream, mayStream, validStream,
		},
	}
}

// register registers the services, and returns all of them.
func (s *Server) register() []web.Service {
	d, r := &s.deps, &registrar{Server: s.grpc}
	desk := &admin.Desk{Clock: wallClock(d.Now), Refresher: d.Authority, Logger: d.Logger}
	gate := &authority.Service{
		Authority: d.Authority, Profiles: d.Store, Logger: d.Logger,
		Denials: &interceptor.Sampler{First: d.Limits.LogFirst, Every: d.Limits.LogEvery},
	}
	gate.Sessions = session.New(d.sessions(authority.Operations{Service: gate}))
	s.sessions = gate.Sessions
	purserv1.RegisterAuthorityServiceServer(r, gate)
	purserv1.RegisterCatalogServiceServer(r, &catalog.Service{Desk: desk, Store: d.Store})
	purserv1.RegisterAccountServiceServer(r, &account.Service{Desk: desk, Store: d.Store, Meters: d.Store, Waiter: d.Authority, Random: d.Random})
	purserv1.RegisterKeyServiceServer(r, &key.Service{Desk: desk, Store: d.Store, Random: d.Random})
	purserv1.RegisterUsageServiceServer(r, &usage.Service{Store: d.Store, Accounts: d.Store})
	purserv1.RegisterEventServiceServer(r, &event.Service{Feed: d.Feed, Keys: d.Authority.KeyLookup(), Now: d.Now})
	grpc_health_v1.RegisterHealthServer(r, s.health)
	reflection.Register(r)
	return r.services
}

// sessions is how streams of operations are served.
func (d *Deps) sessions(operations session.Operations) session.Config {
	l := &d.Limits
	return session.Config{
		Operations: operations, Node: d.Authority, Keys: d.Authority.KeyLookup(), Metrics: d.Metrics, Now: d.Now,
		Status: d.failures.Operation, Panicked: interceptor.Panicked(d.Logger),
		Timeout: min(l.DataTimeout, session.MaxTimeout), OperationBytes: l.DataMessageBytes,
		Workers: l.SessionWorkers, Queue: l.SessionQueue, Watch: healthPoll,
	}
}

// Options tells how the server's gRPC is set up. The interceptors may be shared.
func (s *Server) Options() *Options { return &s.options }

// Services tells what is served, by full name of the service.
func (s *Server) Services() map[string]grpc.ServiceInfo { return s.grpc.GetServiceInfo() }

// MetricsHandler serves /metrics and the health endpoints; the caller chooses where.
func (s *Server) MetricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.metrics.Handler())
	s.healthEndpoints(mux)
	return mux
}

// GracefulStop takes no new calls, lets those that run end, ends sessions when what they have
// received is answered, and makes Serve and ServeWeb return. When ctx ends first, what still
// runs is cut off: its callers repeat it elsewhere. Call it after the authority's Drain.
func (s *Server) GracefulStop(ctx context.Context) {
	s.health.Shutdown()
	s.sessions.Close()
	s.deps.Feed.Close()
	var stopping sync.WaitGroup
	stopping.Go(func() { s.stopHTTP(ctx) })
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
	stopping.Wait()
}
