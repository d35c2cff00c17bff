package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/server/auditor"
	"github.com/purser-io/purser/server/event"
	"github.com/purser-io/purser/server/telemetry"
)

// nodeConfig is what a node of the authority is made of.
type nodeConfig struct {
	authority     authority.Config
	listen        string
	httpListen    string // "" = no HTTP
	metricsListen string // "" = no metrics
	pprofListen   string // "" = no profiles
	origins       []string
	tls           *tls.Config
	insecure      bool
	connections   int                  // to each port; 0 = the server's default
	audit         *auditor.Auditor     // nil = none beside the work; its Metrics are the node's
	telemetry     *telemetry.Telemetry // nil = nothing is exported
}

// node is a running authority with its listeners: the one place where the parts are put
// together.
type node struct {
	authority *authority.Authority
	server    *server.Server
	listener  net.Listener
	web       net.Listener     // nil = none
	metrics   net.Listener     // nil = none
	pprof     net.Listener     // nil = none
	audit     *auditor.Auditor // nil = none
	ops       []*http.Server
	log       *slog.Logger
	drainFor  time.Duration
}

// newNode takes the ports, so that one that is taken is known at once, and then joins the
// store. It serves nothing before run.
func newNode(ctx context.Context, c nodeConfig, store openedStore, k clock, log *slog.Logger) (_ *node, err error) {
	n := &node{log: log, drainFor: c.authority.DrainFor, audit: c.audit}
	defer func() {
		if err != nil {
			n.closeListeners()
		}
	}()
	if err := n.takePorts(&c); err != nil {
		return nil, err
	}
	if c.authority.Address == "" {
		c.authority.Address = n.listener.Addr().String()
	}
	metrics, feed := server.NewMetrics(), event.NewFeed(k.Now)
	if n.audit != nil {
		n.audit.Metrics = metrics
	}
	n.authority, err = authority.New(c.authority, authority.Deps{Store: store, Clock: k, Random: rand.Reader, Logger: log,
		Metrics: metrics, Watcher: feed, Tracer: c.telemetry.Tracer()})
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	n.server, err = server.New(server.Deps{Authority: n.authority, Store: store, Logger: log, Metrics: metrics, Feed: feed, Tracer: c.telemetry.TracerProvider(),
		TLS: c.tls, Insecure: c.insecure, Origins: c.origins, Now: k.Now, Limits: server.Limits{Connections: c.connections}})
	if err != nil {
		return nil, err
	}
	if err := c.telemetry.ExportMetrics(ctx, metrics.Registry()); err != nil {
		return nil, err
	}
	return n, n.authority.Start(ctx)
}

