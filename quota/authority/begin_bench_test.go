package authority

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// BenchmarkBegin is what tracing adds to a request that is not sampled.
func BenchmarkBegin(b *testing.B) {
	unsampled := trace.ContextWithSpanContext(b.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
	for name, tracer := range map[string]trace.Tracer{"off": nil, "unsampled": noop.NewTracerProvider().Tracer("")} {
		b.Run(name, func(b *testing.B) {
			a := &Authority{deps: Deps{Tracer: tracer}}
			ctx, cancel := context.WithCancel(unsampled) // as a handler's: the span is some way up
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if _, span := a.startSpan(ctx, spanReserve); span != nil {
					b.Fatal("sampled")
				}
			}
		})
	}
}
