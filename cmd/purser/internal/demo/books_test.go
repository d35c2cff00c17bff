package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// books is an authority that says what a test wants it to.
type books struct {
	events  []*purserv1.UsageEvent
	rollups int64
	total   int64
	debt    int64
}

// Invoke implements grpc.ClientConnInterface. Listings come in pages of one.
func (b *books) Invoke(_ context.Context, method string, request, reply any, _ ...grpc.CallOption) error {
	var answer proto.Message
	switch r := request.(type) {
	case *purserv1.GetRollupsRequest:
		answer = &purserv1.GetRollupsResponse{Rollups: []*purserv1.Rollup{{ChargedMicros: b.rollups}}, NextPageToken: "2"}
		if r.GetPageToken() == "2" {
			answer = &purserv1.GetRollupsResponse{}
		}
	case *purserv1.GetBalanceRequest:
		answer = &purserv1.GetBalanceResponse{Payer: r.GetAccount(), TotalMicros: b.total, DebtMicros: b.debt}
	case *purserv1.ListUsageEventsRequest:
		page := &purserv1.ListUsageEventsResponse{}
		if n := len(r.GetPageToken()); n < len(b.events) {
			page.UsageEvents = b.events[n : n+1]
			page.NextPageToken = r.GetPageToken() + "x"
		}
		answer = page
	default:
		return errors.New("unexpected call of " + method)
	}
	proto.Merge(reply.(proto.Message), answer)
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (b *books) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams")
}

func event(id string, charged int64, run string) *purserv1.UsageEvent {
	return &purserv1.UsageEvent{ReservationId: id, ChargedMicros: charged, Labels: map[string]string{"run": run, "request": "number of " + id}}
}

// TestCompare: the comparison finds what does not agree, and nothing else.
func TestCompare(t *testing.T) {
	committed := purserv1.ReservationState_RESERVATION_STATE_COMMITTED
	released := purserv1.ReservationState_RESERVATION_STATE_RELEASED
	for name, c := range map[string]struct {
		change func(*books, *Ledger)
		want   string // "" = all agrees
	}{
		"agreed":           {func(*books, *Ledger) {}, ""},
		"another run":      {func(b *books, _ *Ledger) { b.events = append(b.events, event("z", 5, "other")) }, ""},
		"debt counts":      {func(b *books, _ *Ledger) { b.total, b.debt = b.total+10, 10 }, ""},
		"charge differs":   {func(b *books, _ *Ledger) { b.events[0].ChargedMicros++ }, "charge of 300 micros, its usage event says 301"},
		"event lost":       {func(b *books, _ *Ledger) { b.events = b.events[1:] }, "there is no usage event"},
		"event twice":      {func(b *books, _ *Ledger) { b.events = append(b.events, b.events[0]) }, "its usage event says 600"},
		"event invented":   {func(b *books, _ *Ledger) { b.events = append(b.events, event("z", 5, "r")) }, "the client knows nothing of it"},
		"released charged": {func(b *books, _ *Ledger) { b.events = append(b.events, event("c", 5, "r")) }, "the client saw it"},
		"event misnamed":   {func(b *books, _ *Ledger) { b.events[0].ReservationId = "z" }, "its usage event names reservation z"},
		"event unnamed":    {func(b *books, _ *Ledger) { b.events[0].ReservationId = "" }, ""},
		"rollups":          {func(b *books, _ *Ledger) { b.rollups++ }, "the rollups say 701: +1"},
		"wallets":          {func(b *books, _ *Ledger) { b.total++ }, "the wallets say 699: -1"},
		"unsettled":        {func(_ *books, l *Ledger) { l.open("d", Entry{}) }, "the outcome of 1 settlements is unknown"},
		"refused": {func(_ *books, l *Ledger) { l.Settled(purser.Settled{Err: errors.New("too old")}) },
			"refused in the end: too old"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &books{rollups: 1000, total: 5000}
			reader := NewReader(b, []string{"acme"})
			before, err := reader.Read(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			l := NewLedger()
			for id, charged := range map[string]int64{"a": 300, "b": 400} {
				l.open(id, Entry{Request: "number of " + id, Account: "acme"})
				l.settled(id, purser.Receipt{State: committed, Charged: charged})
			}
			l.open("c", Entry{Request: "number of c", Account: "acme"})
			l.settled("c", purser.Receipt{State: released})
			b.events = []*purserv1.UsageEvent{event("a", 300, "r"), event("b", 400, "r")}
			b.rollups, b.total = 1700, 4300
			c.change(b, l)
			got, err := reader.Compare(t.Context(), l, "r", before, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(got.Findings, "\n")
			if c.want == "" && all != "" || !strings.Contains(all, c.want) {
				t.Errorf("findings = %q, want %q", all, c.want)
			}
		})
	}
}
