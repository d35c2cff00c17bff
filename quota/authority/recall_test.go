package authority_test

import (
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
)

// TestRecall: what one node has free, and another lacks, comes back by the time for which the
// denial says to wait.
func TestRecall(t *testing.T) {
	bubble(t, func(t *testing.T, s quota.Store) {
		a, _ := member(t, s)
		a.catalogue()
		a.account("acme", "", 40e6)
		b, _ := member(t, s)
		time.Sleep(authority.DefaultConfig().Poll) // they know of each other
		b.granted(chat("acme", 1000, 1000))        // holds 4 credits
		time.Sleep(step)                           // and draws all there is, ahead of need
		d := a.reserve(chat("acme", 4000, 4000))
		if d.Allowed || !d.Denial.Transient || d.Denial.RetryIn <= 0 || d.Denial.RetryIn > time.Second {
			t.Fatalf("13 credits of 36 that another node has free: %+v, want a TRANSIENT denial, for a second at most", d)
		}
		time.Sleep(d.Denial.RetryIn)
		if d = a.granted(chat("acme", 4000, 4000)); d.Feature != "chat" {
			t.Errorf("granted was %s", d.Feature)
		}
		a.audited()
	})
}
