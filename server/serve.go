package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// healthPoll is how often the health service is told whether the authority is ready.
const healthPoll = 250 * time.Millisecond

// Serve serves on l until GracefulStop, and closes it. It refuses plain text on anything but
// loopback unless Deps.Insecure is set: keys would cross the network for all to read.
func (s *Server) Serve(l net.Listener) error {
	if err := s.checkPlainText(l); err != nil {
		return err
	}
	s.reportHealth()
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		tick := time.NewTicker(healthPoll)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.reportHealth()
			}
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	reporter.Go(func() { s.sessions.Run(ctx) })
	err := s.grpc.Serve(s.bound(l, "grpc"))
	close(stop)
	cancel()
	reporter.Wait()
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil // GracefulStop came first
	}
	return err
}

// checkPlainText closes a listener on which keys would be sent for all to read.
func (s *Server) checkPlainText(l net.Listener) error {
	if s.deps.TLS != nil || s.deps.Insecure || loopback(l.Addr()) {
		return nil
	}
	_ = l.Close()
	return fmt.Errorf("serve on %s: it can be reached from outside, and API keys must not be sent in plain text: "+
		"set a certificate, listen on loopback, or say that it is to be insecure", l.Addr())
}

// reportHealth tells load balancers whether to send reservations here. Settlements are served
// as long as the connection stands.
func (s *Server) reportHealth() {
	state := grpc_health_v1.HealthCheckResponse_NOT_SERVING
	if s.deps.Authority.Ready() == nil {
		state = grpc_health_v1.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	s.health.SetServingStatus("purser.v1.AuthorityService", state)
}

// loopback reports whether only this machine can reach a.
func loopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return a.Network() == "bufconn"
}
