package purser

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Reasons that an extension acts on; see ErrorReason in the contract.
const (
	reasonExtendElsewhere = "EXTEND_ELSEWHERE"
	reasonExpired         = "RESERVATION_EXPIRED"
	reasonShuttingDown    = "SHUTTING_DOWN"
	metaAddress           = "address"
)

// meterRequests is counted by the authority: 1 for each commit that does not list it.
const meterRequests = "requests"

// extend is one round of keeping h: more time, and more amount where usage has come near what
// is granted.
func (k *keeper) extend(ctx context.Context, h *Handle) round {
	again := round{wait: h.beat() / beatsPerTTL}
	if k.off() || h.forgotten(k.client.cfg.KeepFor) {
		h.limit()
		return round{}
	}
	want := h.wanted()
	response, err := k.ask(ctx, h, want)
	if err == nil && response.GetReservation() == nil && len(want) > 0 {
		// A denial leaves everything as it was, the time too: that has to be asked for by itself.
		h.denied(response.GetDenial())
		again.wait = max(again.wait, min(response.GetDenial().GetRetryAfter().AsDuration(), h.beat()))
		response, err = k.ask(ctx, h, nil)
		if err == nil && response.GetReservation() != nil {
			h.extended(response.GetReservation())
			return again
		}
	}
	switch {
	case err == nil && response.GetReservation() != nil:
		if h.extended(response.GetReservation()) || len(want) == 0 {
			return round{wait: h.beat(), open: true}
		}
		return again
	case err == nil: // denied even the time: the account was suspended, say
		h.limit()
		return again
	case err.Reason == reasonExpired, err.Reason == reasonExtendElsewhere:
		return k.split(ctx, h, h.nodes())
	case err.Code == codes.Unimplemented:
		k.unserved.Store(true)
		k.client.cfg.Logger.Warn("the authority does not extend reservations: they expire", "error", err)
	case err.gone() && len(k.client.nodes) > 1:
		nodes := h.nodes()
		return k.split(ctx, h, append(nodes[1:], nodes[0]))
	case err.retryable:
		return again
	default: // settled by somebody else, or refused for good
		k.client.cfg.Logger.Warn("reservation is not extended any more", "reservation", h.Reservation().GetReservationId(), "error", err)
	}
	h.limit()
	return round{}
}

// gone reports an error that speaks of the node, not of the call.
func (e *Error) gone() bool {
	return (e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded) && (e.Reason == "" || e.Reason == reasonShuttingDown)
}

// ask extends at the node that issued.
func (k *keeper) ask(ctx context.Context, h *Handle, want []*purserv1.Estimate) (*purserv1.ExtendResponse, *Error) {
	request := &purserv1.ExtendRequest{Token: h.Reservation().GetToken(), Estimates: want}
	if h.request.TTL != 0 {
		request.Ttl = durationpb.New(h.request.TTL)
	}
	var response *purserv1.ExtendResponse
	err := k.atIssuer(ctx, h, "extend", func(ctx context.Context, api purserv1.AuthorityServiceClient) (err error) {
		response, err = api.Extend(ctx, request)
		return err
	})
	return response, err
}

// atIssuer calls the node that issued, which an answer may name.
func (k *keeper) atIssuer(ctx context.Context, h *Handle, op string, do func(context.Context, purserv1.AuthorityServiceClient) error) *Error {
	at := func(i int) *Error {
		_, err := k.client.callUpTo(ctx, triesPerNode, op, []int{i}, do)
		return err
	}
	err := at(h.nodes()[0])
	if err != nil && err.Reason == reasonExtendElsewhere {
		for i, address := range k.client.cfg.Addresses {
			if address == err.Metadata[metaAddress] && i != h.nodes()[0] {
				h.mu.Lock()
				h.order = from(h.order, i)
				h.mu.Unlock()
				return at(i)
			}
		}
	}
	return err
}

func (h *Handle) nodes() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]int(nil), h.order...)
}

