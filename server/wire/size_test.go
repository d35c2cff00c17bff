package wire_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/server/wire"
)

func request() *purserv1.CheckAndReserveRequest {
	return &purserv1.CheckAndReserveRequest{Account: "acme", IdempotencyKey: "k", Candidates: []string{"chat", "chat.small"},
		Ttl:       durationpb.New(-time.Nanosecond),
		Estimates: []*purserv1.Estimate{{Meter: "tokens", Quantity: -1, MinQuantity: proto.Int64(-1)}, {}},
		Labels:    map[string]string{"user": "ann", "": ""}}
}

func operation() *purserv1.Operation {
	return &purserv1.Operation{Id: 1 << 63, Timeout: durationpb.New(-time.Hour),
		Call: &purserv1.Operation_CheckAndReserve{CheckAndReserve: request()}}
}

// unknown is field 1000 with a text of 100 bytes.
var unknown = append([]byte{0xc2, 0x3e, 100}, strings.Repeat("x", 100)...)

func TestSize(t *testing.T) {
	for _, c := range []struct {
		name  string
		m     proto.Message
		exact bool // no bound can be given
	}{
		{"empty", &purserv1.CheckAndReserveRequest{}, false},
		{"request", request(), false},
		{"operation", operation(), false},
		{"operation without a call", &purserv1.Operation{Id: 1}, true},
		{"another call", &purserv1.Operation{Call: &purserv1.Operation_Commit{Commit: &purserv1.CommitRequest{Token: make([]byte, 90)}}}, true},
		{"another message", &purserv1.CommitRequest{Token: make([]byte, 90)}, true},
		{"unknown fields", with(request(), func(r *purserv1.CheckAndReserveRequest) proto.Message { return r }), true},
		{"unknown fields of an estimate", with(request(), func(r *purserv1.CheckAndReserveRequest) proto.Message { return r.Estimates[1] }), true},
		{"unknown fields of the TTL", with(request(), func(r *purserv1.CheckAndReserveRequest) proto.Message { return r.Ttl }), true},
		{"unknown fields of an operation", with(operation(), func(o *purserv1.Operation) proto.Message { return o }), true},
		{"unknown fields of a timeout", with(operation(), func(o *purserv1.Operation) proto.Message { return o.Timeout }), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			exact := proto.Size(c.m)
			got := wire.Size(c.m, 1<<20)
			if got < exact || c.exact && got != exact {
				t.Errorf("size %d of a message of %d bytes", got, exact)
			}
			if got := wire.Size(c.m, exact-1); got != exact {
				t.Errorf("size %d where the bound is too large, want %d", got, exact)
			}
		})
	}
}

// with gives a part of m unknown fields.
func with[M any](m M, part func(M) proto.Message) M {
	part(m).ProtoReflect().SetUnknown(unknown)
	return m
}
