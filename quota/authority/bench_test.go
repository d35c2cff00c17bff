package authority_test

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/quota/window"
	"github.com/purser-io/purser/storage/cockroach"
	"github.com/purser-io/purser/storage/faultstore"
)

// busy is a world with accounts that never run dry, each with a budget, and a request with
// three labels that touches three pots.
func busy(t testing.TB, accounts int, tracer trace.Tracer) (*node, []*quota.Request) {
	n := worldTraced(t, tracer)
	n.catalogue()
	return n, n.customers(accounts)
}

func (n *node) customers(accounts int) []*quota.Request {
	t := n.t
	requests := make([]*quota.Request, accounts)
	for i := range requests {
		id := fmt.Sprintf("acme-%d", i)
		n.newAccount(id, "", 1e15)
		n.newBudget(quota.Budget{Account: id, ID: "monthly", Cap: 1e15, Window: window.Month})
		n.newBudget(quota.Budget{Account: id, ID: "per-user", Cap: 1e15, Window: window.Day, LabelKey: "user"})
		requests[i] = chat(id, 100, 100)
		requests[i].Labels = labels(t, map[string]string{"user": "ann", "team": "search", "agent": "crawler"})
	}
	must(t, 0, n.Refresh(t.Context()))
	return requests
}

// BenchmarkReserve is a warm reserve through the shell; the holds are released off the clock.
func BenchmarkReserve(b *testing.B) { benchmarkReserve(b, b.Context(), nil) }

// BenchmarkReserveUnsampled is the same with traces on, of a request that is not sampled.
func BenchmarkReserveUnsampled(b *testing.B) { benchmarkReserve(b, caller(b, 1, 0), record().tracer()) }

func benchmarkReserve(b *testing.B, ctx context.Context, tracer trace.Tracer) {
	n, requests := busy(b, 1, tracer)
	const round = 1000
	open := make([]quota.Decision, round)
	reserve := func(i int) {
		if err := n.Reserve(ctx, gateway, requests[0], &open[i%round]); err != nil || !open[i%round].Allowed {
			b.Fatalf("reserve: %v, %+v", err, open[i%round].Denial)
		}
	}
	release := func(count int) {
		done := make(chan struct{}, count)
		for i := range count {
			go func() {
				_, err := n.Release(b.Context(), gateway, &quota.Settle{Token: open[i].Token})
				if err != nil {
					b.Errorf("release: %v", err)
				}
				done <- struct{}{}
			}()
		}
		for range count {
			<-done
		}
	}
	for range 3 {
		for i := range round {
			reserve(i)
		}
		release(round)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		reserve(i)
		if i%round == round-1 {
			b.StopTimer()
			release(round)
			b.StartTimer()
		}
	}
}

var gateway = gate()

// BenchmarkPairs reserves and durably commits, 1 024 in flight, and counts what that costs
// the database: every store operation is one transaction.
func BenchmarkPairs(b *testing.B) { onBoth(b, benchmarkPairs) }

// BenchmarkCold has a node that just began asked for 10 000 accounts at once, each once: how long
// the answers take, and what that costs the database.
func BenchmarkCold(b *testing.B) { onBoth(b, benchmarkCold) }

// beginning starts a node on the benchmark's database, with something between them.
type beginning func(wrap func(quota.Store) quota.Store) *node

// counted is a node whose store operations are counted.
func counted(b *testing.B, begin beginning) (*node, *faultstore.Store) {
	var calls *faultstore.Store
	n := begin(func(s quota.Store) quota.Store {
		calls = faultstore.New(s)
		return calls
	})
	return n, calls
}

func onBoth(b *testing.B, benchmark func(*testing.B, beginning)) {
	b.Run("sqlite", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "purser.db")
		benchmark(b, func(wrap func(quota.Store) quota.Store) *node { return open(b, path, roomy(), wrap) })
	})
	b.Run("postgresql", func(b *testing.B) {
		url := testdb.PostgreSQL(b)
		must(b, 0, cockroach.Migrate(b.Context(), url))
		c := roomy()
		c.Lanes = 4
		benchmark(b, func(wrap func(quota.Store) quota.Store) *node { return join(b, url, c, wrap) })
	})
}

// roomy is the default configuration; benchmarks do not crash nodes.
func roomy() authority.Config {
	c := authority.DefaultConfig()
	c.DrainFor = 0
	c.Embedded = true
	return c
}

func benchmarkPairs(b *testing.B, begin beginning) {
	n, calls := counted(b, begin)
	n.catalogue()
	requests := n.customers(1000)
	used := usage(100, 100)
	for _, accounts := range []int{1, len(requests)} {
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			var next atomic.Int64
			all, flushes := calls.Calls(faultstore.Any), calls.Calls("Append")
			b.ReportAllocs()
			b.SetParallelism(1024 / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				var d quota.Decision
				for pb.Next() {
					r := requests[next.Add(1)%int64(accounts)]
					if err := n.Reserve(b.Context(), gateway, r, &d); err != nil || !d.Allowed {
						b.Errorf("reserve: %v, %+v", err, d.Denial)
						return
					}
					if _, err := n.Commit(b.Context(), gateway, &quota.Settle{Token: d.Token, Usage: used}); err != nil {
						b.Errorf("commit: %v", err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "pairs/s")
			b.ReportMetric(float64(calls.Calls(faultstore.Any)-all)*1000/float64(b.N), "transactions/1000pairs")
			b.ReportMetric(float64(b.N)/float64(max(calls.Calls("Append")-flushes, 1)), "rows/flush")
		})
	}
}

func benchmarkCold(b *testing.B, begin beginning) {
	const accounts = 10_000
	n, _ := counted(b, begin)
	n.catalogue()
	for i := range accounts {
		n.newAccount(fmt.Sprintf("cold-%d", i), "", 1e15)
	}
	n.stop()
	var took []time.Duration
	transactions := 0
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		n, calls := counted(b, begin)
		before := calls.Calls("Profiles") + calls.Calls("Draw")
		b.StartTimer()
		took = append(took, atOnce(accounts, func(i int) {
			var d quota.Decision
			if err := n.Reserve(b.Context(), gateway, chat(fmt.Sprintf("cold-%d", i), 100, 100), &d); err != nil || !d.Allowed {
				b.Errorf("reserve: %v, %+v", err, d.Denial)
			}
		})...)
		b.StopTimer()
		transactions += calls.Calls("Profiles") + calls.Calls("Draw") - before
		n.stop()
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(transactions)/float64(accounts*b.N), "transactions/account")
}

// atOnce calls do for all numbers below many at the same time, and says how long each took.
func atOnce(many int, do func(int)) []time.Duration {
	took := make([]time.Duration, many)
	var all sync.WaitGroup
	ready := make(chan struct{})
	for i := range many {
		all.Go(func() {
			<-ready
			began := time.Now()
			do(i)
			took[i] = time.Since(began)
		})
	}
	close(ready)
	all.Wait()
	return took
}
