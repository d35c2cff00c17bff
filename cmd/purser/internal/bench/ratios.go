package bench

import (
	"fmt"

	"github.com/purser-io/purser/cmd/purser/internal/bench/report"
)

// floors are the design's for pairs next to naive, by kind of store: hot, many, and the same
// over Session. 0 = it says nothing.
var floors = map[string]struct{ hot, many, sessionHot, sessionMany float64 }{
	SQLite:     {hot: 1.5},
	PostgreSQL: {hot: 5, many: 1.5, sessionHot: 10, sessionMany: 3},
	Cockroach:  {hot: 20, many: 5},
}

// ratios compares what was measured.
func (b *bench) ratios() {
	divide := func(name, meaning, of, to string, floor float64) {
		b.report.Ratios = append(b.report.Ratios, report.NewRatio(name, meaning, b.rate(of), b.rate(to), floor, false))
	}
	floor := floors[b.Store.Kind]
	if b.wants(Reserve) {
		divide("reserve / echo with interceptors, hot", "what deciding, holding and signing leave of the same gRPC with the same authentication, tracing and metrics; 1 = nothing is lost.", reserveHot, echoChain, 0.80)
		divide("reserve / echo with interceptors, many", "the same over many accounts, whose credits have to be drawn from the store now and then.", reserveMany, echoChain, 0.80)
		divide("reserve / bare echo, hot", "the same next to gRPC without any interceptor.", reserveHot, echoBare, 0)
	}
	if b.wants(Latency) {
		most := 0.0 // what the design asks for, it asks at half load
		if b.Load == HalfLoad {
			most = 2
		}
		b.report.Ratios = append(b.report.Ratios, report.NewRatio("reserve p99 / echo p99",
			fmt.Sprintf("how much later than bare gRPC the slowest of a hundred answers comes, at %.0f %% of the rate that reserve can do; 1 = no later.", 100*b.Load),
			b.timed(latencyReserve).P99, b.timed(latencyEcho).P99, most, true))
	}
	if b.wants(Pairs) {
		divide("pairs / naive, hot", "reserve and durable commit, next to one transaction each for the same on the same store; all on one account, whose row everybody wants.", pairsHot, naiveHot, floor.hot)
		divide("pairs / naive, many", "the same with accounts enough that nobody waits for a row.", pairsMany, naiveMany, floor.many)
	}
	if b.wants(Session) {
		divide("session reserve / no-op session, hot", "what deciding leaves of a stream of 64 operations a message.", sessionHot, sessionNoop, 0.35)
		divide("session reserve / no-op session, many", "the same over many accounts.", sessionMany, sessionNoop, 0.35)
		divide("session pairs / naive, hot", "reserve and durable commit over a stream, next to one transaction each over single calls.", sessionPairsHot, naiveHot, floor.sessionHot)
		divide("session pairs / naive, many", "the same over many accounts.", sessionPairsMy, naiveMany, floor.sessionMany)
	}
	if b.wants(Commit) {
		b.report.Ratios = append(b.report.Ratios,
			report.NewRatio("commit p50 / one-row insert p50", "how long an acknowledgement takes with many in flight, next to a single durable insert by itself.",
				b.timed(commitAck).P50, b.timed(rowInsert).P50, 4, true),
			report.Figure("transactions per 1 000 pairs", "of the node on its store, with 1 024 commits in flight: draws, flushes, projections, polls and lease renewals, counted where it calls the store. One transaction each would be 2 000.",
				b.throughput(pairsWide).Transactions, 20, true))
	}
}
