package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purser-io/purser/quota/authority"
)

// statusCollector shows what the authority says of itself, asked anew for each scrape.
type statusCollector struct {
	status func() authority.Status
	gauges []statusGauge
}

type statusGauge struct {
	desc  *prometheus.Desc
	value func(*authority.Status) float64
}

func newStatusCollector(status func() authority.Status) *statusCollector {
	c := &statusCollector{status: status}
	add := func(name, help string, value func(*authority.Status) float64) {
		c.gauges = append(c.gauges, statusGauge{prometheus.NewDesc(name, help, nil, nil), value})
	}
	add("purser_ready", "1 if this node takes new reservations.", func(s *authority.Status) float64 { return float64(bit(s.Ready)) })
	add("purser_lanes", "Lanes of the incarnation.", func(s *authority.Status) float64 { return float64(len(s.Lanes)) })
	add("purser_issue_until_seconds", "Until when the incarnation may issue, as a unix time.",
		func(s *authority.Status) float64 { return float64(s.LeaseUntil.UnixNano()) / float64(time.Second) })
	add("purser_revision", "Revision of the policy that this node has taken in.", func(s *authority.Status) float64 { return float64(s.Revision) })
	add("purser_former_incarnations", "Earlier incarnations of this process that still settle.",
		func(s *authority.Status) float64 { return float64(s.Former) })
	add("purser_reservations", "Live reservations issued here.", func(s *authority.Status) float64 { return float64(s.Reservations) })
	add("purser_settlements_queued", "Settlements that are not durable yet.", func(s *authority.Status) float64 { return float64(s.Queued) })
	add("purser_accounts_cached", "Accounts in memory.", func(s *authority.Status) float64 { return float64(s.Accounts) })
	add("purser_allotments", "Allotments open here.", func(s *authority.Status) float64 { return float64(s.Allotments) })
	add("purser_limiters", "Counters of rate and concurrency limits in memory.", func(s *authority.Status) float64 { return float64(s.Limiters) })
	add("purser_free_micros", "Free in allotments of grants, in micros of a credit.", func(s *authority.Status) float64 { return float64(s.FreeMicros) })
	add("purser_held_micros", "Held by reservations, in micros of a credit.", func(s *authority.Status) float64 { return float64(s.HeldMicros) })
	return c
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(out chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		out <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *statusCollector) Collect(out chan<- prometheus.Metric) {
	s := c.status()
	for _, g := range c.gauges {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(&s))
	}
}
