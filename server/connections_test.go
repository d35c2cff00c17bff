package server_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/purser-io/purser/server"
)

// lines is a log that a test may read meanwhile.
type lines struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.String()
}

// TestConnectionsOfAPort: each port has room for so many; one more is closed as it comes,
// counted and logged, those that are open go on, and who leaves makes room.
func TestConnectionsOfAPort(t *testing.T) {
	log := &lines{}
	s := newSite(t, func(d *server.Deps) {
		d.Limits.Connections = 2
		d.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(l) }()
	defer func() {
		s.server.GracefulStop(t.Context())
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	const http1 = "GET /livez HTTP/1.1\r\nHost: purser\r\n\r\n"
	for _, port := range []struct{ name, address, begin, answer string }{
		{"http", s.address, http1, "HTTP/1.1 200"},
		{"grpc", l.Addr().String(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00"},
	} {
		t.Run(port.name, func(t *testing.T) {
			// speak begins as a client does; the answer is empty if the connection was refused.
			speak := func(c net.Conn) string {
				if _, err := io.WriteString(c, port.begin); err != nil {
					return ""
				}
				answer := make([]byte, len(port.answer))
				n, _ := io.ReadFull(c, answer)
				return string(answer[:n])
			}
			dial := func() net.Conn {
				c, err := net.Dial("tcp", port.address)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			}
			first, second := dial(), dial()
			for i, c := range []net.Conn{first, second} {
				if got := speak(c); got != port.answer {
					t.Fatalf("connection %d: %q", i, got)
				}
			}
			if got := speak(dial()); got != "" {
				t.Fatalf("one too many was answered with %q", got)
			}
			if port.name == "http" { // one that was open before is served as ever
				if got := speak(second); got == "" {
					t.Error("an open connection ended")
				}
			}
			page := get(t, s.server, "/metrics", 200)
			for _, want := range []string{`purser_connections{port="` + port.name + `"} 2`, `purser_connections_refused_total{port="` + port.name + `"} 1`, `purser_connections_limit 2`} {
				if !strings.Contains(page, want+"\n") {
					t.Errorf("%s is not in the metrics", want)
				}
			}
			if !strings.Contains(log.String(), "connection refused") || !strings.Contains(log.String(), "port="+port.name) {
				t.Errorf("log %q", log.String())
			}
			first.Close()
			for speak(dial()) != port.answer {
				// the server sees in its own time that the first has left
			}
		})
	}
}
