package purser

import (
	"context"

	"google.golang.org/grpc/codes"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

type handleKey struct{}

// NewContext is ctx with a handle in it, for the work that it lets in.
func NewContext(ctx context.Context, h *Handle) context.Context {
	return context.WithValue(ctx, handleKey{}, h)
}

// FromContext is the handle that the work runs under. It is never nil: without one it is
// [Ungated], which grants nothing and settles nothing.
func FromContext(ctx context.Context) *Handle {
	if h, ok := ctx.Value(handleKey{}).(*Handle); ok {
		return h
	}
	return Ungated(Request{})
}

// Finish settles by what became of the work, for callers that were not told more, such as an
// interceptor. Work took place if its outcome is SUCCESS or anything was reported. Then
// what was reported is committed, and of meters asked for with [Need] that nothing was reported
// of, the estimate. Else everything is given back. It does nothing if a settlement was tried
// already.
func (h *Handle) Finish(ctx context.Context, outcome purserv1.Outcome) (Receipt, error) {
	if h.Settled() {
		return Receipt{}, nil
	}
	if outcome != purserv1.Outcome_OUTCOME_SUCCESS && !h.begun() {
		return h.Release(ctx)
	}
	var usage []Quantity
	for _, e := range h.request.Estimates {
		if !e.Flexible && h.Used(e.Meter) == 0 {
			usage = append(usage, Quantity{e.Meter, e.Quantity})
		}
	}
	return h.Settle(ctx, Settlement{Usage: usage, Outcome: outcome})
}

// begun reports whether there is usage that must be paid.
func (h *Handle) begun() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.earlier.count > 0 || len(h.Reported()) > 0
}

// Forbidden reports a denial that is about what the account may do, not about how much it has left:
// the account is unknown or suspended, the feature unknown, not entitled or without a price.
func (d *Denied) Forbidden() bool { return d.Reason <= purserv1.DenialReason_DENIAL_REASON_NO_PRICE }

// Unreachable reports that the authority could not be asked, or could not say: work may be let
// in without it, if that is the lesser evil. False means that it refused the question, which
// comes back until somebody mends it.
func (e *Error) Unreachable() bool {
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Unknown, codes.Internal, codes.DataLoss:
		return true
	}
	return false
}
