package quotatest

import (
	"context"
	"time"

	"github.com/purser-io/purser/quota"
)

// Closable implements quota.ReaperStore.
func (db *DB) Closable(_ context.Context, skew time.Duration, limit int) (out []quota.LaneID, err error) {
	for _, l := range db.laneOrder {
		if l.state != quota.LaneClosed && db.mayClose(l.owner, 2*int64(skew)) && len(out) < limit {
			out = append(out, l.id)
		}
	}
	return out, nil
}

func (db *DB) mayClose(inc *incarnation, margin int64) bool {
	switch {
	case inc.state == quota.IncarnationLive:
		return false
	case db.Break.CloseEarly:
		return true
	case inc.state == quota.IncarnationDrained:
		return inc.holdUntil <= db.Now
	case inc.closeAfter != 0:
		return inc.closeAfter <= db.Now-margin
	}
	return inc.holdUntil <= db.Now-margin
}

// Fence implements quota.ReaperStore.
func (db *DB) Fence(_ context.Context, id quota.LaneID) error {
	return db.do(OpReap, func() error {
		if l := db.lanes[id]; l.state == quota.LaneOpen {
			db.Oracle.fenced(l)
			l.state = quota.LaneClosing
		}
		return nil
	})
}

// CloseLane implements quota.ReaperStore.
func (db *DB) CloseLane(_ context.Context, id quota.LaneID, now int64, limit int) (done bool, err error) {
	err = db.do(OpReap, func() error {
		l := db.lanes[id]
		if l.state == quota.LaneOpen {
			return db.violated("R22: lane %d is closed without a fence", id)
		}
		if l.state == quota.LaneClosed {
			done = true
			return nil
		}
		db.expireInterim(l)
		left := limit
		for _, no := range l.numbers {
			a := l.allotments[no]
			if a.Closed {
				continue
			}
			if left--; left < 0 {
				return nil
			}
			spent := l.spentOf(no)
			if db.Break.CloseByProjection {
				spent = db.projectedOf(l, no)
			}
			if spent > a.Amount {
				return db.violated("I2: allotment %d has %d and its entries charge %d", no, a.Amount, spent)
			}
			db.comeHome(db.pots[a.PotRef], a.Amount-spent, now)
			db.closeAllotment(a, spent)
		}
		l.state, done = quota.LaneClosed, true
		return nil
	})
	return done && err == nil, err
}

// spentOf sums what the lane's entries charge to an allotment (R22).
func (l *lane) spentOf(no quota.AllotmentNo) (sum int64) {
	for _, e := range l.entries {
		for _, p := range e.Parts {
			if quota.AllotmentNo(p.Allotment) == no {
				sum += p.Amount
			}
		}
	}
	return sum
}

// projectedOf sums what projected batches charge to an allotment.
func (db *DB) projectedOf(owner *lane, no quota.AllotmentNo) (sum int64) {
	for _, l := range db.laneOrder {
		for n := int64(1); n <= l.cursor; n++ {
			for _, r := range l.batches[n] {
				if r.Lane != owner.id {
					continue
				}
				for _, s := range r.Slots {
					for _, p := range s.Parts {
						if quota.AllotmentNo(p.Allotment) == no {
							sum += p.Amount
						}
					}
				}
			}
		}
	}
	return sum
}

// ExpireGrants implements quota.ReaperStore.
func (db *DB) ExpireGrants(_ context.Context, now int64, limit int) (count int, err error) {
	err = db.do(OpReap, func() error {
		for _, p := range db.potOrder {
			if p.Kind == quota.PotWallet && p.Available > 0 && p.End <= now && count < limit {
				p.Expired, p.Available = p.Expired+p.Available, 0
				count++
			}
		}
		return nil
	})
	return count, err
}

// NextClose implements quota.ReaperStore.
func (db *DB) NextClose(_ context.Context, payer string) (at int64, err error) {
	for _, l := range db.laneOrder {
		if l.owner.state == quota.IncarnationLive || !l.holdsOf(payer) {
			continue
		}
		end := l.owner.holdUntil
		if l.owner.closeAfter != 0 {
			end = l.owner.closeAfter
		}
		if at == 0 || end < at {
			at = end
		}
	}
	return at, nil
}

func (l *lane) holdsOf(payer string) bool {
	for _, a := range l.allotments {
		if a.Payer == payer && !a.Closed {
			return true
		}
	}
	return false
}
