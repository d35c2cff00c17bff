package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/quota"
	engine "github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server/auditor"
	"github.com/purser-io/purser/server/session"
)

// Metrics counts what the authority and the server do, for Prometheus. It implements the
// Metrics interface of quota/authority: everything its hot path touches is resolved
// beforehand, so that counting neither blocks nor allocates.
type Metrics struct {
	registry *prometheus.Registry

	decisions [quota.DeniedCredits + 1]prometheus.Counter // by denial reason; 0 = allowed
	partial   prometheus.Counter
	replayed  prometheus.Counter

	extensions [quota.DeniedCredits + 1]prometheus.Counter // by denial reason; 0 = allowed
	unchanged  prometheus.Counter

	settled       [quota.Expired + 1][2]prometheus.Counter // by state, late
	settleSeconds prometheus.Observer
	charged       prometheus.Counter
	late          prometheus.Counter
	uncovered     prometheus.Counter
	unpriced      prometheus.Counter
	interims      prometheus.Counter
	belowInterim  prometheus.Counter

	draws       [2]prometheus.Counter // by failed
	drawSeconds prometheus.Observer
	drawPots    prometheus.Observer
	waitSeconds prometheus.Observer
	drawn       prometheus.Counter
	returned    prometheus.Counter

	flushes      [2][2]prometheus.Counter // by guest, failed
	flushSeconds [2]prometheus.Observer
	flushRows    [2]prometheus.Observer

	batches prometheus.Counter
	events  prometheus.Counter

	renewals [2]prometheus.Counter // by failed
	lost     prometheus.Counter

	sessions   prometheus.Gauge
	operations [session.Kinds]prometheus.Counter

	connections      *prometheus.GaugeVec   // by port
	refused          *prometheus.CounterVec // by port
	connectionsLimit prometheus.Gauge

	audits       [3]prometheus.Counter // balanced, findings, failed
	findings     prometheus.Gauge
	auditEnded   prometheus.Gauge
	auditSeconds prometheus.Gauge

	failed *prometheus.CounterVec
}

// NewMetrics makes metrics in a registry of their own, with those of the Go runtime and the
// process.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.decide()
	m.settle()
	m.store()
	m.lease()
	m.session()
	m.connect()
	m.audit()
	m.failed = m.counters("purser_call_errors_total", "Calls that failed, by gRPC code and reason; denials are no errors.", "code", "reason")
	for _, fault := range []quota.Reason{quota.ReasonInternal, quota.ReasonInvariantViolated} {
		m.failed.WithLabelValues(codes.Internal.String(), string(fault)) // there from the start, so that the first one is seen to come
	}
	return m
}

func (m *Metrics) decide() {
	decisions := m.counters("purser_decisions_total", "Decisions of CheckAndReserve, by the reason of the denial.", "decision", "reason")
	extensions := m.counters("purser_extensions_total", "Decisions of Extend, by the reason of the denial.", "decision", "reason")
	m.decisions[0], m.extensions[0] = decisions.WithLabelValues("allowed", ""), extensions.WithLabelValues("allowed", "")
	for r := quota.DeniedAccountUnknown; r <= quota.DeniedCredits; r++ {
		m.decisions[r], m.extensions[r] = decisions.WithLabelValues("denied", r.String()), extensions.WithLabelValues("denied", r.String())
	}
	m.unchanged = m.counter("purser_extensions_unchanged_total", "Extensions that asked for nothing that was not held and promised already.")
	m.partial = m.counter("purser_reservations_partial_total", "Reservations granted less than desired.")
	m.replayed = m.counter("purser_reservations_replayed_total", "Reservations answered again for the same idempotency key.")
}

func (m *Metrics) settle() {
	settled := m.counters("purser_settlements_total", "Settlements made durable through this node.", "state", "late")
	for k := range m.settled {
		for late, name := range [...]string{"false", "true"} {
			if k > 0 {
				m.settled[k][late] = settled.WithLabelValues(quota.SettleKind(k).String(), name)
			}
		}
	}
	m.settleSeconds = m.histograms("purser_settle_seconds", "Time from asking for a settlement to its being durable.", seconds()).WithLabelValues()
	m.charged = m.counter("purser_charged_micros_total", "Charged, in micros of a credit.")
	m.late = m.counter("purser_late_micros_total", "Charged late, behind an expiry, in micros of a credit; part of what was charged.")
	m.uncovered = m.counter("purser_uncovered_micros_total", "Charged beyond all allotments, in micros of a credit.")
	m.interims = m.counter("purser_interim_reports_total", "Interim commits made durable through this node.")
	m.belowInterim = m.counter("purser_settlements_below_interim_total", "Settlements of less than an interim commit had reported.")
	m.unpriced = m.counter("purser_unpriced_usage_total", "Usage lines whose price version has no price for the meter.")
}

