package authority

import (
	"context"
	"sync"
	"time"

	"github.com/purser-io/purser/quota"
)

// denied completes a denial: a TRANSIENT one always says when to try again (R51).
func (a *Authority) denied(ctx context.Context, r *quota.Request, c *call, d *quota.Decision) {
	if d.Denial.Reason == 0 || c.req.Candidates[0].Feature == r.Candidates[0] {
		d.Denial = c.res.Denial // the first choice's reason stands
	}
	d.Warnings = append(d.Warnings, c.res.Warnings...)
	// A limit knows by itself.
	if d.Denial.Transient && d.Denial.RetryIn == 0 && (c.attempt == nil || !c.attempt.mustAsk(a, c.req.Payer)) {
		d.Denial.RetryIn = a.comesBack(ctx, c.req.Payer)
	}
}

// transientRetry is when to try again if nothing better is known: when live requests have
// settled, and others have heard of a wish and given back, each at a poll.
func (a *Authority) transientRetry() time.Duration { return max(time.Second, 2*a.cfg.Poll) }

// comesBack says when a payer's credit that is out may be back. While something of dead
// incarnations is out, the store knows (R29); it is asked only then, and once per poll.
func (a *Authority) comesBack(ctx context.Context, payer string) time.Duration {
	now := a.now()
	if a.mourning.Load() <= now {
		return a.transientRetry()
	}
	at := a.returns.get(payer, now)
	if at == 0 {
		var err error
		if at, err = a.deps.Store.NextClose(ctx, payer); err != nil {
			return a.transientRetry()
		}
		a.returns.put(payer, max(at, 1), now+int64(a.cfg.Poll))
	}
	if at <= now {
		return a.transientRetry()
	}
	return time.Duration(at - now)
}

// comings remembers for a short while when payers' credits come back.
type comings struct {
	mu    sync.Mutex
	known map[string]coming
}

type coming struct{ at, until int64 }

func (c *comings) get(payer string, now int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.known[payer]; ok && now < k.until {
		return k.at
	}
	return 0
}

func (c *comings) put(payer string, at, until int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= comingsMax {
		c.known = make(map[string]coming)
	}
	c.known[payer] = coming{at, until}
}

const comingsMax = 10_000
