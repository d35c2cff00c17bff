package purser_test

import (
	"fmt"
	"testing"
	"time"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/internal/testnode"
)

// await polls until done says yes.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// TestStreamsOverARestart: the one node there is ends as if it had crashed, with generations
// under way, and comes back. It knows nothing of their reservations any more, so the client
// reserves the rest and commits what was used (R35), at the same address: for those that need
// more at once, for the others with their next heartbeat.
func TestStreamsOverARestart(t *testing.T) {
	for _, session := range []bool{false, true} {
		t.Run(fmt.Sprintf("session %v", session), func(t *testing.T) {
			t.Parallel()
			n := startNode(t)
			c := dialNode(t, n, func(cfg *purser.Config) { cfg.Session = session })
			var handles []*purser.Handle
			var first []string
			for range 8 {
				h, err := c.Gate(t.Context(), purser.Request{Account: testnode.Rich, Features: []string{testnode.Feature}, TTL: 3 * time.Second,
					Estimates: []purser.Estimate{purser.Need("input_tokens", 10), purser.Want("output_tokens", 100, 1).UpTo(1000)}})
				if err != nil {
					t.Fatal(err)
				}
				h.Add("output_tokens", 80)
				await(t, "more is granted", func() bool { return h.Granted("output_tokens") == 200 })
				handles, first = append(handles, h), append(first, h.Reservation().GetReservationId())
			}
			if err := n.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			var total int64
			for i, h := range handles {
				want := int64(200)
				if i%2 == 0 {
					h.Add("output_tokens", 80)
					want = 300
				}
				await(t, "a stream goes on", func() bool {
					return h.Reservation().GetReservationId() != first[i] && h.Granted("output_tokens") == want
				})
			}
			for _, h := range handles {
				h.Report(purser.Used("output_tokens", 170))
				receipt, err := h.Commit(t.Context(), purser.Used("input_tokens", 10))
				if err != nil || receipt.Charged != 10*1000+170*3000 || receipt.Kept != 0 {
					t.Errorf("commit: %+v, %v; want 520000 micros for both reservations, and nothing kept", receipt, err)
				}
				total += receipt.Charged
			}
			wantSpent(t, n, testnode.Rich, total)
		})
	}
}

// TestUsageOutlivesTheClient: a client that goes away without a word, as if it had crashed, has
// told what was used, and that is charged when its reservation expires.
func TestUsageOutlivesTheClient(t *testing.T) {
	t.Parallel() // it waits for a grace
	n := startNode(t)
	c := dialNode(t, n, func(cfg *purser.Config) { cfg.Interim = true })
	h, err := c.Gate(t.Context(), purser.Request{Account: testnode.Rich, Features: []string{testnode.Feature}, TTL: time.Second,
		Estimates: []purser.Estimate{purser.Want("output_tokens", 100, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	h.Add("output_tokens", 70)
	if err := h.Interim(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(t.Context()); err != nil { // handles that are open expire
		t.Fatal(err)
	}
	await(t, "what it had used is charged", func() bool {
		got, err := n.Spent(t.Context(), testnode.Rich)
		return err == nil && got == 210_000
	})
}
