package cockroach

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// BenchmarkAppend is one flush in flight: a batch row of all records and an entry for each.
// The private server does not sync to disk: it is the cost of everything else.
func BenchmarkAppend(b *testing.B) {
	for _, records := range []int{1, 64, 256, 512} {
		b.Run(fmt.Sprint(records), func(b *testing.B) {
			u := testdb.PostgreSQL(b)
			if err := Migrate(b.Context(), u); err != nil {
				b.Fatal(err)
			}
			s, err := Open(b.Context(), Options{URL: u})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			const lane = quota.LaneID(7)
			testdb.Exec(b, u, "INSERT INTO lanes (lane_id, incarnation_id, guest, state, gc_before, seal_time, create_time, close_time) VALUES (7, 'b', 0, 1, 0, 0, 0, 0)")
			next, no := 1, int64(1)
			for b.Loop() {
				batch := append(rows(lane, next, records, bytes.Repeat([]byte{7}, 40)),
					relational.JournalRow{Lane: int64(lane), Tag: relational.TagBatch, K1: no, Body: bytes.Repeat([]byte{7}, 200*records)})
				if n, err := s.Driver.Append(b.Context(), lane, batch); err != nil || n != int64(len(batch)) {
					b.Fatalf("appended %d: %v", n, err)
				}
				next, no = next+records, no+1
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
