package authority

import (
	"sync"

	"github.com/purser-io/purser/quota"
)

// backlog knows how long settlements have waited for the projector. The projector tells what
// it has reached; what is durable beyond that is asked of the lanes, so that a projector that
// stands still is seen as well.
type backlog struct {
	mu    sync.Mutex
	asked int64 // when lanes were listed last, or the node began; ns
	lanes map[quota.LaneID]reached
}

// reached is how far a lane is projected.
type reached struct {
	no      int64 // last batch projected
	at      int64 // all that was durable before is projected; ns
	waiting bool  // batches behind no were seen: what is known of lanes of other nodes
}

func (b *backlog) start(now int64) {
	b.asked, b.lanes = now, make(map[quota.LaneID]reached)
}

// listed takes in which lanes there were to project at a time. What is listed no longer is
// finished; a lane of this node's current incarnation always is listed.
func (b *backlog) listed(at int64, cursors []quota.Cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.lanes
	b.lanes = make(map[quota.LaneID]reached, len(cursors))
	for _, c := range cursors {
		r, ok := old[c.Lane]
		if !ok {
			r.at = b.asked
		}
		r.no = max(r.no, c.No)
		b.lanes[c.Lane] = r
	}
	b.asked = at
}

// read takes in what was read behind a cursor at a time.
func (b *backlog) read(l quota.LaneID, at int64, batches []quota.Batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.lanes[l]
	if r.waiting = len(batches) > 0; r.waiting && len(batches[0].Records) > 0 {
		at = batches[0].Records[0].SettledAt
	}
	r.at = at
	b.lanes[l] = r
}

// projected takes in that a lane is projected up to a batch.
func (b *backlog) projected(l quota.LaneID, no int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.lanes[l]
	r.no = max(r.no, no)
	b.lanes[l] = r
}

// lag is the age, in ns, of the oldest settlement that waits; durable are the last batches of
// this node's own lanes.
func (b *backlog) lag(now int64, durable map[quota.LaneID]int64) (lag int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for l, r := range b.lanes {
		last, own := durable[l]
		if own && last > r.no || !own && r.waiting {
			lag = max(lag, now-r.at)
		}
	}
	for l, last := range durable {
		if _, known := b.lanes[l]; !known && last > 0 {
			lag = max(lag, now-b.asked) // begun since
		}
	}
	return lag
}
