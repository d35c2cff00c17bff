package escrow

import (
	"context"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// interim brings what a reservation has used so far to a node. Only its owner takes it in, and only
// while it holds it.
func (w *small) interim(n *smallNode, m move) {
	t := w.db.Oracle.Tokens()[m.on]
	used := int64(m.arg)
	x := w.noted(n, t, used)
	if x == nil {
		return
	}
	t.Reported = max(t.Reported, used)
	if m.late {
		w.post(letter{verb: interims, lane: t.Key.Lane, no: x.Number, records: []quota.Record{x.Record}})
		return
	}
	ended, err := w.db.Interim(context.Background(), t.Key.Lane, []quota.Interim{*x})
	if w.flaw.interimInMemory || err == nil && len(ended) == 0 {
		t.Floor = max(t.Floor, used)
	}
}

// noted is what the node has to make durable; nil if it takes nothing in.
func (w *small) noted(n *smallNode, t *quotatest.Issued, used int64) *quota.Interim {
	rec := w.record(t, quota.Committed, used)
	if n.lane != t.Key.Lane && w.flaw.interimElsewhere {
		rec.Kind, rec.Digest = quota.Expired, 0
		Foreign(&t.Token, &rec)
		return &quota.Interim{Record: rec, Number: 1 + max(w.db.InterimOf(t.Key), used)}
	}
	if x := n.shard.interims[t.Sequence]; w.flaw.interimDeltas && x != nil {
		rec = w.record(t, quota.Committed, used+x.Record.Charged())
	}
	status, _, x := n.shard.Interim(rec, nil)
	if status != Enqueue {
		return nil
	}
	return &x.Interim
}
