package relational

import (
	"context"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	selectWhoIssued = `SELECT l.state, l.gc_before, i.node, i.address, i.state FROM lanes l
JOIN incarnations i ON i.id = l.incarnation_id WHERE l.lane_id = $1`
	selectHowEnded = `SELECT k1, k2, body FROM journal WHERE lane_id = $1 AND tag = 2 AND k1 = $2 ORDER BY k2`
)

// Whereabouts see [quota.JournalStore].
func (s *Store) Whereabouts(ctx context.Context, lane quota.LaneID, sequence uint64) (w quota.Whereabouts, known bool, err error) {
	err = s.read(ctx, "find reservation", func(tx Tx) (err error) {
		w = quota.Whereabouts{}
		var state, issuer int16
		known, err = queryRow(ctx, tx, selectWhoIssued, []any{int64(lane)}, &state, &w.GCBefore, &w.Node, &w.Address, &issuer)
		if err != nil || !known {
			return err
		}
		w.Open, w.State = state == int16(quota.LaneOpen), quota.IncarnationState(issuer)
		err = each(ctx, tx, selectHowEnded, []any{int64(lane), int64(sequence)}, func(rows Rows) error {
			e, err := scanEntry(rows, lane)
			w.Entry = &e // the LATE one comes last
			return err
		})
		if err != nil {
			return fmt.Errorf("read entries: %w", err)
		}
		return nil
	})
	return w, known, err
}
