package apitest

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/server/session"
)

// TestSessionExtendsInOrder: an extension waits for a draw, and what is sent behind it on the
// same reservation waits for the extension: the commit finds all of it held.
func TestSessionExtendsInOrder(t *testing.T) {
	w, f := shopWithFaults(t)
	s := w.talks(asGate)
	token := s.reserved(1)[0]
	draw := hold(t, f, "Draw")
	ids := s.send(op(totals(token, 3_000_000)), op(used(token, 1000, 3_000_000)), op(totals(token, 4_000_000)), op(&purserv1.ReleaseRequest{Token: token}))
	if r := s.do(&purserv1.CheckRequest{Account: "acme", Candidates: []string{"small"}})[0]; r.GetError() != nil {
		t.Errorf("another operation meanwhile: %v", r)
	}
	for _, id := range ids {
		if s.results[id] != nil {
			t.Errorf("answered before the draw: %v", s.results[id])
		}
	}
	draw()
	extended, commit, again, release := s.answer(ids[0]), s.answer(ids[1]), s.answer(ids[2]), s.answer(ids[3])
	if extended.GetExtend().GetReservation() == nil {
		t.Errorf("extension: %v", extended)
	}
	if c := commit.GetCommit(); c.GetOverageMicros() != 0 || c.GetChargedMicros() == 0 {
		t.Errorf("commit behind it: %v; want all of it from the hold", commit)
	}
	for _, r := range []*purserv1.OperationResult{again, release} {
		if r.GetError().GetReason() != purserv1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED {
			t.Errorf("behind the commit: %v", r)
		}
	}
	s.close()
	w.audited()
}

// TestSessionCommitsLate: usage that is reported when its reservation has expired is charged
// once, and said to be late.
func TestSessionCommitsLate(t *testing.T) {
	w, _ := shopWithFaults(t)
	s := w.talks(asGate)
	r := s.do(holdFor(work("acme", "small", 1), time.Second))[0]
	token := r.GetCheckAndReserve().GetReservation().GetToken()
	w.await("it expires", func() bool { return w.engine.Status().Reservations == 0 })
	first := s.do(used(token, 1000, 1))[0].GetCommit()
	second := s.do(used(token, 1000, 1))[0].GetCommit()
	if !first.GetLate() || first.GetReplayed() || !second.GetLate() || !second.GetReplayed() || first.GetChargedMicros() != second.GetChargedMicros() {
		t.Errorf("committed: %v, and again: %v; want one LATE charge", first, second)
	}
	s.close()
	w.audited()
}

// TestSessionBeginsCold: a gateway may begin with all that a stream may have unanswered, on an
// account that is not in memory yet.
func TestSessionBeginsCold(t *testing.T) {
	w, f := shopWithFaults(t)
	s := w.talks(asGate)
	profile := hold(t, f, "Profiles")
	var ids []uint64
	for range session.MaxUnanswered / session.MaxOperations {
		ops := make([]*purserv1.Operation, session.MaxOperations)
		for i := range ops {
			ops[i] = op(work("acme", "small", 1))
		}
		ids = append(ids, s.send(ops...)...)
	}
	profile()
	for _, id := range ids {
		if r := s.answer(id); r.GetCheckAndReserve().GetReservation() == nil {
			t.Fatalf("operation %d: %v", id, r)
		}
	}
	s.close()
	w.audited()
}

// TestSessionOverload: operations that need the store wait for it in bounded numbers; those
// beyond are refused at once, and whoever needs nothing from the store goes on.
func TestSessionOverload(t *testing.T) {
	const workers, queue = 32, 256
	w, f := shopWithin(t, server.Limits{SessionWorkers: workers, SessionQueue: queue})
	s, other := w.talks(asGate), w.talks(asGate)
	other.reserved(1)
	profile := hold(t, f, "Profiles")
	const perMessage, messages, room = 256, 3, workers + queue
	var ids []uint64
	for m := range messages {
		ops := make([]*purserv1.Operation, perMessage)
		for i := range ops {
			ops[i] = op(work(fmt.Sprintf("nobody-%d", m*perMessage+i), "small", 1))
			ops[i].Timeout = durationpb.New(time.Minute)
		}
		ids = append(ids, s.send(ops...)...)
	}
	for len(s.results) < perMessage*messages-room {
		if err := s.receive(); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range s.results {
		if e := r.GetError(); e.GetReason() != purserv1.ErrorReason_ERROR_REASON_SERVER_OVERLOADED ||
			e.GetMetadata()["not_applied"] != "true" || e.GetRetryAfter() == nil {
			t.Fatalf("beyond the bound: %v", r)
		}
	}
	other.reserved(1)
	profile()
	for _, id := range ids {
		r := s.answer(id)
		denial := r.GetCheckAndReserve().GetDenial().GetReason()
		if r.GetError().GetReason() != purserv1.ErrorReason_ERROR_REASON_SERVER_OVERLOADED && denial != purserv1.DenialReason_DENIAL_REASON_ACCOUNT_UNKNOWN {
			t.Fatalf("operation %d: %v", id, r)
		}
	}
	if r := s.do(proto.Message(work("nobody", "small", 1)))[0]; r.GetCheckAndReserve().GetDenial() == nil {
		t.Errorf("afterwards: %v", r)
	}
	s.close()
	other.close()
	w.audited()
}
