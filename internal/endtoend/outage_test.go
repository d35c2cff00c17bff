package endtoend

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testdb"
)

// TestDatabaseGoesAwayAndComesBack: reservations go on from what is drawn until the lease ends,
// settlements wait for the database, and when it is back so is all service.
func TestDatabaseGoesAwayAndComesBack(t *testing.T) {
	t.Parallel()
	server := testdb.NewServer(t)
	store := server.Database(t)
	// A lease that outlasts the stopping of the server by far.
	n := newNode(t, store, "--lease=10s", "--settle-timeout=1s").serve()
	key := n.apply()
	var settled receipts
	c := dial(t, key, func(c *purser.Config) { c.Attempts, c.BackoffMax, c.OnSettled = 1, 50*time.Millisecond, settled.add }, n.address)
	pay(t, c, "acme")

	server.Stop(t)
	h := reserve(t, c, "acme")
	h2 := reserve(t, c, "acme")
	_, err := h.Commit(t.Context(), purser.Used("output_tokens", 50))
	if failure, ok := errors.AsType[*purser.Error](err); !ok || failure.Definite || !failure.Kept {
		t.Errorf("commit without a database: %v, want an unknown outcome, kept", err)
	}
	eventually(t, "stop issuing when the lease is over", func() (bool, any) {
		abandoned, err := c.Gate(t.Context(), hundred("acme"))
		if err == nil {
			return false, abandoned.ExpireTime()
		}
		failure, ok := errors.AsType[*purser.Error](err)
		if !ok || failure.Code != codes.Unavailable || failure.Reason != "STORE_UNAVAILABLE" || !failure.Definite {
			t.Fatalf("reserve without a database: %v, want STORE_UNAVAILABLE, definite", err)
		}
		return true, err
	})

	server.Start(t)
	eventually(t, "serve again", func() (bool, any) {
		again, err := c.Gate(t.Context(), hundred("acme"))
		if err != nil {
			return false, err
		}
		return again.Close() == nil, again
	})
	// Its time is long over, its lane may be closed: it is charged all the same.
	receipt, err := h2.Commit(t.Context(), purser.Used("input_tokens", 10))
	if err != nil || receipt.Charged != 10_000 {
		t.Errorf("commit of a hold that expired in the outage: %+v, %v, want 10000 micros charged", receipt, err)
	}
	closeClient(t, c)
	if got := settled.all(); len(got) != 1 || got[0].Err != nil || got[0].Receipt.Charged != 150_000 {
		t.Errorf("the commit that was kept came to %+v, want 150000 micros", got)
	}
	awaitBuried(t, store, 1)
	awaitBalance(t, n, map[string]int64{"acme": 560_000})
	n.terminate()
	audited(t, store, true)
}

// TestDatabaseCrashesUnderLoad ends the database without any shutdown, twice.
func TestDatabaseCrashesUnderLoad(t *testing.T) {
	t.Parallel()
	server := testdb.NewServer(t)
	// The test's servers acknowledge before they write, which a real one must not.
	store := server.Database(t) + "&synchronous_commit=on"
	n := newNode(t, store).serve()
	g := startGateway(t, settings{Addresses: []string{n.address}, Key: n.apply(), Workers: workers, Seed: uint64(time.Now().UnixNano())})
	for range 2 {
		g.awaitMore(200)
		server.Crash(t)
		server.Start(t)
	}
	g.awaitMore(200)
	g.finish()
	awaitBuried(t, store, 1)
	awaitBalance(t, n, account(t, g))
	n.terminate()
	audited(t, store, true, files(g)...)
}

// closeClient waits for everything the client keeps.
func closeClient(t *testing.T, c *purser.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}
