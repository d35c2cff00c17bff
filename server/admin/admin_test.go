package admin_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/caller"
)

type clock struct{}

func (clock) Now() time.Time { return time.Unix(100, 7) }

type refresher struct {
	calls int
	err   error
}

func (r *refresher) Refresh(context.Context) error { r.calls++; return r.err }

func desk(r *refresher) *admin.Desk {
	return &admin.Desk{Clock: clock{}, Refresher: r, Logger: slog.New(slog.DiscardHandler)}
}

func TestMutation(t *testing.T) {
	ctx := caller.NewContext(t.Context(), &authz.Principal{Name: "ops"})
	m, err := desk(nil).Mutation(ctx, &purserv1.CreateAccountRequest{Id: "acme", RequestId: "r1", ValidateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if m.Principal != "ops" || m.RequestID != "r1" || !m.ValidateOnly || m.Now != 100*int64(time.Second)+7 || m.Digest == [32]byte{} {
		t.Errorf("mutation = %+v", m)
	}
}

func TestDigestIsOfTheContent(t *testing.T) {
	digest := func(m admin.Write) [32]byte {
		d, err := admin.Digest(m)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	base := digest(&purserv1.CreateKeyRequest{Principal: "p", Labels: map[string]string{"a": "1", "b": "2", "c": "3"}, RequestId: "x"})
	for range 20 { // Maps are walked in random order; the digest must not be.
		if d := digest(&purserv1.CreateKeyRequest{Principal: "p", Labels: map[string]string{"c": "3", "a": "1", "b": "2"}, RequestId: "y"}); d != base {
			t.Fatal("the same content has another digest")
		}
	}
	if digest(&purserv1.CreateKeyRequest{Principal: "q", Labels: map[string]string{"a": "1", "b": "2", "c": "3"}}) == base {
		t.Error("other content has the same digest")
	}
	if digest(&purserv1.ResumeAccountRequest{Account: "a"}) == digest(&purserv1.SuspendAccountRequest{Account: "a"}) {
		t.Error("two methods have the same digest")
	}
	req := &purserv1.CreateKeyRequest{RequestId: "x"}
	digest(req)
	if req.RequestId != "x" {
		t.Error("the digest changed the request")
	}
}

func TestWritten(t *testing.T) {
	r := &refresher{err: errors.New("store away")}
	desk(r).Written(t.Context(), quota.Mutation{ValidateOnly: true})
	if r.calls != 0 {
		t.Error("refreshed after a write that changed nothing")
	}
	desk(r).Written(t.Context(), quota.Mutation{})
	if r.calls != 1 {
		t.Errorf("refreshed %d times", r.calls)
	}
}

func TestETag(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		bad  bool
	}{{"", 0, false}, {admin.ETag(42), 42, false}, {"0", 0, true}, {"-1", 0, true}, {"+7", 0, true}, {"007", 0, true}, {"x", 0, true}} {
		got, err := admin.ParseETag(c.in)
		if got != c.want || (err != nil) != c.bad || c.bad && !errors.Is(err, quota.ReasonRequestInvalid) {
			t.Errorf("%q: %d, %v", c.in, got, err)
		}
	}
}

func TestPagesCoverEverythingOnce(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	key := func(s *string) string { return *s }
	for size := 1; size <= 6; size++ {
		var got []string
		token := ""
		for pages := 0; ; pages++ {
			p, err := admin.PageOf(&purserv1.ListAccountsRequest{PageSize: int32(size), PageToken: token})
			if err != nil || pages > len(all) {
				t.Fatalf("size %d: page %d: %v", size, pages, err)
			}
			page, next := admin.After(all, p, key)
			if len(page) == 0 || len(page) > size {
				t.Fatalf("size %d: a page of %d", size, len(page))
			}
			got = append(got, page...)
			if token = next; token == "" {
				break
			}
		}
		if len(got) != len(all) || got[4] != "e" {
			t.Errorf("size %d: %v", size, got)
		}
	}
	if _, err := admin.PageOf(&purserv1.ListAccountsRequest{PageToken: "!"}); !errors.Is(err, quota.ReasonRequestInvalid) {
		t.Errorf("a token that is none: %v", err)
	}
	if p, _ := admin.PageOf(&purserv1.ListAccountsRequest{}); p.Size != admin.DefaultPageSize {
		t.Errorf("default size %d", p.Size)
	}
}

func TestTimes(t *testing.T) {
	if admin.Time(0) != nil || admin.Time(quota.Never) != nil {
		t.Error("a time for what does not happen")
	}
	if got := admin.Nanos(admin.Time(1234567890123456789), 0); got != 1234567890123456789 {
		t.Errorf("round trip: %d", got)
	}
	if admin.Nanos(nil, 5) != 5 || admin.Nanos(&timestamppb.Timestamp{}, 5) != 0 {
		t.Error("left out and 1970 are not the same")
	}
}
