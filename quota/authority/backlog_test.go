package authority

import (
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestBacklog: the lag grows while something waits and nothing is projected, and only then.
func TestBacklog(t *testing.T) {
	const own, dead = quota.LaneID(1), quota.LaneID(2)
	settled := func(no, at int64) []quota.Batch {
		return []quota.Batch{{No: no, Records: []quota.Record{{SettledAt: at}}}}
	}
	var b backlog
	durable := map[quota.LaneID]int64{}
	want := func(now, lag int64, what string) {
		t.Helper()
		if got := b.lag(now, durable); got != lag {
			t.Errorf("%s: lag %d, want %d", what, got, lag)
		}
	}
	b.start(100)
	want(150, 0, "nothing was ever settled")
	durable[own] = 1
	want(160, 60, "the projector has never run")

	b.listed(200, []quota.Cursor{{Lane: own}, {Lane: dead}})
	want(210, 110, "listed, not read")
	b.read(own, 210, settled(1, 190))
	want(220, 30, "read, not projected")
	want(500, 310, "the projector stands still")
	b.projected(own, 1)
	want(510, 0, "projected")
	durable[own] = 2
	b.read(own, 520, nil)
	want(530, 10, "a batch landed behind what was read")
	durable[own] = 1
	want(530, 0, "nothing waits")

	b.read(dead, 540, settled(7, 90))
	want(550, 460, "a dead node's lane waits")
	b.projected(dead, 7)
	b.read(dead, 560, nil)
	want(570, 0, "it is projected")
	b.read(dead, 580, settled(8, 575))
	b.listed(600, []quota.Cursor{{Lane: own, No: 5}})
	durable[own] = 5
	want(1000, 0, "another node finished the dead lane and moved this node's cursor")
	durable[3] = 1
	want(610, 10, "a new incarnation's lane is not listed yet")
}
