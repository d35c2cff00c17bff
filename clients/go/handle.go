package purser

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Handle is leave to work, to be settled. While it is open the client keeps it alive, and asks for
// more where the request says up to how much (see [Estimate.UpTo]). It is safe for concurrent
// use.
//
// Mostly there is one reservation behind it. If the node that issued it goes away, the client
// reserves the rest elsewhere and commits what was used so far (R35): the handle goes on, and
// its receipt is the sum.
type Handle struct {
	client  *Client // nil = ungated
	request Request
	done    context.Context // Gate's: its values go with the settlement Close makes
	answer  *purserv1.CheckAndReserveResponse
	meters  meters
	final   atomic.Bool   // no more than is granted will come
	limited chan struct{} // closed with it
	asked   atomic.Bool   // the keeper was told that more is needed

	mu      sync.Mutex
	current *purserv1.Reservation
	order   []int // nodes, the one to settle at first
	settled bool  // a settlement was tried: Close has nothing more to do
	earlier earlier
	noted   int64 // usage of all meters that the authority was told of in between
	keep    keeping
}

// Settlement is a commit in full.
type Settlement struct {
	// Usage is the total of each meter. What was reported of a meter that is not listed counts
	// as well.
	Usage []Quantity
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
	// Kept counts earlier reservations of the handle whose settlement is being sent still: their
	// amounts are missing here, and go to [Config.OnSettled].
	Kept int
}

func (c *Client) newHandle(ctx context.Context, r Request, order []int, answer *purserv1.CheckAndReserveResponse) *Handle {
	h := &Handle{client: c, request: r, done: ctx, answer: answer, current: answer.GetReservation(), order: order,
		limited: make(chan struct{})}
	list := make([]*meter, 0, len(r.Estimates))
	for _, e := range r.Estimates {
		most := e.Max
		if c.keeper.off() {
			most = 0
		}
		list = append(list, newMeter(e, quantityOf(h.current.GetGranted(), e.Meter), most))
	}
	h.meters.list.Store(&list)
	if h.current.GetExhausted() {
		h.limit()
	}
	c.keeper.start(h)
	return h
}

// Ungated is a handle with no reservation behind it: it grants whatever r asks for, and
// settling it does nothing. It stands in where work goes on though the authority is away, and
// in tests of code that takes a handle.
func Ungated(r Request) *Handle {
	h := &Handle{request: r, done: context.Background(), limited: make(chan struct{})}
	granted := &purserv1.Reservation{}
	if len(r.Features) > 0 {
		granted.Feature = r.Features[0]
	}
	list := make([]*meter, 0, len(r.Estimates))
	for _, e := range r.Estimates {
		list = append(list, newMeter(e, max(e.Quantity, e.Max), 0))
	}
	h.meters.list.Store(&list)
	h.current, h.answer = granted, &purserv1.CheckAndReserveResponse{Reservation: granted}
	return h
}

func quantityOf(list []*purserv1.MeterQuantity, meter string) int64 {
	for _, q := range list {
		if q.GetMeter() == meter {
			return q.GetQuantity()
		}
	}
	return 0
}

// Feature is the candidate that was granted.
func (h *Handle) Feature() string { return h.Reservation().GetFeature() }

// Request is what was asked for.
func (h *Handle) Request() Request { return h.request }

// Granted is how much of meter may be used in all, 0 if the request did not estimate it. It
// grows as more is granted. It shrinks only if the work had to go on elsewhere (see
// [Handle]) and less was left there.
func (h *Handle) Granted(meter string) int64 {
	if m := h.meters.find(meter); m != nil {
		return m.granted.Load()
	}
	return 0
}

// Remaining is how much of meter may still be used: what is granted less what was reported,
// at least 0.
func (h *Handle) Remaining(meter string) int64 {
	if m := h.meters.find(meter); m != nil {
		return m.left()
	}
	return 0
}

// Report says how much was used so far, as totals: a total below an earlier one changes
// nothing. It takes no lock and does not block, so it can be called for every token; when a
// fifth of what is granted is left, more is asked for in the background (see
// [Estimate.UpTo]). It returns false if the work should stop: of a meter that was asked for
// with Want or UpTo all that was granted is used, and no more will come. Usage beyond that is
// charged all the same.
func (h *Handle) Report(totals ...Quantity) bool {
	ok := true
	for _, q := range totals {
		m := h.meters.get(q.Meter)
		ok = h.reached(m, m.raise(q.Quantity)) && ok
	}
	return ok
}

// Add is [Handle.Report] with n more instead of a total; below 0 it counts nothing.
func (h *Handle) Add(meter string, n int64) bool {
	m := h.meters.get(meter)
	return h.reached(m, m.add(n))
}

func (h *Handle) reached(m *meter, used int64) bool {
	final := h.final.Load()
	if used >= m.mark.Load() && !final && !h.asked.Load() && h.asked.CompareAndSwap(false, true) {
		h.client.keeper.push(h)
	}
	return !m.over(used, final)
}

// More reports whether the work may go on: it is what [Handle.Report] would return.
func (h *Handle) More() bool {
	final := h.final.Load()
	for _, m := range h.meters.all() {
		if m.over(m.used.Load(), final) {
			return false
		}
	}
	return true
}