func (m *Metrics) store() {
	rows := prometheus.ExponentialBuckets(1, 2, 13)
	draws := m.counters("purser_draws_total", "Transactions that move amounts from pots into allotments.", "failed")
	flushes := m.counters("purser_flushes_total", "Group commits of a lane's journal.", "lane", "failed")
	flushSeconds := m.histograms("purser_flush_seconds", "Time of a group commit.", seconds(), "lane")
	flushRows := m.histograms("purser_flush_records", "Records in a group commit.", rows, "lane")
	for f, failed := range [...]string{"false", "true"} {
		m.draws[f] = draws.WithLabelValues(failed)
		for g, lane := range [...]string{"own", "guest"} {
			m.flushes[g][f] = flushes.WithLabelValues(lane, failed)
			m.flushSeconds[g], m.flushRows[g] = flushSeconds.WithLabelValues(lane), flushRows.WithLabelValues(lane)
		}
	}
	m.drawSeconds = m.histograms("purser_draw_seconds", "Time of a draw, with all its attempts.", seconds()).WithLabelValues()
	m.drawPots = m.histograms("purser_draw_pots", "Pots asked in a draw.", prometheus.ExponentialBuckets(1, 2, 10)).WithLabelValues()
	m.waitSeconds = m.histograms("purser_draw_wait_seconds", "Time that requests waited for a draw.", seconds()).WithLabelValues()
	m.drawn = m.counter("purser_drawn_micros_total", "Drawn from grants into allotments, in micros of a credit.")
	m.returned = m.counter("purser_returned_micros_total", "Given back to grants unused, in micros of a credit.")
	m.batches = m.counter("purser_projected_batches_total", "Journal batches projected by this node.")
	m.events = m.counter("purser_usage_events_total", "Usage events written by this node.")
}

func (m *Metrics) session() {
	m.sessions = m.gauge("purser_sessions_open", "Streams of operations that are open.")
	operations := m.counters("purser_session_operations_total", "Operations received in sessions.", "operation")
	for k := session.CheckAndReserve; k < session.Kinds; k++ {
		m.operations[k] = operations.WithLabelValues(k.String())
	}
	m.operations[session.None] = operations.WithLabelValues("none")
}

func (m *Metrics) audit() {
	audits := m.counters("purser_audits_total", "Audits of the books that this node made beside its work.", "result")
	for i, result := range [...]string{"balanced", "findings", "failed"} {
		m.audits[i] = audits.WithLabelValues(result)
	}
	m.findings = m.gauge("purser_audit_findings", "What the last audit found wrong with the books.")
	m.auditEnded = m.gauge("purser_audit_timestamp_seconds", "When the last audit that could be done ended, in Unix time.")
	m.auditSeconds = m.gauge("purser_audit_seconds", "How long it took.")
}

func (m *Metrics) connect() {
	m.connections = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "purser_connections", Help: "Connections that are open, by port."}, []string{"port"})
	m.registry.MustRegister(m.connections)
	m.refused = m.counters("purser_connections_refused_total", "Connections that were closed at once because as many were open as may be.", "port")
	m.connectionsLimit = m.gauge("purser_connections_limit", "The most connections that may be open to each port.")
	for _, port := range [...]string{"grpc", "http"} {
		m.connections.WithLabelValues(port)
		m.refused.WithLabelValues(port)
	}
}

func (m *Metrics) lease() {
	renewals := m.counters("purser_lease_renewals_total", "Attempts to renew the lease.", "failed")
	for f, failed := range [...]string{"false", "true"} {
		m.renewals[f] = renewals.WithLabelValues(failed)
	}
	m.lost = m.counter("purser_leases_lost_total", "Incarnations of this node that lost their lease for good and were replaced.")
}

// seconds are the buckets of times: 0.125 ms to 16 s, each twice the one before.
func seconds() []float64 { return prometheus.ExponentialBuckets(0.000125, 2, 18) }

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// Registry is where the metrics are registered; others may add theirs.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Handler serves the metrics in Prometheus' format, and in OpenMetrics', which has exemplars,
// to who asks for that.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry, EnableOpenMetrics: true})
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Decided counts a decision: reason 0 = allowed.
func (m *Metrics) Decided(reason quota.DenialReason, partial, replayed bool) {
	if int(reason) < len(m.decisions) {
		m.decisions[reason].Inc()
	}
	if partial {
		m.partial.Inc()
	}
	if replayed {
		m.replayed.Inc()
	}
}

