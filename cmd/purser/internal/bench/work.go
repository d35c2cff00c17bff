package bench

import (
	"github.com/purser-io/purser/cmd/purser/internal/bench/drive"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/pricing"
)

// Rates are the catalogue's prices for the naive service.
func Rates() map[string]pricing.Rate {
	return map[string]pricing.Rate{"input_tokens": {PriceMicros: 2_000_000, Per: 1000}, "output_tokens": {PriceMicros: 1_000_000, Per: 1000}}
}

// TTL of the reservations.
const TTL = ttl

func work() *drive.Work {
	return &drive.Work{Feature: feature, TTL: ttl,
		Estimates: []*purserv1.Estimate{{Meter: "input_tokens", Quantity: inputTokens}, {Meter: "output_tokens", Quantity: outputTokens}},
		Usage:     []*purserv1.MeterQuantity{{Meter: "input_tokens", Quantity: inputTokens}, {Meter: "output_tokens", Quantity: outputTokens - 100}},
		Labels:    map[string]string{"user": "ann", "team": "search", "agent": "crawler"}}
}
