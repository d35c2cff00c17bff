package server

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/purser-io/purser/quota/authority"
)

// statusCollector shows what the authority says of itself, asked anew for each scrape.
type statusCollector struct {
	status func() authority.Status
	gauges []statusGauge
	queued *prometheus.Desc
}

type statusGauge struct {
	desc  *prometheus.Desc
	value func(*authority.Status) float64
}

func newStatusCollector(status func() authority.Status) *statusCollector {
	c := &statusCollector{status: status}
	c.queued = prometheus.NewDesc("purser_settlements_queued",
		"Settlements that are not durable yet, by lane: its number, guest, or former for those of earlier incarnations.", []string{"lane"}, nil)
	add := func(name, help string, value func(*authority.Status) float64) {
		c.gauges = append(c.gauges, statusGauge{prometheus.NewDesc(name, help, nil, nil), value})
	}
	c.health(add)
	c.contents(add)
	return c
}

type addGauge func(name, help string, value func(*authority.Status) float64)

func (c *statusCollector) health(add addGauge) {
	add("purser_ready", "1 if this node takes new reservations.", func(s *authority.Status) float64 { return float64(bit(s.Ready)) })
	add("purser_lease_left_seconds", "For how long this node may go on issuing without renewing its lease.",
		func(s *authority.Status) float64 { return s.LeaseLeft.Seconds() })
	add("purser_former_incarnations", "Earlier incarnations of this process that still settle.",
		func(s *authority.Status) float64 { return float64(s.Former) })
	add("purser_revision", "Revision of the policy that this node has taken in.", func(s *authority.Status) float64 { return float64(s.Revision) })
	add("purser_lanes", "Lanes of the incarnation.", func(s *authority.Status) float64 { return float64(len(s.Lanes)) })
	add("purser_settle_queue_limit", "Most settlements that may wait in one lane.", func(s *authority.Status) float64 { return float64(s.SettleQueue) })
	add("purser_draws_queued", "Draws that wait for their turn.", func(s *authority.Status) float64 { return float64(s.DrawsQueued) })
	add("purser_draw_waiters", "Requests that wait for a draw.", func(s *authority.Status) float64 { return float64(s.DrawsWaiting) })
	add("purser_projection_lag_seconds", "For how long the oldest durable settlement has waited for the projector.",
		func(s *authority.Status) float64 { return s.ProjectionLag.Seconds() })
}

func (c *statusCollector) contents(add addGauge) {
	add("purser_reservations", "Live reservations issued here.", func(s *authority.Status) float64 { return float64(s.Reservations) })
	add("purser_reservations_limit", "Most live reservations on this node.", func(s *authority.Status) float64 { return float64(s.MaxReservations) })
	add("purser_accounts_cached", "Accounts in memory.", func(s *authority.Status) float64 { return float64(s.Accounts) })
	add("purser_allotments", "Allotments open here.", func(s *authority.Status) float64 { return float64(s.Allotments) })
	add("purser_limiters", "Counters of rate and concurrency limits in memory.", func(s *authority.Status) float64 { return float64(s.Limiters) })
	add("purser_free_micros", "Free in allotments of grants, in micros of a credit.", func(s *authority.Status) float64 { return float64(s.FreeMicros) })
	add("purser_held_micros", "Held by reservations, in micros of a credit.", func(s *authority.Status) float64 { return float64(s.HeldMicros) })
	add("purser_burn_micros_per_second", "Reserved from wallets less what came back, in micros of a credit per second, smoothed over 5 s.",
		func(s *authority.Status) float64 { return float64(s.BurnMicros) })
	add("purser_burn_ending_micros_per_second", "The part of the burn that is of wallets which last less than an hour at their present rate.",
		func(s *authority.Status) float64 { return float64(s.EndingMicros) })
}

// Describe implements prometheus.Collector.
func (c *statusCollector) Describe(out chan<- *prometheus.Desc) {
	out <- c.queued
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
	queue := func(lane string, n int) {
		out <- prometheus.MustNewConstMetric(c.queued, prometheus.GaugeValue, float64(n), lane)
	}
	for i, n := range s.LaneQueues {
		queue(strconv.Itoa(i), n)
	}
	queue("guest", s.GuestQueue)
	queue("former", s.FormerQueue)
}
