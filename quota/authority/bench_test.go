package authority_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/window"
)

// busy is a world with accounts that never run dry, each with a budget, and a request with
// three labels that touches three pots.
func busy(t testing.TB, accounts int) (*node, []*quota.Request) {
	n := world(t)
	n.catalogue()
	requests := make([]*quota.Request, accounts)
	for i := range requests {
		id := fmt.Sprintf("acme-%d", i)
		n.account(id, "", 1e15)
		n.budget(quota.Budget{Account: id, ID: "monthly", Cap: 1e15, Window: window.Month})
		n.budget(quota.Budget{Account: id, ID: "per-user", Cap: 1e15, Window: window.Day, LabelKey: "user"})
		requests[i] = chat(id, 100, 100)
		requests[i].Labels = labels(t, map[string]string{"user": "ann", "team": "search", "agent": "crawler"})
	}
	return n, requests
}

// BenchmarkReserve is a warm reserve through the shell; the holds are released off the clock.
func BenchmarkReserve(b *testing.B) {
	n, requests := busy(b, 1)
	const round = 1000
	open := make([]quota.Decision, round)
	reserve := func(i int) {
		if err := n.Reserve(b.Context(), gateway, requests[0], &open[i%round]); err != nil || !open[i%round].Allowed {
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

func BenchmarkPairs(b *testing.B) {
	for _, accounts := range []int{1, 64} {
		b.Run(fmt.Sprintf("accounts=%d", accounts), func(b *testing.B) {
			n, requests := busy(b, accounts)
			used := usage(100, 100)
			var next atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(512) // group commit needs company
			start := time.Now()
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
			b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "pairs/s")
		})
	}
}
