package purser_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testnode"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// startNode runs the real server; what it leaves is audited at the end.
func startNode(t *testing.T) *testnode.Node {
	t.Helper()
	n, err := testnode.Start(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		report, err := n.Audit(context.Background())
		if err != nil {
			t.Errorf("audit: %v", err)
			return
		}
		for _, f := range report.Findings {
			t.Errorf("audit: %v", f)
		}
	})
	return n
}

func dialNode(t *testing.T, n *testnode.Node, change func(*purser.Config)) *purser.Client {
	t.Helper()
	config := purser.Config{Addresses: []string{n.Address}, Key: n.Key, BackoffMin: time.Millisecond, BackoffMax: 20 * time.Millisecond}
	if change != nil {
		change(&config)
	}
	c, err := purser.Dial(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func wantSpent(t *testing.T, n *testnode.Node, account string, want int64) {
	t.Helper()
	if got, err := n.Spent(t.Context(), account); err != nil || got != want {
		t.Errorf("%s was charged %d micros, %v; want %d", account, got, err, want)
	}
}

// breaker breaks connections: the n-th write or read on them, counted over all of them, fails
// once, before or after it took place.
type breaker struct {
	mu    sync.Mutex
	left  int // until it breaks; below 0 = it has
	after bool
	write bool
}

func (b *breaker) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &brokenConn{Conn: conn, breaker: b}, nil
}

// now reports whether this is the one.
func (b *breaker) now(write bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if write != b.write {
		return false
	}
	b.left--
	return b.left == 0
}

func (b *breaker) broke() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.left <= 0
}

type brokenConn struct {
	net.Conn
	breaker *breaker
}

var errBroken = errors.New("the test broke the connection")

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.breaker.now(true) {
		if c.breaker.after {
			_, _ = c.Conn.Write(p)
		}
		c.Conn.Close()
		return 0, errBroken
	}
	return c.Conn.Write(p)
}

func (c *brokenConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.breaker.now(false) {
		c.Conn.Close()
		return 0, errBroken // what had come is lost
	}
	return n, err
}

// TestBrokenAtEveryPoint breaks the connection at the first write, the second, ... until none
// breaks any more, then at each read; every reservation is settled, each is charged once, and
// the books balance. Sessions and single calls alike.
func TestBrokenAtEveryPoint(t *testing.T) {
	for _, session := range []bool{false, true} {
		for _, at := range []struct{ write, after bool }{{true, false}, {true, true}, {false, false}} {
			t.Run(fmt.Sprintf("session %v, write %v, after %v", session, at.write, at.after), func(t *testing.T) {
				n := startNode(t)
				var total int64
				points := 0
				for point := 1; ; point++ {
					b := &breaker{left: point, write: at.write, after: at.after}
					settled := make(chan purser.Settled, 100)
					c := dialNode(t, n, func(cfg *purser.Config) {
						cfg.Session, cfg.OnSettled = session, func(s purser.Settled) { settled <- s }
						cfg.DialOptions = []grpc.DialOption{grpc.WithContextDialer(b.dial)}
					})
					sum, kept := work(t, c)
					if err := c.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					for range kept {
						s := <-settled
						if s.Err != nil {
							t.Fatalf("point %d: a settlement that was kept: %v", point, s.Err)
						}
						sum += s.Receipt.Charged
					}
					if sum != 3*30_000 {
						t.Fatalf("point %d: told of %d micros charged, want 90000", point, sum)
					}
					total += sum
					if !b.broke() {
						break
					}
					points++
				}
				if points < 5 {
					t.Errorf("broke at %d points only", points)
				}
				t.Logf("broken at %d points", points)
				wantSpent(t, n, testnode.Rich, total)
			})
		}
	}
}

// work makes three reservations at the same time and commits 10 output tokens on each.
func work(t *testing.T, c *purser.Client) (charged int64, kept int) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			h, err := c.Gate(t.Context(), purser.Request{Account: testnode.Rich, Features: []string{testnode.Feature},
				Estimates: []purser.Estimate{purser.Want("output_tokens", 100, 1)}})
			if err != nil {
				t.Errorf("reserve: %v", err)
				return
			}
			receipt, err := h.Commit(t.Context(), purser.Used("output_tokens", 10))
			mu.Lock()
			defer mu.Unlock()
			charged += receipt.Charged
			if failure, ok := errors.AsType[*purser.Error](err); ok && failure.Kept {
				kept++
			} else if err != nil {
				t.Errorf("commit: %v", err)
			}
		})
	}
	workers.Wait()
	return charged, kept
}

// TestWrongKey: a session that is not let in says so at once.
func TestWrongKey(t *testing.T) {
	n := startNode(t)
	c := dialNode(t, n, func(cfg *purser.Config) { cfg.Session, cfg.Key = true, "pk_0123456789abcdef_wrong" })
	_, err := c.Gate(t.Context(), purser.Request{Account: testnode.Rich, Features: []string{testnode.Feature}})
	failure, ok := errors.AsType[*purser.Error](err)
	if !ok || failure.Code != codes.Unauthenticated || !failure.Definite {
		t.Errorf("error = %v, want UNAUTHENTICATED, definite", err)
	}
}

// TestSessionSendsHeadersFirst: the client takes a stream that ends without them for one that was
// not accepted, and what it had sent on it for not applied.
func TestSessionSendsHeadersFirst(t *testing.T) {
	n := startNode(t)
	conn, err := grpc.NewClient(n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := purserv1.NewAuthorityServiceClient(conn).Session(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+n.Key))
	if err != nil {
		t.Fatal(err)
	}
	if header, err := stream.Header(); err != nil || header == nil { // nothing was sent yet
		t.Errorf("headers %v, %v", header, err)
	}
}
