package event

import (
	"testing"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
)

func noon() time.Time { return time.Unix(1_700_000_000, 0) }

func request(account string) *quota.Request {
	return &quota.Request{Account: account, Candidates: []string{"chat"}}
}

func granted() *quota.Decision {
	return &quota.Decision{Allowed: true, Feature: "chat", Held: 5, Granted: []quota.Quantity{{Meter: "images", Quantity: 2}}}
}

func denied() *quota.Decision {
	return &quota.Decision{Denial: quota.Denial{Reason: quota.DeniedCredits}}
}

func follow(t *testing.T, f *Feed, want *purserv1.WatchEventsRequest) *reader {
	t.Helper()
	r, ok := f.join(want)
	if !ok {
		t.Fatal("no place for a reader")
	}
	return r
}

func kinds(m *purserv1.WatchEventsResponse) (out []string) {
	for _, e := range m.GetEvents() {
		out = append(out, e.GetAccount()+" "+e.GetKind().String()[len("EVENT_KIND_"):])
	}
	return out
}

func TestReadersGetWhatTheyAskedFor(t *testing.T) {
	f := NewFeed(noon)
	all := follow(t, f, &purserv1.WatchEventsRequest{})
	acme := follow(t, f, &purserv1.WatchEventsRequest{Account: "acme"})
	no := follow(t, f, &purserv1.WatchEventsRequest{DeniedOnly: true})
	other := follow(t, f, &purserv1.WatchEventsRequest{Feature: "embed"})
	f.Decided("gateway", request("acme"), granted())
	f.Decided("gateway", request("globex"), denied())
	again := granted()
	again.Replayed = true
	f.Decided("gateway", request("acme"), again)
	f.Extended("gateway", request("acme"), granted())
	f.Settled(&quota.Record{Account: "acme", Feature: "chat"}, &quota.Entry{Kind: quota.Committed, Charged: 7, Uncovered: 2})
	f.Settled(&quota.Record{Account: "acme", Feature: "chat"}, &quota.Entry{Kind: quota.Expired})
	for _, tt := range []struct {
		who  string
		r    *reader
		want []string
	}{
		{"all", all, []string{"acme RESERVED", "globex DENIED", "acme EXTENDED", "acme COMMITTED", "acme EXPIRED"}},
		{"one account", acme, []string{"acme RESERVED", "acme EXTENDED", "acme COMMITTED", "acme EXPIRED"}},
		{"denials", no, []string{"globex DENIED"}},
		{"another feature", other, nil},
	} {
		got := kinds(f.take(tt.r))
		if len(got) != len(tt.want) {
			t.Errorf("%s: %v, want %v", tt.who, got, tt.want)
			continue
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%s: %v, want %v", tt.who, got, tt.want)
			}
		}
	}
}

func TestASlowReaderMissesAndIsTold(t *testing.T) {
	f := NewFeed(noon)
	r := follow(t, f, &purserv1.WatchEventsRequest{})
	for range queueMost + 3 {
		f.Decided("gateway", request("acme"), granted())
	}
	seen, missed := 0, int64(0)
	for m := f.take(r); m != nil; m = f.take(r) {
		if len(m.GetEvents()) > messageMost {
			t.Fatalf("a message has %d events", len(m.GetEvents()))
		}
		seen += len(m.GetEvents())
		missed += m.GetMissed()
	}
	if seen != queueMost || missed != 3 {
		t.Errorf("read %d and missed %d, want %d and 3", seen, missed, queueMost)
	}
}

func TestReadersAreBounded(t *testing.T) {
	f := NewFeed(noon)
	if f.Watched() {
		t.Error("watched by nobody")
	}
	var last *reader
	for range readersMost {
		last = follow(t, f, &purserv1.WatchEventsRequest{})
	}
	if _, ok := f.join(&purserv1.WatchEventsRequest{}); ok {
		t.Errorf("reader %d was let in", readersMost+1)
	}
	f.leave(last)
	follow(t, f, &purserv1.WatchEventsRequest{})
	if !f.Watched() {
		t.Error("not watched")
	}
}

// Nobody is there: what happens on the hot path then costs nothing.
func TestUnwatchedCostsNothing(t *testing.T) {
	f := NewFeed(noon)
	if n := testing.AllocsPerRun(100, func() { f.Watched() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
