package escrow

import (
	"maps"

	"github.com/purser-io/purser/quota"
)

// Interim usage (R23), as docs/verification.md lays it down, on a core that has none yet: the node's
// part of it is here.

// interim takes in what a reservation has used so far. Only its owner does, and only while it holds
// it: who writes EXPIRED must know.
func (w *small) interim(n *smallNode, m move) {
	t := w.db.Oracle.Tokens()[m.on]
	used := int64(m.arg)
	if h := n.shard.holds[t.Sequence]; n.lane == t.Key.Lane && h != nil {
		if h.settling != nil {
			return
		}
		n.interim = maps.Clone(n.interim)
		if n.interim == nil {
			n.interim = make(map[uint64]int64)
		}
		if w.flaw.interimDeltas {
			n.interim[t.Sequence] += used
		} else {
			n.interim[t.Sequence] = max(n.interim[t.Sequence], used)
		}
	}
	t.Reported = max(t.Reported, used)
	rec := w.record(t, quota.Committed, used)
	rec.Kind = quota.Expired
	Foreign(&t.Token, &rec)
	if m.late {
		w.post(letter{verb: interims, lane: t.Key.Lane, records: []quota.Record{rec}})
		return
	}
	if w.flaw.interimInMemory || w.db.Interim(&rec) {
		t.Floor = max(t.Floor, used)
	}
}

// expireUsed records what expired with usage: as settlements of that usage.
func (w *small) expireUsed(n *smallNode) {
	for _, t := range w.db.Oracle.Tokens() {
		h := n.shard.holds[t.Sequence]
		used := n.interim[t.Sequence]
		if t.Key.Lane != n.lane || h == nil || h.settling != nil || used == 0 || w.db.Now < h.expires+smallGrace {
			continue
		}
		rec := w.record(t, quota.Committed, used)
		rec.Kind = quota.Expired
		if _, x := n.shard.Settle(w.db.Now, rec, nil); x != nil {
			n.own.Push(x)
		}
	}
}
