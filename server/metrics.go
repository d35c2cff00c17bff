package server

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/quota"
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

	settled   [quota.Expired + 1][2]prometheus.Counter // by state, late
	charged   prometheus.Counter
	uncovered prometheus.Counter
	unpriced  prometheus.Counter

	draws       [2]prometheus.Counter // by failed
	drawSeconds prometheus.Observer
	drawPots    prometheus.Observer

	flushes      [2][2]prometheus.Counter // by guest, failed
	flushSeconds [2]prometheus.Observer
	flushRows    [2]prometheus.Observer

	batches prometheus.Counter
	events  prometheus.Counter
	lag     prometheus.Gauge

	sessions   prometheus.Gauge
	operations [session.Kinds]prometheus.Counter

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
	m.session()
	m.failed = m.counters("purser_call_errors_total", "Calls that failed, by gRPC code and reason; denials are no errors.", "code", "reason")
	return m
}

func (m *Metrics) decide() {
	decisions := m.counters("purser_decisions_total", "Decisions of CheckAndReserve, by the reason of the denial.", "decision", "reason")
	m.decisions[0] = decisions.WithLabelValues("allowed", "")
	for r := quota.DeniedAccountUnknown; r <= quota.DeniedCredits; r++ {
		m.decisions[r] = decisions.WithLabelValues("denied", r.String())
	}
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
	m.charged = m.counter("purser_charged_micros_total", "Charged, in micros of a credit.")
	m.uncovered = m.counter("purser_uncovered_micros_total", "Charged beyond all allotments, in micros of a credit.")
	m.unpriced = m.counter("purser_unpriced_usage_total", "Usage lines whose price version has no price for the meter.")
}

func (m *Metrics) store() {
	rows := prometheus.ExponentialBuckets(1, 2, 13)
	seconds := prometheus.ExponentialBuckets(0.000125, 2, 18)
	draws := m.counters("purser_draws_total", "Transactions that move amounts from pots into allotments.", "failed")
	flushes := m.counters("purser_flushes_total", "Group commits of a lane's journal.", "lane", "failed")
	flushSeconds := m.histograms("purser_flush_seconds", "Time of a group commit.", seconds, "lane")
	flushRows := m.histograms("purser_flush_records", "Records in a group commit.", rows, "lane")
	for f, failed := range [...]string{"false", "true"} {
		m.draws[f] = draws.WithLabelValues(failed)
		for g, lane := range [...]string{"own", "guest"} {
			m.flushes[g][f] = flushes.WithLabelValues(lane, failed)
			m.flushSeconds[g], m.flushRows[g] = flushSeconds.WithLabelValues(lane), flushRows.WithLabelValues(lane)
		}
	}
	m.drawSeconds = m.histograms("purser_draw_seconds", "Time of a draw.", seconds).WithLabelValues()
	m.drawPots = m.histograms("purser_draw_pots", "Pots asked in a draw.", prometheus.ExponentialBuckets(1, 2, 8)).WithLabelValues()
	m.batches = m.counter("purser_projected_batches_total", "Journal batches projected by this node.")
	m.events = m.counter("purser_usage_events_total", "Usage events written by this node.")
	m.lag = m.gauge("purser_projection_lag_seconds", "Age of the newest settlement in what was projected last.")
}

func (m *Metrics) session() {
	m.sessions = m.gauge("purser_sessions_open", "Streams of operations that are open.")
	operations := m.counters("purser_session_operations_total", "Operations received in sessions.", "operation")
	for k := session.CheckAndReserve; k < session.Kinds; k++ {
		m.operations[k] = operations.WithLabelValues(k.String())
	}
	m.operations[session.None] = operations.WithLabelValues("none")
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

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// Registry is where the metrics are registered; others may add theirs.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Handler serves the metrics in Prometheus' format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
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

// Settled counts a settlement that became durable through this node; amounts in micros.
func (m *Metrics) Settled(kind quota.SettleKind, late bool, charged, uncovered int64) {
	if kind >= quota.Committed && kind <= quota.Expired {
		m.settled[kind][bit(late)].Inc()
	}
	// Statistics may be floats, which are exact to 2^53 micros; money is counted elsewhere. A
	// counter panics on a negative amount, and none may take the node down.
	m.charged.Add(float64(max(charged, 0)))
	m.uncovered.Add(float64(max(uncovered, 0)))
}

// Drew counts a draw's transaction.
func (m *Metrics) Drew(pots int, took time.Duration, failed bool) {
	m.draws[bit(failed)].Inc()
	m.drawSeconds.Observe(took.Seconds())
	m.drawPots.Observe(float64(pots))
}

// Flushed counts a journal flush.
func (m *Metrics) Flushed(guest bool, rows int, took time.Duration, failed bool) {
	m.flushes[bit(guest)][bit(failed)].Inc()
	m.flushSeconds[bit(guest)].Observe(took.Seconds())
	m.flushRows[bit(guest)].Observe(float64(rows))
}

// Projected counts batches projected, and how old the newest settlement in them was.
func (m *Metrics) Projected(batches, events int, lag time.Duration) {
	m.batches.Add(float64(max(batches, 0)))
	m.events.Add(float64(max(events, 0)))
	m.lag.Set(lag.Seconds())
}

// SessionsOpen adds to the number of streams open.
func (m *Metrics) SessionsOpen(change int) { m.sessions.Add(float64(change)) }

// SessionOperations counts operations received in sessions.
func (m *Metrics) SessionOperations(k session.Kind, n int) { m.operations[k].Add(float64(n)) }

// Unpriced counts usage of a known meter that its price version has no price for.
func (m *Metrics) Unpriced() { m.unpriced.Inc() }

// Failed counts a call that failed.
func (m *Metrics) Failed(reason quota.Reason, code codes.Code) {
	m.failed.WithLabelValues(code.String(), string(reason)).Inc()
}
