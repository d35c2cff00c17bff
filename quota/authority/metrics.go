package authority

import (
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/quota"
)

// Metrics is told what happens. Calls come from the hot path: they must neither block nor
// allocate. A span is that of a sampled request among those concerned, for exemplars; it is
// the zero value if none was.
type Metrics interface {
	// Decided counts a decision: reason 0 = allowed.
	Decided(reason quota.DenialReason, partial, replayed bool)
	// Extended counts a decision about an extension: reason 0 = allowed; unchanged = there was
	// nothing to be done.
	Extended(reason quota.DenialReason, unchanged bool)
	// Settled counts a settlement that became durable through this node: amounts in micros,
	// and how long after it was asked for.
	Settled(s Settlement, span trace.SpanContext)
	// Drew counts a draw's transaction.
	Drew(d Drew, span trace.SpanContext)
	// Waited counts a request that waited for a draw.
	Waited(took time.Duration, span trace.SpanContext)
	// Returned counts amounts of grants, in micros, that went back to their pots unused.
	Returned(micros int64)
	// Flushed counts a journal flush.
	Flushed(f Flushed, span trace.SpanContext)
	// Projected counts batches projected.
	Projected(batches, events int)
	// Renewed counts an attempt to renew the lease.
	Renewed(failed bool)
	// Lost counts an incarnation that may not issue any more and is replaced.
	Lost()
	// Unpriced counts usage of a known meter that its price version has no price for.
	Unpriced()
	// Interim counts a report of interim usage that became durable.
	Interim()
	// BelowInterim counts a settlement that says that less was used than was reported before.
	BelowInterim()
}

// Settlement is a settlement that became durable.
type Settlement struct {
	Kind               quota.SettleKind
	Late               bool
	Charged, Uncovered int64 // micros
	Took               time.Duration
}

// Drew is a draw's transaction, with all its attempts.
type Drew struct {
	Pots   int   // asked
	Micros int64 // that came out of grants
	Took   time.Duration
	Failed bool
}

// Flushed is one attempt at a journal flush.
type Flushed struct {
	Guest  bool
	Rows   int
	Took   time.Duration
	Failed bool
}

type noMetrics struct{}

func (noMetrics) Decided(quota.DenialReason, bool, bool)  {}
func (noMetrics) Extended(quota.DenialReason, bool)       {}
func (noMetrics) Settled(Settlement, trace.SpanContext)   {}
func (noMetrics) Drew(Drew, trace.SpanContext)            {}
func (noMetrics) Waited(time.Duration, trace.SpanContext) {}
func (noMetrics) Returned(int64)                          {}
func (noMetrics) Flushed(Flushed, trace.SpanContext)      {}
func (noMetrics) Projected(int, int)                      {}
func (noMetrics) Renewed(bool)                            {}
func (noMetrics) Lost()                                   {}
func (noMetrics) Unpriced()                               {}
func (noMetrics) Interim()                                {}
func (noMetrics) BelowInterim()                           {}