// Used is what was reported of meter so far.
func (h *Handle) Used(meter string) int64 {
	if m := h.meters.find(meter); m != nil {
		return m.used.Load()
	}
	return 0
}

// Reported are the totals reported so far.
func (h *Handle) Reported() []Quantity { return h.meters.reported() }

// Partial reports whether less than desired was granted of some meter.
func (h *Handle) Partial() bool { return h.Reservation().GetPartial() }

// Exhausted reports that no more than is granted will come: the pots are empty, or the
// authority refused more.
func (h *Handle) Exhausted() bool { return h.final.Load() }

// Limited is closed once [Handle.Exhausted] is true. [Handle.Remaining] then says how much may
// still be produced.
func (h *Handle) Limited() <-chan struct{} { return h.limited }

func (h *Handle) limit() {
	if h.final.CompareAndSwap(false, true) {
		close(h.limited)
	}
}

// ExpireTime is until when a commit up to the hold is certain to be honoured.
func (h *Handle) ExpireTime() time.Time { return h.Reservation().GetExpireTime().AsTime() }

// Warnings tell of soft limits that were reached when the work was let in.
func (h *Handle) Warnings() []*purserv1.Warning { return h.answer.GetWarnings() }

// Reservation is the reservation as it stands, with the latest token. It must not be changed.
func (h *Handle) Reservation() *purserv1.Reservation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// Commit charges what was used, beyond the hold too, and gives back the rest. Without
// arguments it charges what was reported. It goes on when ctx ends, for at most
// [Config.SettleTimeout]: usage that happened must be paid. If the outcome is still unknown then,
// the settlement is kept and sent again ([Error.Kept]). Repeating it with the same usage is
// harmless.
func (h *Handle) Commit(ctx context.Context, usage ...Quantity) (Receipt, error) {
	return h.Settle(ctx, Settlement{Usage: usage})
}

// Settle is Commit with everything that can be said.
func (h *Handle) Settle(ctx context.Context, s Settlement) (Receipt, error) {
	if s.Outcome == purserv1.Outcome_OUTCOME_UNSPECIFIED {
		s.Outcome = purserv1.Outcome_OUTCOME_SUCCESS
	}
	return h.settle(ctx, &s)
}

// Release gives everything back: the work did not take place. Otherwise as Commit. What the
// client has committed already (see [Handle]) stays charged.
func (h *Handle) Release(ctx context.Context) (Receipt, error) { return h.settle(ctx, nil) }

// Close settles unless a settlement was tried, even one that failed: then there is usage, and
// to release it would make it free. What was reported is committed, with the outcome ERROR; if
// nothing was, everything is given back. It is meant for defer, and runs with its own time
// limit when Gate's context has ended. Further calls do nothing.
func (h *Handle) Close() error {
	h.mu.Lock()
	settled, split := h.settled, h.earlier.count > 0
	h.mu.Unlock()
	if settled {
		return nil
	}
	if split || len(h.Reported()) > 0 {
		_, err := h.Settle(h.done, Settlement{Outcome: purserv1.Outcome_OUTCOME_ERROR})
		return err
	}
	_, err := h.Release(h.done)
	return err
}

// Settled reports whether a settlement was tried.
func (h *Handle) Settled() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.settled
}

// settle commits, or releases if s is nil.
func (h *Handle) settle(ctx context.Context, s *Settlement) (Receipt, error) {
	if h.client == nil {
		h.mu.Lock()
		h.settled = true
		h.mu.Unlock()
		return Receipt{}, nil
	}
	h.endKeeping()
	h.mu.Lock()
	p := Pending{ReservationID: h.current.GetReservationId(), Account: h.request.Account, Token: h.current.GetToken(), order: h.order}
	if s != nil {
		commit := *s
		commit.Usage = h.earlier.rest(h.totals(s.Usage))
		p.Commit = &commit
	}
	earlier := h.earlier
	h.mu.Unlock()
	receipt, err := h.client.settle(ctx, p)
	if err == nil {
		return earlier.receipt.plus(receipt), earlier.lost
	}
	return earlier.receipt, err
}

// totals are the usage given, and what was reported of other meters.
func (h *Handle) totals(given []Quantity) []Quantity {
	out := append([]Quantity(nil), given...)
	for _, q := range h.Reported() {
		if !has(given, q.Meter) {
			out = append(out, q)
		}
	}
	return out
}

func has(list []Quantity, meter string) bool {
	for _, q := range list {
		if q.Meter == meter {
			return true
		}
	}
	return false
}

// settle sends a settlement, and keeps it if its outcome stays open.
func (c *Client) settle(ctx context.Context, p Pending) (Receipt, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.SettleTimeout)
	defer cancel()
	receipt, err := c.send(ctx, p)
	if err != nil && err.open() {
		err.Kept = c.spool.put(p)
	}
	if err != nil {
		return Receipt{}, err
	}
	return receipt, nil
}

// plus adds up two receipts; the state is the later one's.
func (r Receipt) plus(later Receipt) Receipt {
	later.Charged += r.Charged
	later.Covered += r.Covered
	later.Overage += r.Overage
	later.Uncovered += r.Uncovered
	later.Late = later.Late || r.Late
	later.Kept += r.Kept
	return later
}
