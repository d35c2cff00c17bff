//go:build unix

package server_test

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

const (
	// idleCount is how many connections are held to a port.
	idleCount = 10_000
	// idleMost is what each may cost the server: all of them 640 MiB. What they do cost is in
	// docs/performance.md.
	idleMost = 64 << 10
	// idleEnv makes a process of this test hold connections: "address kind".
	idleEnv = "PURSER_TEST_IDLE"
)

// idleKinds are what makes a connection one that the server keeps, and how the answer begins:
// an HTTP/2 client sends the preface and settings without any.
var idleKinds = map[string]struct{ begin, answer string }{
	"HTTP/1.1": {"GET /livez HTTP/1.1\r\nHost: purser\r\n\r\n", "HTTP/1.1 200 OK\r\n"},
	"HTTP/2":   {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "\x00\x00"},
}

// TestIdleConnections holds 10 000 idle connections to each port, from another process. Calls
// go on, on connections that are made then.
func TestIdleConnections(t *testing.T) {
	raiseFiles(t)
	if settings := os.Getenv(idleEnv); settings != "" {
		holdIdle(t, settings)
		return
	}
	s := newSite(t)
	s.chat(100)
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
	quiet := runtime.NumGoroutine() + 100
	for _, port := range []struct{ name, address, kind string }{
		{"HTTP port, HTTP/1.1", s.address, "HTTP/1.1"},
		{"HTTP port, HTTP/2", s.address, "HTTP/2"},
		{"gRPC port", l.Addr().String(), "HTTP/2"},
	} {
		t.Run(port.name, func(t *testing.T) {
			before := inUse(quiet)
			defer idle(t, port.address+" "+port.kind)()
			each := (inUse(math.MaxInt) - before) / idleCount
			t.Logf("%d idle connections: %d bytes each", idleCount, each)
			if each > idleMost {
				t.Errorf("an idle connection takes %d bytes, want at most %d", each, idleMost)
			}
			if a := s.post(reservePath, "application/json", strings.NewReader(reserveJSON), "Connection", "close"); a.StatusCode != 200 {
				t.Errorf("HTTP beside them: %s %s", a.Status, a.body)
			}
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := purserv1.NewAuthorityServiceClient(conn).CheckAndReserve(s.with(s.secret), ask(1, 1)); err != nil {
				t.Errorf("gRPC beside them: %v", err)
			}
		})
	}
}

// idle has another process hold connections, and returns when it does. What it returns ends
// them.
func idle(t *testing.T, settings string) (end func()) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^TestIdleConnections$")
	child.Env = append(os.Environ(), idleEnv+"="+settings)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "held" {
		t.Fatalf("the connections are not held: %q", lines.Text())
	}
	return func() {
		in.Close()
		for lines.Scan() {
		}
		if err := child.Wait(); err != nil {
			t.Errorf("who held the connections: %v", err)
		}
	}
}

// holdIdle holds connections until its input ends.
func holdIdle(t *testing.T, settings string) {
	address, kind, _ := strings.Cut(settings, " ")
	k := idleKinds[kind]
	answer := make([]byte, len(k.answer))
	for i := range idleCount {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, k.begin); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != k.answer {
			t.Fatalf("connection %d: %q, %v", i, answer, err)
		}
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// inUse is the memory in use, heap and stacks, when no more than quiet goroutines run.
func inUse(quiet int) int64 {
	runtime.GC()
	for runtime.NumGoroutine() > quiet {
		runtime.GC() // those of connections that have ended take a moment
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// raiseFiles lets the process have as many files open as the test needs, until it ends.
func raiseFiles(t *testing.T) {
	t.Helper()
	const need = idleCount + 1000
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if was.Cur >= need {
		return
	}
	want := syscall.Rlimit{Cur: need, Max: max(was.Max, need)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &want); err != nil {
		t.Fatalf("the test needs %d open files and may have %d: raise it with ulimit -Hn: %v", need, was.Max, err)
	}
	t.Cleanup(func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
}
