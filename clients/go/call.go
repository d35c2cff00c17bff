package purser

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// triesPerNode is how often a node is tried before the next one: a reservation repeated where
// it was asked for finds its idempotency key there (race 30).
const triesPerNode = 2

// call tries do on the nodes in order until it is answered, the tries are used up, or ctx
// ends. It returns the node that answered. After an error the outcome is unknown if that of
// any try was and no later one settled it.
func (c *Client) call(ctx context.Context, op string, order []int, do func(context.Context, purserv1.AuthorityServiceClient) error) (int, *Error) {
	return c.callUpTo(ctx, c.cfg.Attempts, op, order, do)
}

// callUpTo is call with a number of tries of its own.
func (c *Client) callUpTo(ctx context.Context, attempts int, op string, order []int, do func(context.Context, purserv1.AuthorityServiceClient) error) (int, *Error) {
	var unknown bool
	var last *Error
	order = c.awake(order)
	at, tries := 0, 0
	for n := range attempts {
		if n > 0 && !pause(ctx, c.backoff(n, last.retryAfter)) {
			break
		}
		i := order[at%len(order)]
		pulse := c.nodes[i].pulse
		seen := pulse.answers.Load()
		err := c.try(ctx, i, do)
		if err == nil {
			pulse.answered()
			return i, nil
		}
		last = classify(op, err)
		switch {
		case last.answered():
			pulse.answered()
		// Only a reservation is sure to be answered soon by a node that is well: a commit waits for
		// the store. How long a caller's own deadline let it wait is not known.
		case op == "reserve" && last.Code == codes.DeadlineExceeded && ctx.Err() == nil:
			pulse.missed(seen, c.rest())
		}
		if !last.retryable {
			// An answer about the state holds for earlier tries too; one about caller or call does not.
			last.Definite = last.Definite && (!unknown || last.ofState())
			return i, last
		}
		unknown = unknown || !last.Definite
		if tries++; tries == triesPerNode || last.elsewhere || pulse.state.Load() != awake {
			at, tries = at+1, 0
		}
	}
	last.Definite = !unknown
	return 0, last
}

func (c *Client) try(ctx context.Context, i int, do func(context.Context, purserv1.AuthorityServiceClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.AttemptTimeout)
	defer cancel()
	return do(ctx, c.nodes[i].api)
}

// backoff is the pause before try n (1, 2, ...): doubled each time, bounded, the upper half of
// it at random so that clients which failed together do not come back together. A server's
// advice lengthens it, within reason.
func (c *Client) backoff(n int, advice time.Duration) time.Duration {
	d := c.cfg.BackoffMin << min(n-1, 16)
	if d <= 0 || d > c.cfg.BackoffMax {
		d = c.cfg.BackoffMax
	}
	d = max(d, min(advice, c.cfg.BackoffMax))
	return d/2 + rand.N(d/2+1)
}

// pause waits, and reports false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
