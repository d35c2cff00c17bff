package endtoend

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testdb"
)

// TestFileIsFull bounds a SQLite file: settlements wait when it is full, none is lost, and with a
// higher bound all is well.
func TestFileIsFull(t *testing.T) {
	t.Parallel()
	store := sqliteStore(t)
	n := newNode(t, store, "--sqlite-max-pages=150", "--settle-timeout=200ms").serve()
	filled(t, n, func() {
		n.kill()
		n.serve("--sqlite-max-pages=100000")
	})
	n.terminate()
	audited(t, store, true)
}

// TestTablespaceIsFull does the same to a PostgreSQL, which gets room while the node runs.
func TestTablespaceIsFull(t *testing.T) {
	t.Parallel()
	small := testdb.NewServer(t).Small(t, 10)
	n := newNode(t, small.URL, "--settle-timeout=200ms").serve()
	filled(t, n, func() { small.Resize(64) })
	n.terminate()
	audited(t, small.URL, true)
}

// filled pays until the store is full, makes room, and checks that everything is charged, once.
func filled(t *testing.T, n *node, makeRoom func()) {
	t.Helper()
	var settled receipts
	c := dial(t, n.apply(), func(c *purser.Config) { c.Attempts, c.BackoffMax, c.OnSettled = 1, 50*time.Millisecond, settled.add }, n.address)
	charged := fill(t, c)
	n.balance("acme") // reading goes on
	makeRoom()
	eventually(t, "serve again", func() (bool, any) {
		h, err := c.Gate(t.Context(), hundred("acme"))
		if err != nil {
			return false, err
		}
		defer h.Close()
		receipt, err := h.Commit(t.Context(), purser.Used("output_tokens", 100))
		charged += receipt.Charged
		return err == nil, err
	})
	closeClient(t, c)
	for _, s := range settled.all() {
		if s.Err != nil {
			t.Errorf("a commit that was kept was refused: %v", s.Err)
		}
		charged += s.Receipt.Charged
	}
	awaitBuried(t, n.store, 1)
	awaitBalance(t, n, map[string]int64{"acme": charged})
}

// fill pays until the node says that the store is full, and returns what was acknowledged.
func fill(t *testing.T, c *purser.Client) (charged int64) {
	t.Helper()
	eventually(t, "fill the store", func() (full bool, state any) {
		var payments sync.WaitGroup
		receipts, errs := make([]purser.Receipt, workers), make([]error, workers)
		for i := range workers {
			payments.Go(func() { receipts[i], errs[i] = payAtLength(t, c) })
		}
		payments.Wait()
		for i, err := range errs {
			charged += receipts[i].Charged
			failure, ok := errors.AsType[*purser.Error](err)
			if err != nil && !ok {
				t.Fatalf("the store fills up, and the answer is %v", err)
			}
			full = full || ok && isFull(failure)
		}
		return full, errs
	})
	return charged
}

// payAtLength pays with as many labels as there may be, to need room.
func payAtLength(t *testing.T, c *purser.Client) (purser.Receipt, error) {
	long := strings.Repeat("x", 120)
	h, err := c.Gate(t.Context(), purser.Request{Account: "acme", Features: []string{"chat"}, TTL: 2 * time.Second,
		Estimates: []purser.Estimate{purser.Need("output_tokens", 100)}, Labels: map[string]string{"task": long, "agent": long, "project": long}})
	if err != nil {
		return purser.Receipt{}, err
	}
	return h.Commit(t.Context(), purser.Used("output_tokens", 100))
}

// isFull reports whether an error says what is the matter, and what to do. A reservation is
// surely not made then; a settlement is kept by the node and the client.
func isFull(e *purser.Error) bool {
	switch e.Reason {
	case "STORE_FULL":
		return e.Definite
	case "OUTCOME_UNKNOWN":
		return e.Kept && (strings.Contains(e.Message, "is full: free space") || strings.Contains(e.Message, "out of disk space"))
	}
	return false
}

// receipts keeps what a client tells of settlements that it kept.
type receipts struct {
	mu   sync.Mutex
	list []purser.Settled
}

func (r *receipts) add(s purser.Settled) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, s)
}

func (r *receipts) all() []purser.Settled {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]purser.Settled(nil), r.list...)
}
