package quotatest

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/purser-io/purser/quota"
)

// Register implements quota.LeaseStore.
func (db *DB) Register(_ context.Context, r quota.Registration) (g quota.LeaseGrant, err error) {
	err = db.do(OpLease, func() error {
		inc := db.incarnations[r.Incarnation]
		if inc != nil {
			g, err = db.extend(inc, r.Lease, r.Hold)
			return err
		}
		inc = &incarnation{id: r.Incarnation, state: quota.IncarnationLive, sequence: 1}
		db.incarnations[r.Incarnation] = inc
		for _, id := range append(slices.Clone(r.Lanes), r.Guest) {
			l := &lane{id: id, owner: inc, guest: id == r.Guest, state: quota.LaneOpen}
			db.lanes[id] = l
			db.laneOrder = append(db.laneOrder, l)
		}
		g, err = db.extend(inc, r.Lease, r.Hold)
		return err
	})
	return g, err
}

// extend raises a lease that is LIVE (R6, R31).
func (db *DB) extend(inc *incarnation, lease, hold time.Duration) (quota.LeaseGrant, error) {
	if inc.state != quota.IncarnationLive {
		return quota.LeaseGrant{}, fenced("the incarnation is not LIVE any more")
	}
	inc.issueUntil = max(inc.issueUntil, db.Now+int64(lease))
	inc.holdUntil = max(inc.holdUntil, inc.issueUntil+int64(hold))
	return quota.LeaseGrant{Sequence: inc.sequence, Now: db.Now, IssueUntil: inc.issueUntil}, nil
}

// Renew implements quota.LeaseStore.
func (db *DB) Renew(_ context.Context, r quota.Renewal) (g quota.LeaseGrant, err error) {
	err = db.do(OpLease, func() (err error) {
		inc := db.incarnations[r.Incarnation]
		if inc == nil || inc.sequence != r.Sequence && (inc.sequence != r.Sequence+1 || inc.nonce != r.Nonce) {
			return fenced("renewed by another holder") // R8
		}
		if inc.state == quota.IncarnationLive {
			inc.sequence, inc.nonce = r.Sequence+1, r.Nonce
		}
		g, err = db.extend(inc, r.Lease, r.Hold)
		return err
	})
	if err != nil {
		return quota.LeaseGrant{}, err
	}
	return g, nil
}

// Poll implements quota.LeaseStore.
func (db *DB) Poll(_ context.Context, p quota.PollRequest) (res quota.PollResult, err error) {
	p.Forget, p.Lanes, p.Wishes = slices.Clone(p.Forget), slices.Clone(p.Lanes), slices.Clone(p.Wishes)
	err = db.do(OpPoll, func() error {
		res = quota.PollResult{Now: db.Now, Revision: db.revision}
		for _, n := range p.Forget {
			l := db.lanes[n.Lane]
			l.notes = slices.DeleteFunc(l.notes, func(m quota.Note) bool { return m.Guest == n.Guest && m.BatchNo == n.BatchNo })
		}
		if inc := db.incarnations[p.Incarnation]; inc != nil {
			inc.acked, inc.wishes = max(inc.acked, p.Acked), p.Wishes
		}
		for id, inc := range db.incarnations {
			if inc.state == quota.IncarnationLive && inc.issueUntil > db.Now {
				res.LiveNodes++
				if id != p.Incarnation {
					res.Wishes = append(res.Wishes, inc.wishes...)
				}
			}
		}
		slices.SortFunc(res.Wishes, func(a, b quota.PotRef) int { return cmp.Or(cmp.Compare(a.Payer, b.Payer), cmp.Compare(a.Pot, b.Pot)) })
		for _, c := range db.changes {
			if c.Revision > p.Since {
				res.Changes = append(res.Changes, c)
			}
		}
		for _, id := range p.Lanes {
			res.Notes = append(res.Notes, db.lanes[id].notes...)
		}
		return nil
	})
	if err != nil {
		return quota.PollResult{}, err
	}
	return res, nil
}

// Drain implements quota.LeaseStore.
func (db *DB) Drain(_ context.Context, id string, holdUntil int64) error {
	return db.do(OpLease, func() error {
		inc := db.incarnations[id]
		switch {
		case inc != nil && inc.state == quota.IncarnationDrained:
			return nil
		case inc == nil || inc.state != quota.IncarnationLive:
			return fenced("the incarnation is not LIVE any more")
		}
		inc.state, inc.holdUntil = quota.IncarnationDrained, holdUntil
		return nil
	})
}

// Unacked implements quota.LeaseStore.
func (db *DB) Unacked(_ context.Context, revision int64) (count int, err error) {
	for _, inc := range db.incarnations {
		if inc.state == quota.IncarnationLive && inc.issueUntil > db.Now && inc.acked < revision {
			count++
		}
	}
	return count, nil
}

// MarkDead implements quota.ReaperStore.
func (db *DB) MarkDead(_ context.Context, self string, skew time.Duration) (count int, err error) {
	err = db.do(OpReap, func() error {
		for _, inc := range db.incarnations {
			if inc.id != self && inc.state == quota.IncarnationLive && inc.issueUntil < db.Now-2*int64(skew) {
				inc.state = quota.IncarnationDead
				count++
			}
		}
		return nil
	})
	return count, err
}

// BuryPredecessors implements quota.ReaperStore.
func (db *DB) BuryPredecessors(_ context.Context, self string, hold time.Duration) error {
	return db.do(OpReap, func() error {
		for _, inc := range db.incarnations {
			if inc.id != self && inc.state == quota.IncarnationLive {
				inc.state = quota.IncarnationDead
			}
			if inc.id != self && inc.state == quota.IncarnationDead && inc.closeAfter == 0 {
				inc.closeAfter = db.Now + int64(hold)
			}
		}
		return nil
	})
}