// Extended counts a decision about an extension: reason 0 = allowed.
func (m *Metrics) Extended(reason quota.DenialReason, unchanged bool) {
	if int(reason) < len(m.extensions) {
		m.extensions[reason].Inc()
	}
	if unchanged {
		m.unchanged.Inc()
	}
}

// Settled counts a settlement that became durable through this node.
func (m *Metrics) Settled(s engine.Settlement, span trace.SpanContext) {
	if s.Kind >= quota.Committed && s.Kind <= quota.Expired {
		m.settled[s.Kind][bit(s.Late)].Inc()
	}
	observe(m.settleSeconds, max(s.Took, 0).Seconds(), span)
	add(m.charged, s.Charged)
	if s.Late {
		add(m.late, s.Charged)
	}
	add(m.uncovered, s.Uncovered)
}

// Drew counts a draw's transaction.
func (m *Metrics) Drew(d engine.Drew, span trace.SpanContext) {
	m.draws[bit(d.Failed)].Inc()
	observe(m.drawSeconds, d.Took.Seconds(), span)
	m.drawPots.Observe(float64(d.Pots))
	add(m.drawn, d.Micros)
}

// Waited counts a request that waited for a draw.
func (m *Metrics) Waited(took time.Duration, span trace.SpanContext) {
	observe(m.waitSeconds, took.Seconds(), span)
}

// Returned counts what went back to grants unused, in micros.
func (m *Metrics) Returned(micros int64) { add(m.returned, micros) }

// Flushed counts a journal flush.
func (m *Metrics) Flushed(f engine.Flushed, span trace.SpanContext) {
	guest := bit(f.Guest)
	m.flushes[guest][bit(f.Failed)].Inc()
	observe(m.flushSeconds[guest], f.Took.Seconds(), span)
	m.flushRows[guest].Observe(float64(f.Rows))
}

// Projected counts batches projected.
func (m *Metrics) Projected(batches, events int) {
	add(m.batches, int64(batches))
	add(m.events, int64(events))
}

// Renewed counts an attempt to renew the lease.
func (m *Metrics) Renewed(failed bool) { m.renewals[bit(failed)].Inc() }

// Lost counts an incarnation that was replaced.
func (m *Metrics) Lost() { m.lost.Inc() }

// Audited takes in an audit of the books.
func (m *Metrics) Audited(r auditor.Result) {
	switch {
	case r.Err != nil:
		m.audits[2].Inc()
		return
	case r.Findings > 0:
		m.audits[1].Inc()
	default:
		m.audits[0].Inc()
	}
	m.findings.Set(float64(r.Findings))
	m.auditEnded.Set(float64(r.Ended.UnixNano()) / 1e9)
	m.auditSeconds.Set(r.Took.Seconds())
}

// add counts an amount. Statistics may be floats, which are exact to 2^53 micros; money is
// counted elsewhere. A counter panics on a negative amount, and none may take the node down.
func add(c prometheus.Counter, amount int64) {
	if amount > 0 {
		c.Add(float64(amount))
	}
}

// observe counts a value, with the trace of a sampled request that it is of, if there is one.
func observe(o prometheus.Observer, value float64, span trace.SpanContext) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && span.IsSampled() {
		e.ObserveWithExemplar(value, prometheus.Labels{"trace_id": span.TraceID().String(), "span_id": span.SpanID().String()})
		return
	}
	o.Observe(value)
}

// SessionsOpen adds to the number of streams open.
func (m *Metrics) SessionsOpen(change int) { m.sessions.Add(float64(change)) }

// SessionOperations counts operations received in sessions.
func (m *Metrics) SessionOperations(k session.Kind, n int) { m.operations[k].Add(float64(n)) }

// Interim counts a report of interim usage that became durable.
func (m *Metrics) Interim() { m.interims.Inc() }

// BelowInterim counts a settlement of less than was reported before.
func (m *Metrics) BelowInterim() { m.belowInterim.Inc() }

// Unpriced counts usage of a known meter that its price version has no price for.
func (m *Metrics) Unpriced() { m.unpriced.Inc() }

// Failed counts a call that failed.
func (m *Metrics) Failed(reason quota.Reason, code codes.Code) {
	m.failed.WithLabelValues(code.String(), string(reason)).Inc()
}