// wanted are the new totals of the meters that need more, as the current reservation counts.
// All that may be had is taken, down to nothing more.
func (h *Handle) wanted() []*purserv1.Estimate {
	if h.final.Load() {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*purserv1.Estimate
	for _, m := range h.meters.all() {
		granted, more := m.granted.Load(), m.more()
		if more > granted {
			before := h.earlier.usage[m.name]
			least := granted - before
			out = append(out, &purserv1.Estimate{Meter: m.name, Quantity: more - before, MinQuantity: &least})
		}
	}
	return out
}

// extended takes a new state over, and reports whether anything more was granted. Of a meter
// that the state does not list, nothing changed.
func (h *Handle) extended(r *purserv1.Reservation) (more bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.current = r
	for _, q := range r.GetGranted() {
		m := h.meters.find(q.GetMeter())
		if m == nil || m.most == 0 {
			continue
		}
		total := h.earlier.usage[m.name] + q.GetQuantity()
		more = more || total > m.granted.Load()
		m.grant(total)
	}
	if r.GetExhausted() {
		h.limit()
	}
	return more
}

// denied takes note of a no: unless what is missing may come back, that is final.
func (h *Handle) denied(d *purserv1.Denial) {
	if d.GetKind() != purserv1.DenialKind_DENIAL_KIND_TRANSIENT {
		h.limit()
	}
}

// earlier is what became of the reservations before the current one.
type earlier struct {
	count   int
	usage   map[string]int64 // committed with them
	receipt Receipt
	lost    error // a settlement of unknown outcome that could not be kept
}

// rest is what of the totals is left for the current reservation to commit.
func (e *earlier) rest(totals []Quantity) []Quantity {
	if e.count == 0 {
		return totals
	}
	var out []Quantity
	for _, q := range withRequests(totals) {
		if left := max(q.Quantity-e.usage[q.Meter], 0); left > 0 || q.Meter == meterRequests {
			out = append(out, Quantity{q.Meter, left})
		}
	}
	return out
}

// withRequests lists what the authority would count by itself.
func withRequests(totals []Quantity) []Quantity {
	if has(totals, meterRequests) {
		return totals
	}
	return append(append([]Quantity(nil), totals...), Quantity{meterRequests, 1})
}

// split does what R35 says where the issuing node cannot extend: it reserves the rest anew, and
// commits the first reservation with the usage so far. If nothing is granted, the handle stays
// with the first and what that holds.
func (k *keeper) split(ctx context.Context, h *Handle, order []int) round {
	c, again := k.client, round{wait: h.beat() / beatsPerTTL}
	h.mu.Lock()
	totals := h.totals(nil)
	request := h.restRequest()
	h.mu.Unlock()
	response, i, err := c.reserve(ctx, order, request.toAPI())
	switch {
	case err != nil:
		return again // nodes may come back; what the first holds, it holds
	case response.GetReservation() == nil:
		h.denied(response.GetDenial())
		return again
	}
	h.mu.Lock()
	first := Pending{ReservationID: h.current.GetReservationId(), Account: h.request.Account, Token: h.current.GetToken(),
		Commit: &Settlement{Usage: h.earlier.rest(totals), Outcome: purserv1.Outcome_OUTCOME_SUCCESS}, order: from(order, i)}
	h.mu.Unlock()
	receipt, settling := c.settle(h.done, first)
	c.cfg.Logger.Info("reservation goes on elsewhere", "reservation", first.ReservationID,
		"next", response.GetReservation().GetReservationId(), "address", c.cfg.Addresses[i])
	h.mu.Lock()
	h.earlier.add(totals, receipt, settling)
	h.noted = 0 // of the next reservation nothing is
	h.order = from(order, i)
	h.mu.Unlock()
	h.extended(response.GetReservation())
	return round{wait: h.beat(), open: true}
}

// add notes a commit of all usage up to totals. If it was refused, that usage stays to be
// committed with the rest.
func (e *earlier) add(totals []Quantity, receipt Receipt, err error) {
	failure, _ := err.(*Error)
	switch {
	case failure != nil && !failure.open():
		return
	case failure != nil && failure.Kept:
		receipt.Kept = 1
	case failure != nil:
		e.lost = failure
	}
	e.count++
	e.receipt = e.receipt.plus(receipt)
	e.usage = make(map[string]int64, len(totals)+1)
	for _, q := range withRequests(totals) {
		e.usage[q.Meter] = q.Quantity
	}
}

// restRequest asks for what is granted and not used yet, and more where that is near its end.
// Everything may shrink: the work is under way. The request was counted with the first.
func (h *Handle) restRequest() *Request {
	r := &Request{Account: h.request.Account, Features: []string{h.current.GetFeature()}, TTL: h.request.TTL, Labels: h.request.Labels}
	for _, m := range h.meters.all() {
		if m.most == 0 || m.name == meterRequests {
			continue
		}
		r.Estimates = append(r.Estimates, Want(m.name, max(m.more()-m.used.Load(), 0), 0))
	}
	r.Estimates = append(r.Estimates, Need(meterRequests, 0))
	return r
}
