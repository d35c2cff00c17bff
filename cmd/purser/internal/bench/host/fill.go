package host

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

// fill makes reservations and leaves them. It asks the node directly: over the network the
// first would have expired before the last of a million is made. Each request has strings of
// its own, as one that was decoded has.
func (h *Host) fill(ctx context.Context, o Order) error {
	caller := &authz.Principal{Name: "filler", Role: authz.RoleGate}
	var d quota.Decision
	for i := range o.Count {
		r := h.Request
		r.Account = Name(o.Prefix, i%o.Accounts)
		r.Candidates = []string{strings.Clone(r.Candidates[0])}
		if o.Keys {
			r.Key = "filled-by-the-benchmark-" + strconv.Itoa(i)
		}
		if err := h.Node.Reserve(ctx, caller, &r, &d); err != nil {
			return fmt.Errorf("reservation %d: %w", i, err)
		}
		if !d.Allowed {
			return errors.New("reservation denied: " + d.Denial.Reason.String())
		}
	}
	return nil
}
