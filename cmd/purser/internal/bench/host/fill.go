package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// fillers reserve at the same time, so that draws of some accounts share transactions. They
// never wait for a network, so many more would keep the processors from the one who draws.
const fillers = 8

// fill makes reservations and leaves them. It asks the node directly: over the network the
// first would have expired before the last of a million is made. Each request has strings of
// its own, as one that was decoded has.
func (h *Host) fill(ctx context.Context, o Order) error {
	group, ctx := errgroup.WithContext(ctx)
	for filler := range fillers {
		group.Go(func() error {
			var d quota.Decision
			for i := filler; i < o.Count; i += fillers {
				if err := h.reserve(ctx, o, i, &d); err != nil {
					return fmt.Errorf("reservation %d: %w", i, err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (h *Host) reserve(ctx context.Context, o Order, i int, d *quota.Decision) error {
	r := h.Request
	r.Account = Name(o.Prefix, i%o.Accounts)
	r.Candidates = []string{strings.Clone(r.Candidates[0])}
	if o.Keys {
		r.Key = "filled-by-the-benchmark-" + strconv.Itoa(i)
	}
	if err := h.Node.Reserve(ctx, &authz.Principal{Name: "filler", Role: authz.RoleGate}, &r, d); err != nil {
		return err
	}
	if !d.Allowed {
		return errors.New("denied: " + d.Denial.Reason.String())
	}
	return nil
}
