package web

import (
	"context"
	"time"

	"google.golang.org/grpc/stats"
)

// observation tells gRPC's stats handlers of one call, as grpc.Server does, so that its span
// and its metrics are those of any other.
type observation struct {
	handlers []stats.Handler
	now      func() time.Time
	begun    time.Time
}

// observe begins a call; the context carries what the handlers left there.
func (m *method) observe(ctx context.Context, clientStreams, serverStreams bool) (context.Context, *observation) {
	o := &observation{handlers: m.stats, now: m.now}
	if len(o.handlers) == 0 {
		return ctx, o
	}
	o.begun = o.now()
	for _, h := range o.handlers {
		ctx = h.TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: m.name})
	}
	o.tell(ctx, &stats.Begin{BeginTime: o.begun, IsClientStream: clientStreams, IsServerStream: serverStreams})
	return ctx, o
}

func (o *observation) tell(ctx context.Context, what stats.RPCStats) {
	for _, h := range o.handlers {
		h.HandleRPC(ctx, what)
	}
}

// received and sent tell of messages; the length of one sent is not known here.
func (o *observation) received(ctx context.Context, message any, bytes int) {
	if len(o.handlers) > 0 {
		o.tell(ctx, &stats.InPayload{Payload: message, Length: bytes, RecvTime: o.now()})
	}
}

func (o *observation) sent(ctx context.Context, message any) {
	if len(o.handlers) > 0 {
		o.tell(ctx, &stats.OutPayload{Payload: message, SentTime: o.now()})
	}
}

// end ends the call; err is a status of gRPC.
func (o *observation) end(ctx context.Context, err error) {
	if len(o.handlers) > 0 {
		o.tell(ctx, &stats.End{BeginTime: o.begun, EndTime: o.now(), Error: err})
	}
}