// takePorts listens on all that are asked for.
func (n *node) takePorts(c *nodeConfig) (err error) {
	for _, p := range []struct {
		to            *net.Listener
		address, flag string
		check         func(net.Listener) error
	}{
		{&n.listener, c.listen, "--listen", c.checkPlainText},
		{&n.web, c.httpListen, "--http-listen", c.checkPlainText},
		{&n.metrics, c.metricsListen, "--metrics-listen", nil},
		{&n.pprof, c.pprofListen, "--pprof-listen", checkLoopback},
	} {
		if p.address == "" && p.to != &n.listener {
			continue
		}
		if *p.to, err = listen(p.address, p.flag); err != nil {
			return err
		}
		if p.check != nil {
			if err := p.check(*p.to); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkPlainText says before anything is started what the server would refuse later.
func (c *nodeConfig) checkPlainText(l net.Listener) error {
	if tcp, ok := l.Addr().(*net.TCPAddr); c.tls != nil || c.insecure || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%s can be reached from outside, and API keys must not be sent in plain text: set TLS with --tls-cert and --tls-key, listen on loopback, or say --insecure", l.Addr())
}

func listen(address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the port of %s is taken by another process: stop it, or choose another with %s", address, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (%s): %w", address, flag, err)
	}
	return l, nil
}

func (n *node) closeListeners() {
	for _, l := range []net.Listener{n.listener, n.web, n.metrics, n.pprof} {
		if l != nil {
			_ = l.Close() // nothing was served on it
		}
	}
}

func (n *node) address() string { return n.listener.Addr().String() }

// webAddress is where HTTP is served, with the scheme; "" = nowhere.
func (n *node) webAddress(encrypted bool) string {
	switch {
	case n.web == nil:
		return ""
	case encrypted:
		return "https://" + n.web.Addr().String()
	}
	return "http://" + n.web.Addr().String()
}

// run serves until ctx ends, then drains (R49): no new reservations, settlements until live
// ones have ended, amounts go home, connections end, and last the engine. It returns early if
// a part fails.
func (n *node) run(ctx context.Context) error {
	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEngine()
	group, failed := errgroup.WithContext(ctx)
	group.Go(func() error { return ended("engine", n.authority.Run(engine)) })
	group.Go(func() error { return ended("server", n.server.Serve(n.listener)) })
	if n.web != nil {
		group.Go(func() error { return ended("HTTP server", n.server.ServeWeb(n.web)) })
	}
	if n.audit != nil {
		group.Go(func() error { return n.audit.Run(failed) })
	}
	n.serveOps(group)
	group.Go(func() error {
		<-failed.Done() // ctx has ended, or a part has failed
		defer stopEngine()
		return n.drain(context.WithoutCancel(ctx))
	})
	return group.Wait()
}

// settleMargin is what a drain may take beyond waiting for live reservations.
const settleMargin = 15 * time.Second

func (n *node) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.drainFor+settleMargin)
	defer cancel()
	n.log.Info("draining: no new reservations, waiting for those that are live")
	err := n.authority.Drain(ctx)
	if err != nil {
		err = fmt.Errorf("drain: %w: the store keeps every settlement; what was set aside here comes back by itself", err)
	}
	n.server.GracefulStop(ctx)
	for _, s := range n.ops { // last: they show how the drain goes
		err = errors.Join(err, s.Shutdown(ctx))
	}
	n.log.Info("drained")
	return err
}

// ended drops the errors by which parts say that they were told to stop.
func ended(part string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// local is a node in this process, on loopback, with a key to it.
type local struct {
	*node
	store  openedStore
	empty  bool   // the store was
	secret string // of an admin key, revoked at the end
	keyID  string
	k      clock
	stop   context.CancelFunc
	done   chan error
}

// startLocal opens a store and serves it on loopback; c says where, and needs no more.
func startLocal(e *env, u storeURL, c nodeConfig) (_ *local, err error) {
	l := &local{k: e.clock, done: make(chan error, 1)}
	if l.store, l.empty, err = u.open(e.ctx, e.log, e.clock, 0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.store.Close())
		}
	}()
	c.authority = authority.DefaultConfig()
	c.authority.Embedded, c.authority.Lanes = l.store.Embedded(), defaultLanes(l.store.Embedded())
	key, secret, err := createKey(e.ctx, l.store, authz.Key{Role: authz.RoleAdmin, Principal: storePrincipal}, e.clock.unixNano())
	if err != nil {
		return nil, err
	}
	l.keyID, l.secret = key.ID, secret
	if l.node, err = newNode(e.ctx, c, l.store, e.clock, e.log); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(e.ctx)) // it ends by end, whatever happens meanwhile
	l.stop = stop
	go func() { l.done <- l.node.run(ctx) }()
	return l, nil
}

// dial connects to the node with its admin key.
func (l *local) dial(ctx context.Context) (*purser.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return purser.Dial(ctx, purser.Config{Addresses: []string{l.address()}, Key: l.secret})
}

// end drains the node; the store stays open. It does nothing the second time.
func (l *local) end() error {
	if l.stop == nil {
		return nil
	}
	l.stop()
	l.stop = nil
	return <-l.done
}

// close ends the node, revokes its keys and closes the store.
func (l *local) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	return errors.Join(l.end(), l.revoke(ctx, l.keyID), l.store.Close())
}

// withLocalServer runs fn with a connection to a server of its own on the store.
func withLocalServer(e *env, u storeURL, fn func(conn grpc.ClientConnInterface) error) error {
	l, err := startLocal(e, u, nodeConfig{listen: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	client, err := l.dial(e.ctx)
	if err == nil {
		err = errors.Join(fn(client.Conn("")), client.Close(e.ctx))
	}
	return errors.Join(err, l.close(e.ctx))
}
