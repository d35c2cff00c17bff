package bench

import (
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/pricing"
)

// Rates are the catalogue's prices for the naive service.
func Rates() map[string]pricing.Rate {
	return map[string]pricing.Rate{"input_tokens": {PriceMicros: 2_000_000, Per: 1000}, "output_tokens": {PriceMicros: 1_000_000, Per: 1000}}
}

// TTL of the reservations.
const TTL = ttl

// FillRequest is the work as the node itself is asked for it, to be held as long as may be.
func FillRequest(longest time.Duration) quota.Request {
	labels, err := label.New(work().Labels)
	if err != nil {
		panic(err) // they are written above
	}
	return quota.Request{Candidates: []string{feature}, TTL: longest, Labels: labels,
		Estimates: []quota.Estimate{{Meter: "input_tokens", Quantity: inputTokens}, {Meter: "output_tokens", Quantity: outputTokens}}}
}

func work() *drive.Work {
	return &drive.Work{Feature: feature, TTL: ttl,
		Estimates: []*purserv1.Estimate{{Meter: "input_tokens", Quantity: inputTokens}, {Meter: "output_tokens", Quantity: outputTokens}},
		Usage:     []*purserv1.MeterQuantity{{Meter: "input_tokens", Quantity: inputTokens}, {Meter: "output_tokens", Quantity: outputTokens - 100}},
		Labels:    map[string]string{"user": "ann", "team": "search", "agent": "crawler"}}
}
