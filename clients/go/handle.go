package purser

import (
	"context"
	"sync"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Handle is a reservation to be settled. It is safe for concurrent use.
type Handle struct {
	client   *Client
	order    []int // nodes, the issuing one first
	account  string
	response *purserv1.CheckAndReserveResponse
	done     context.Context // Gate's: its values go with the settlement Close makes

	mu      sync.Mutex
	settled bool // a settlement was tried: Close has nothing more to do
}

// Settlement is a commit in full.
type Settlement struct {
	Usage []Quantity // cumulative for each meter
	// Outcome tags what became of the work; unspecified means success.
	Outcome purserv1.Outcome
	// Labels learnt late; they attribute, and select no budget.
	Labels map[string]string
	// UsageDelivered commits even what was released: the usage is real.
	UsageDelivered bool
}

// Receipt is what a settlement came to, in micros of a credit.
type Receipt struct {
	State     purserv1.ReservationState
	Charged   int64 // price of the usage
	Covered   int64 // of that, from what had been set aside
	Overage   int64 // of that, beyond the hold
	Uncovered int64 // of that, debited afterwards from grants, then as debt
	Late      bool  // the reservation had ended before; charged once all the same
	Replayed  bool  // an earlier try had arrived
}

// Feature is the candidate that was granted.
func (h *Handle) Feature() string { return h.Reservation().GetFeature() }

// Granted is how much of meter may be used, 0 if the request did not estimate it.
func (h *Handle) Granted(meter string) int64 {
	for _, q := range h.Reservation().GetGranted() {
		if q.GetMeter() == meter {
			return q.GetQuantity()
		}
	}
	return 0
}

// Partial reports whether less than desired was granted of some meter.
func (h *Handle) Partial() bool { return h.Reservation().GetPartial() }

// Exhausted reports that no more than was granted will come.
func (h *Handle) Exhausted() bool { return h.Reservation().GetExhausted() }

// ExpireTime is until when a commit up to the hold is certain to be honoured.
func (h *Handle) ExpireTime() time.Time { return h.Reservation().GetExpireTime().AsTime() }

// Warnings tell of soft limits.
func (h *Handle) Warnings() []*purserv1.Warning { return h.response.GetWarnings() }

// Reservation is the whole answer, with the token. It must not be changed.
func (h *Handle) Reservation() *purserv1.Reservation { return h.response.GetReservation() }

// Commit charges what was used, beyond the hold too, and gives back the rest. It goes on when
// ctx ends, for at most [Config.SettleTimeout]: usage that happened must be paid. If the outcome is
// still unknown then, the settlement is kept and sent again ([Error.Kept]). Repeating it with
// the same usage is harmless.
func (h *Handle) Commit(ctx context.Context, usage ...Quantity) (Receipt, error) {
	return h.Settle(ctx, Settlement{Usage: usage})
}

// Settle is Commit with everything that can be said.
func (h *Handle) Settle(ctx context.Context, s Settlement) (Receipt, error) {
	p := h.pending()
	if s.Outcome == purserv1.Outcome_OUTCOME_UNSPECIFIED {
		s.Outcome = purserv1.Outcome_OUTCOME_SUCCESS
	}
	p.Commit = &s
	return h.settle(ctx, p)
}

// Release gives everything back: the work did not take place. Otherwise as Commit.
func (h *Handle) Release(ctx context.Context) (Receipt, error) {
	return h.settle(ctx, h.pending())
}

// Close releases unless a settlement was tried, even one that failed: then there is usage,
// and to release it would make it free. It is meant for defer, and runs with its own time
// limit when Gate's context has ended. Further calls do nothing.
func (h *Handle) Close() error {
	h.mu.Lock()
	settled := h.settled
	h.mu.Unlock()
	if settled {
		return nil
	}
	_, err := h.Release(h.done)
	return err
}

func (h *Handle) pending() Pending {
	r := h.Reservation()
	return Pending{ReservationID: r.GetReservationId(), Account: h.account, Token: r.GetToken(), order: h.order}
}

func (h *Handle) settle(ctx context.Context, p Pending) (Receipt, error) {
	h.mu.Lock()
	h.settled = true
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.client.cfg.SettleTimeout)
	defer cancel()
	receipt, err := h.client.send(ctx, p)
	if err != nil && err.retryable {
		err.Kept = h.client.spool.put(p)
	}
	if err != nil {
		return Receipt{}, err
	}
	return receipt, nil
}
