package purser

import (
	"sync"
	"testing"
	"time"
)

// patience is how long tests with a silent node wait for it.
const patience = 500 * time.Millisecond

// startTwo is two nodes and an account at home on the first.
func startTwo(t *testing.T) (*fake, *Client, string) {
	f := &fake{}
	c := f.start(t, 2, func(c *Config) { c.AttemptTimeout = patience })
	return f, c, homeOf(c, 0)
}

func (f *fake) setSilent(silent func(node int, op, account string) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = silent
}

// homeOf is an account whose home is a node.
func homeOf(c *Client, node int) string {
	for name := "a"; ; name += "a" {
		if rank(c.cfg.Addresses, name)[0] == node {
			return name
		}
	}
}

func (f *fake) count(node int, op string) (n int) {
	for _, c := range f.seen() {
		if c.Node == node && c.Op == op {
			n++
		}
	}
	return n
}

// TestSilentNodeIsLeftAlone: the first call finds out that a node does not answer; those behind it go
// elsewhere at once, settlements as well. Later one of many tries it again.
func TestSilentNodeIsLeftAlone(t *testing.T) {
	f, c, account := startTwo(t)
	before := gate(t, c, account)
	f.setSilent(func(node int, _, _ string) bool { return node == 0 })
	gate(t, c, account)
	if n := f.count(0, "reserve"); n != 2 {
		t.Fatalf("the silent node was asked %d times, want once before and once in vain", n)
	}
	for range 20 {
		gate(t, c, account)
	}
	if _, err := before.Commit(t.Context(), Used("input_tokens", 1)); err != nil {
		t.Error(err)
	}
	if n := f.count(0, "reserve") + f.count(0, "commit"); n != 2 {
		t.Errorf("the silent node was asked %d times, want no more than 2", n)
	}

	time.Sleep(silentFor * patience)
	var callers sync.WaitGroup
	for range 20 {
		callers.Go(func() { gate(t, c, account) })
	}
	callers.Wait()
	if n := f.count(0, "reserve"); n != 3 {
		t.Errorf("the silent node was asked %d times by 20 callers at once, want by one", n-2)
	}

	f.setSilent(nil)
	time.Sleep(silentFor * patience)
	for range 20 {
		gate(t, c, account)
	}
	if n := f.count(0, "reserve"); n != 23 {
		t.Errorf("a node that answers again was asked %d times by 20 callers", n-3)
	}
}

// TestSlowIsNotSilent: a node that answers others meanwhile is slow for one account only, and is
// asked on.
func TestSlowIsNotSilent(t *testing.T) {
	f, c, account := startTwo(t)
	f.setSilent(func(node int, _, account string) bool { return node == 0 && account[0] == 'a' })
	other := "b"
	for rank(c.cfg.Addresses, other)[0] != 0 {
		other += "b"
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		gate(t, c, account)
	}()
	for waiting := true; waiting; {
		gate(t, c, other)
		select {
		case <-done:
			waiting = false
		case <-time.After(patience / 10):
		}
	}
	asked := f.count(0, "reserve")
	gate(t, c, other)
	if n := f.count(0, "reserve"); n != asked+1 {
		t.Error("a node that answers others is left alone")
	}
}

// TestSlowCommitIsNotSilence: it waits for the store, which says nothing of the node.
func TestSlowCommitIsNotSilence(t *testing.T) {
	f, c, account := startTwo(t)
	h := gate(t, c, account)
	f.setSilent(func(node int, op, _ string) bool { return node == 0 && op == "commit" })
	if _, err := h.Commit(t.Context(), Used("input_tokens", 1)); err != nil {
		t.Fatal(err)
	}
	gate(t, c, account)
	if n := f.count(0, "reserve"); n != 2 {
		t.Errorf("the home was asked %d times, want 2", n)
	}
}

// TestAllSilent: with nobody left to go to, everybody is asked.
func TestAllSilent(t *testing.T) {
	f, c, account := startTwo(t)
	f.setSilent(func(int, string, string) bool { return true })
	for range 2 {
		if _, err := c.Gate(t.Context(), request(account)); err == nil {
			t.Fatal("answered by nobody")
		}
	}
	f.setSilent(nil)
	gate(t, c, account)
}
