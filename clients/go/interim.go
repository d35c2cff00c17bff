package purser

import (
	"context"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Interim tells the authority what was reported so far (see [Handle.Report]), durably: it charges
// nothing, but if this process dies and the reservation expires, that much is charged. Nothing is
// sent if nothing was reported since the last time. With [Config.Interim] every heartbeat does it.
// It blocks until the answer, the last try, or the end of ctx. An [*Error] changes nothing about
// the handle: go on, and settle with all that was used.
func (h *Handle) Interim(ctx context.Context) error {
	if h.client == nil {
		return nil
	}
	if err := h.note(ctx); err != nil {
		return err
	}
	return nil
}

// note is one interim commit of the current reservation, of what an earlier one has not committed.
func (h *Handle) note(ctx context.Context) *Error {
	used := h.meters.sum()
	h.mu.Lock()
	noted := used == h.noted
	request := &purserv1.CommitRequest{Token: h.current.GetToken(), Final: new(bool), Outcome: purserv1.Outcome_OUTCOME_ERROR}
	for _, q := range h.earlier.rest(h.totals(nil)) {
		request.Usage = append(request.Usage, &purserv1.MeterQuantity{Meter: q.Meter, Quantity: q.Quantity})
	}
	h.mu.Unlock()
	if noted {
		return nil
	}
	var response *purserv1.CommitResponse
	err := h.client.keeper.atIssuer(ctx, h, "interim", func(ctx context.Context, api purserv1.AuthorityServiceClient) (err error) {
		response, err = api.Commit(ctx, request)
		return err
	})
	if err != nil {
		return err
	}
	if response.GetState() != purserv1.ReservationState_RESERVATION_STATE_HELD && h.client.keeper.unnoted.CompareAndSwap(false, true) {
		h.client.cfg.Logger.Error("the authority takes interim commits for last ones, and has settled the reservation: turn Config.Interim off",
			"reservation", h.Reservation().GetReservationId())
	}
	h.mu.Lock()
	h.noted = max(h.noted, used)
	h.mu.Unlock()
	return nil
}

// noteUsage does with a beat what Interim does, and leaves what fails to the next.
func (k *keeper) noteUsage(ctx context.Context, h *Handle) {
	if !k.client.cfg.Interim || k.unnoted.Load() {
		return
	}
	if err := h.note(ctx); err != nil {
		k.client.cfg.Logger.Info("usage so far was not noted", "reservation", h.Reservation().GetReservationId(), "error", err)
	}
}
