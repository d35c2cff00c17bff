package authority_test

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
)

// recorded are the spans of a node that begin under a caller's.
type recorded struct {
	*tracetest.SpanRecorder
	provider *sdktrace.TracerProvider
}

func record() *recorded {
	r := &recorded{SpanRecorder: tracetest.NewSpanRecorder()}
	r.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(r), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	return r
}

func (r *recorded) tracer() trace.Tracer { return r.provider.Tracer("test") }

// caller is a context with a span that the caller has sampled, or has not.
func caller(t testing.TB, no byte, flags trace.TraceFlags) context.Context {
	return trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{no}, SpanID: trace.SpanID{no}, TraceFlags: flags, Remote: true}))
}

// find is the ended span of a name in a caller's trace.
func (r *recorded) find(t *testing.T, no byte, name string) sdktrace.ReadOnlySpan {
	t.Helper()
	spans := r.Ended()
	i := slices.IndexFunc(spans, func(s sdktrace.ReadOnlySpan) bool {
		return s.Name() == name && s.SpanContext().TraceID() == trace.TraceID{no}
	})
	if i < 0 {
		t.Fatalf("no span %s in trace %d", name, no)
	}
	return spans[i]
}

func attributes(s sdktrace.ReadOnlySpan) map[string]any {
	m := make(map[string]any)
	for _, a := range s.Attributes() {
		m[string(a.Key)] = a.Value.AsInterface()
	}
	return m
}

// TestSpans: a sampled reserve has its draw below it, a sampled commit its flush, and a flush
// that serves two requests is linked to both.
func TestSpans(t *testing.T) {
	r := record()
	n := worldTraced(t, r.tracer())
	n.catalogue()
	n.newAccount("acme", "", 1e9)
	must(t, 0, n.Refresh(t.Context()))

	var d quota.Decision
	if err := n.Reserve(caller(t, 1, trace.FlagsSampled), gateway, chat("acme", 100, 100), &d); err != nil || !d.Allowed {
		t.Fatalf("reserve: %v, %+v", err, d.Denial)
	}
	eventually(t, func() bool { // the draw's span ends behind the answer
		return slices.ContainsFunc(r.Ended(), func(s sdktrace.ReadOnlySpan) bool { return s.Name() == "draw" })
	})
	reserve, draw := r.find(t, 1, "reserve"), r.find(t, 1, "draw")
	if reserve.Parent().SpanID() != (trace.SpanID{1}) || draw.Parent().SpanID() != reserve.SpanContext().SpanID() {
		t.Errorf("reserve stands under %v, draw under %v", reserve.Parent(), draw.Parent())
	}
	if a := attributes(reserve); a["purser.decision"] != "allowed" || a["purser.held_micros"] != d.Held {
		t.Errorf("reserve: %v", a)
	}
	if a := attributes(draw); a["purser.draw.micros"].(int64) < d.Held || len(draw.Links()) != 1 {
		t.Errorf("draw: %v, links %v", a, draw.Links())
	}

	if _, err := n.Commit(caller(t, 2, trace.FlagsSampled), gateway, &quota.Settle{Token: d.Token, Usage: usage(100, 100)}); err != nil {
		t.Fatal(err)
	}
	settle, flush := r.find(t, 2, "settle"), r.find(t, 2, "flush")
	if flush.Parent().SpanID() != settle.SpanContext().SpanID() || len(flush.Links()) != 1 ||
		flush.Links()[0].SpanContext.SpanID() != settle.SpanContext().SpanID() {
		t.Errorf("flush stands under %v, links %v", flush.Parent(), flush.Links())
	}
	if a := attributes(settle); a["purser.settlement.state"] != "COMMITTED" || a["purser.charged_micros"].(int64) <= 0 {
		t.Errorf("settle: %v", a)
	}

	// A denial is an answer; an error is one.
	denied := chat("acme", 1e9, 1e9)
	must(t, 0, n.Reserve(caller(t, 3, trace.FlagsSampled), gateway, denied, &d))
	s := r.find(t, 3, "reserve")
	if a := attributes(s); a["purser.decision"] != "denied" || a["purser.denial.reason"] != "CREDITS" || s.Status().Code == codes.Error {
		t.Errorf("denied: %v, %v", a, s.Status())
	}
	if _, err := n.Commit(caller(t, 4, trace.FlagsSampled), gateway, &quota.Settle{Token: []byte("no token")}); err == nil {
		t.Error("no token was settled")
	}
	s = r.find(t, 4, "settle")
	if a := attributes(s); a["purser.error.reason"] != "TOKEN_INVALID" || s.Status().Code != codes.Error {
		t.Errorf("failed: %v, %v", a, s.Status())
	}
}

// TestSharedFlushIsLinked: two sampled commits in one flush are linked to by its span.
func TestSharedFlushIsLinked(t *testing.T) {
	r := record()
	n := worldTraced(t, r.tracer())
	n.catalogue()
	n.newAccount("acme", "", 1e9)
	must(t, 0, n.Refresh(t.Context()))
	// Commits that come while a flush is in flight go together with the next; how many there are
	// is not known beforehand, so commit until two met.
	for no := byte(1); no < 200; no += 4 {
		done := make(chan error, 4)
		for i := range byte(4) {
			go func() {
				var d quota.Decision
				err := n.Reserve(t.Context(), gateway, chat("acme", 10, 10), &d)
				if err == nil {
					_, err = n.Commit(caller(t, no+i, trace.FlagsSampled), gateway, &quota.Settle{Token: d.Token, Usage: usage(10, 10)})
				}
				done <- err
			}()
		}
		for range 4 {
			must(t, 0, <-done)
		}
		for _, s := range r.Ended() {
			if s.Name() != "flush" || len(s.Links()) < 2 {
				continue
			}
			if first := s.Links()[0].SpanContext; s.Parent().SpanID() != first.SpanID() || s.SpanContext().TraceID() != first.TraceID() {
				t.Errorf("the flush stands under %v, not under the first it serves, %v", s.Parent(), first)
			}
			return
		}
	}
	t.Fatal("no flush had two sampled commits in it")
}
