package server

import (
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purser-io/purser/server/interceptor"
)

// bounded is a listener with at most so many connections open. One more is closed at once: its
// client sees that and goes to another node, where one left waiting would hang until its
// deadline.
type bounded struct {
	net.Listener
	most    int64
	open    atomic.Int64
	gauge   prometheus.Gauge
	refused prometheus.Counter
	port    string
	sample  interceptor.Sampler
	log     *slog.Logger
}

// bound bounds the connections of a port, "grpc" or "http".
func (s *Server) bound(l net.Listener, port string) net.Listener {
	limits := &s.deps.Limits
	return &bounded{Listener: l, most: int64(limits.Connections), port: port, log: s.deps.Logger,
		gauge: s.metrics.connections.WithLabelValues(port), refused: s.metrics.refused.WithLabelValues(port),
		sample: interceptor.Sampler{First: limits.LogFirst, Every: limits.LogEvery}}
}

// Accept waits for a connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if b.open.Add(1) <= b.most {
			b.gauge.Inc()
			return &counted{Conn: c, in: b}, nil
		}
		b.open.Add(-1)
		b.refused.Inc()
		if seen, ok := b.sample.Take(); ok {
			b.log.Warn("connection refused: as many are open as may be", "port", b.port,
				"open", b.most, "peer", c.RemoteAddr().String(), "refused_so_far", seen)
		}
		_ = c.Close() // nothing was sent on it
	}
}

// counted is a connection that makes room when it is closed.
type counted struct {
	net.Conn
	in     *bounded
	closed sync.Once
}

// Close closes the connection. It may be called more than once.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() {
		c.in.gauge.Dec()
		c.in.open.Add(-1)
	})
	return err
}
