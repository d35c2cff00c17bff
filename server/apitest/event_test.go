package apitest

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// follows opens a stream of events that is open for sure: what happens from here on is in it.
func (w *world) follows(who string, want *purserv1.WatchEventsRequest) purserv1.EventService_WatchEventsClient {
	w.t.Helper()
	ctx, end := context.WithTimeout(w.as(who), patience)
	w.t.Cleanup(end)
	stream, err := purserv1.NewEventServiceClient(w.conn).WatchEvents(ctx, want)
	if err != nil {
		w.t.Fatalf("follow: %v", err)
	}
	if md, err := stream.Header(); err != nil || md == nil {
		w.t.Fatalf("follow: headers %v, %v", md, err)
	}
	return stream
}

// next reads n events.
func (w *world) next(stream purserv1.EventService_WatchEventsClient, n int) (events []*purserv1.Event) {
	w.t.Helper()
	for len(events) < n {
		m, err := stream.Recv()
		if err != nil {
			w.t.Fatalf("after %d events: %v", len(events), err)
		}
		if m.GetMissed() != 0 || len(m.GetEvents()) == 0 {
			w.t.Fatalf("message %v", m)
		}
		events = append(events, m.GetEvents()...)
	}
	return events
}

func TestEventsAreSeenAsTheyHappen(t *testing.T) {
	w := newWorld(t, onSQLite())
	w.shop()
	w.account("acme", "", 10*credit)
	w.account("poor", "", 0)
	all, denials := w.follows(asViewer, &purserv1.WatchEventsRequest{}), w.follows(asAdmin, &purserv1.WatchEventsRequest{DeniedOnly: true})
	made := must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 1000)).GetReservation()
	must(w, asGate, w.authority.CheckAndReserve, work("poor", "large", 1))
	must(w, asGate, w.authority.Commit, &purserv1.CommitRequest{Token: made.GetToken(),
		Usage: []*purserv1.MeterQuantity{{Meter: "output_tokens", Quantity: 100}}})
	w.talks(asGate).do(work("acme", "small", 1))
	second := must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 0)).GetReservation()
	must(w, asGate, w.authority.Extend, &purserv1.ExtendRequest{Token: second.GetToken(),
		Estimates: []*purserv1.Estimate{{Meter: "input_tokens", Quantity: 1000}, {Meter: "output_tokens", Quantity: 500}}})

	events := w.next(all, 6)
	for i, want := range []struct {
		kind    purserv1.EventKind
		account string
		feature string
		micros  int64
	}{
		{purserv1.EventKind_EVENT_KIND_RESERVED, "acme", "large", 4 * credit},
		{purserv1.EventKind_EVENT_KIND_DENIED, "poor", "large", 0},
		{purserv1.EventKind_EVENT_KIND_COMMITTED, "acme", "large", 3 * credit / 10},
		{purserv1.EventKind_EVENT_KIND_RESERVED, "acme", "small", credit/10 + 300},
		{purserv1.EventKind_EVENT_KIND_RESERVED, "acme", "large", credit},
		{purserv1.EventKind_EVENT_KIND_EXTENDED, "acme", "large", 5 * credit / 2},
	} {
		got := events[i]
		if got.GetKind() != want.kind || got.GetAccount() != want.account || got.GetFeature() != want.feature ||
			got.GetAmountMicros() != want.micros || got.GetPrincipal() != asGate {
			t.Errorf("event %d = %v, want %+v", i, got, want)
		}
	}
	if id := made.GetReservationId(); events[0].GetReservationId() != id || events[2].GetReservationId() != id {
		t.Errorf("the reservation is %s, the events say %s and %s", id, events[0].GetReservationId(), events[2].GetReservationId())
	}
	if events[5].GetReservationId() != second.GetReservationId() {
		t.Errorf("extended %s, the event says %s", second.GetReservationId(), events[5].GetReservationId())
	}
	denied := w.next(denials, 1)[0]
	if denied.GetAccount() != "poor" || denied.GetDenial().GetReason() != purserv1.DenialReason_DENIAL_REASON_CREDITS {
		t.Errorf("denial = %v", denied)
	}
}

func TestWhoMayFollowWhat(t *testing.T) {
	w := newWorld(t, onSQLite())
	w.shop()
	w.account("acme", "", 10*credit)
	w.account("globex", "", 10*credit)
	w.secrets["bound"] = w.newKey(authz.Key{Role: authz.RoleViewer, Principal: "bound", Account: "acme", ExpireTime: authz.Never})
	created := must(w, asAdmin, w.keys.CreateKey, &purserv1.CreateKeyRequest{Principal: "leaver", Role: purserv1.Role_ROLE_VIEWER})
	w.secrets["leaver"] = created.GetSecret()

	bound := w.follows("bound", &purserv1.WatchEventsRequest{})
	must(w, asGate, w.authority.CheckAndReserve, work("globex", "small", 1))
	must(w, asGate, w.authority.CheckAndReserve, work("acme", "small", 1))
	if seen := w.next(bound, 1); seen[0].GetAccount() != "acme" {
		t.Errorf("a key bound to acme saw %v", seen)
	}
	for name, tt := range map[string]struct {
		who  string
		want *purserv1.WatchEventsRequest
		code codes.Code
	}{
		"another account": {"bound", &purserv1.WatchEventsRequest{Account: "globex"}, codes.PermissionDenied},
		"no account id":   {asViewer, &purserv1.WatchEventsRequest{Account: "no account"}, codes.InvalidArgument},
		"no feature id":   {asViewer, &purserv1.WatchEventsRequest{Feature: "Chat!"}, codes.InvalidArgument},
	} {
		stream, err := purserv1.NewEventServiceClient(w.conn).WatchEvents(w.as(tt.who), tt.want)
		if err == nil {
			_, err = stream.Recv()
		}
		info, _, _ := details(err)
		if status.Code(err) != tt.code || info.GetMetadata()["not_applied"] != "true" {
			t.Errorf("%s: %v, %v; want %v, definite", name, err, info, tt.code)
		}
	}
	leaver := w.follows("leaver", &purserv1.WatchEventsRequest{})
	must(w, asAdmin, w.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: created.GetKey().GetId()})
	if _, err := leaver.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a revoked key follows on: %v", err)
	}
}
