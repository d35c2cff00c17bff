package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"golang.org/x/sync/errgroup"
)

// serveOps serves what is for operators and not for callers: metrics, and profiles if asked for.
func (n *node) serveOps(group *errgroup.Group) {
	serve := func(part string, l net.Listener, h http.Handler) {
		if l == nil {
			return
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 3 * time.Minute, MaxHeaderBytes: 16 << 10}
		n.ops = append(n.ops, s)
		group.Go(func() error { return ended(part, s.Serve(l)) })
	}
	serve("metrics", n.metrics, n.server.MetricsHandler())
	serve("profiles", n.pprof, profiles())
}

// profiles is the handler of /debug/pprof/. It asks for no key, so it stays on loopback.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// checkLoopback refuses to show profiles to other machines: they hold what is in memory.
func checkLoopback(l net.Listener) error {
	if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("--pprof-listen: %s can be reached from outside, and profiles show what is in memory: listen on loopback, such as 127.0.0.1:6060", l.Addr())
}
