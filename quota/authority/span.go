package authority

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
)

// Names of spans and of what they carry. A request's own spans are reserve and settle; a draw
// and a flush serve many requests: they stand under the first of them that is sampled and
// link to all.
const (
	spanReserve = "reserve"
	spanSettle  = "settle"
	spanDraw    = "draw"
	spanFlush   = "flush"

	attrDecision    = attribute.Key("purser.decision") // allowed, denied
	attrReason      = attribute.Key("purser.denial.reason")
	attrFeature     = attribute.Key("purser.feature")
	attrHeld        = attribute.Key("purser.held_micros")
	attrPartial     = attribute.Key("purser.partial")
	attrReplayed    = attribute.Key("purser.replayed")
	attrState       = attribute.Key("purser.settlement.state")
	attrLate        = attribute.Key("purser.settlement.late")
	attrCharged     = attribute.Key("purser.charged_micros")
	attrUncovered   = attribute.Key("purser.uncovered_micros")
	attrPots        = attribute.Key("purser.draw.pots")
	attrDrawn       = attribute.Key("purser.draw.micros")
	attrLane        = attribute.Key("purser.lane") // own, guest
	attrBatch       = attribute.Key("purser.batch")
	attrRecords     = attribute.Key("purser.flush.records")
	attrErrorReason = attribute.Key("purser.error.reason")
)

// sampledSpan is the span of a request if it is sampled, else the zero value. It allocates
// nothing and takes no lock.
func (a *Authority) sampledSpan(ctx context.Context) (sc trace.SpanContext) {
	if a.deps.Tracer != nil {
		if found := trace.SpanContextFromContext(ctx); found.IsSampled() {
			sc = found
		}
	}
	return sc
}

// startSpan starts a span under a request's if that is sampled. Otherwise span is nil, ctx as it
// was, and it has cost a look into ctx.
func (a *Authority) startSpan(ctx context.Context, name string) (_ context.Context, span trace.Span) {
	if a.deps.Tracer == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, nil
	}
	return a.deps.Tracer.Start(ctx, name)
}

// contextOf is the context of what startSpan returned; zero if that is nil.
func contextOf(span trace.Span) (sc trace.SpanContext) {
	if span != nil {
		sc = span.SpanContext()
	}
	return sc
}

// shared records a span of work that was done for many, once it is over: under the first of
// the sampled spans it was done for, of which there is one at least, with links to all.
func (a *Authority) shared(name string, began time.Time, took time.Duration, of []trace.SpanContext, err error, attrs ...attribute.KeyValue) {
	links := make([]trace.Link, len(of))
	for i, sc := range of {
		links[i].SpanContext = sc
	}
	_, span := a.deps.Tracer.Start(trace.ContextWithSpanContext(context.Background(), of[0]), name,
		trace.WithTimestamp(began), trace.WithLinks(links...), trace.WithAttributes(attrs...))
	fail(span, err)
	span.End(trace.WithTimestamp(began.Add(took)))
}

// firstOf is the span that exemplars name.
func firstOf(spans []trace.SpanContext) (sc trace.SpanContext) {
	if len(spans) > 0 {
		sc = spans[0]
	}
	return sc
}

// spansOf are the sampled spans that wait for a batch's settlements.
func spansOf(batch []*escrow.Pending) (spans []trace.SpanContext) {
	for _, p := range batch {
		if r, ok := p.Reply.(*reply); ok && r.own.span != nil {
			spans = append(spans, *r.own.span)
		}
	}
	return spans
}

func endReserve(span trace.Span, d *quota.Decision, err error) {
	switch {
	case err != nil:
		fail(span, err)
	case d.Allowed:
		span.SetAttributes(attrDecision.String("allowed"), attrFeature.String(d.Feature), attrHeld.Int64(d.Held),
			attrPartial.Bool(d.Partial), attrReplayed.Bool(d.Replayed))
	default: // an answer, not an error
		span.SetAttributes(attrDecision.String("denied"), attrReason.String(d.Denial.Reason.String()))
	}
	span.End()
}

func endSettle(span trace.Span, r *quota.Receipt, err error) {
	if err != nil {
		fail(span, err)
	} else {
		span.SetAttributes(attrState.String(r.State.String()), attrLate.Bool(r.Late), attrReplayed.Bool(r.Replayed),
			attrCharged.Int64(r.Charged), attrUncovered.Int64(r.Uncovered))
	}
	span.End()
}

// fail marks a span as failed. The cause of a domain error may quote the store; only what is
// safe for callers goes into traces.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	text := "the operation failed; the log tells why"
	if e, ok := errors.AsType[*quota.Error](err); ok {
		text = e.Message
		span.SetAttributes(attrErrorReason.String(string(e.Reason)))
	}
	span.SetStatus(codes.Error, text)
}
