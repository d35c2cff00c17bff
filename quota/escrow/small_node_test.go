package escrow

import (
	"context"
	"slices"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// reap marks the mortal node dead and fences its lane as soon as that may be.
func (w *small) reap(skew time.Duration) {
	ctx := context.Background()
	_, _ = w.db.MarkDead(ctx, w.nodes[mortal^1].id, skew)
	lanes, _ := w.db.Closable(ctx, 0, 10)
	if slices.Contains(lanes, w.nodes[mortal].lane) {
		_ = w.db.Fence(ctx, w.nodes[mortal].lane)
	}
}

func (w *small) reserve(n *smallNode) {
	switch n.shard.Reserve(w.db.Now, w.request(n, 1), &w.out) {
	case Granted:
		w.db.Oracle.Issue(n.id, &w.out.Token, w.out.Quantity[:1])
	case Short:
		w.beginDraw(n)
	}
}

// extend raises a reservation to two tokens.
func (w *small) extend(n *smallNode, t *quotatest.Issued) {
	r := w.request(n, 2)
	switch n.shard.Extend(w.db.Now, t.Sequence, t.Nonce, r, &w.out) {
	case Granted:
		h := n.shard.holds[t.Sequence]
		end := h.expires
		for i := range w.out.next.taken {
			if w.out.next.taken[i].a.notAfter <= w.db.Now {
				w.db.Oracle.Violate("R34: an extension takes from an allotment whose time is over")
			}
		}
		n.shard.Extended(w.db.Now, r, &w.out)
		w.db.Oracle.Extend(n.id, &w.out.Token, []int64{2}, w.out.Quantity[:1])
		if w.flaw.oldEnd {
			h.expires = end
		}
	case Short:
		w.beginDraw(n)
	}
}

// beginDraw starts a draw of a fixed size: that it is never more than half is no matter of safety
// (TestHalfRuleIsNotSafety).
func (w *small) beginDraw(n *smallNode) {
	if n.draw != nil || n.drawn == w.scope.draws {
		return
	}
	n.drawn++
	if n.draw = n.shard.BeginDraw(w.db.Now, n.id, &w.out); n.draw == nil {
		return
	}
	for i := range n.draw.Wants {
		want := &n.draw.Wants[i]
		want.Amount, want.Floor, want.Least = w.drawn, w.drawn, 0
		if want.Kind != quota.PotWallet {
			want.Amount, want.Floor = w.wallet, w.wallet
		}
	}
}

func (w *small) sendDraw(n *smallNode, late bool) {
	if late {
		w.post(letter{verb: draws, lane: n.lane, draw: &n.draw.Draw})
		if w.flaw.drawGivenUp {
			n.shard.FailDraw(n.draw)
			n.draw = nil
		}
		return
	}
	results, _ := w.db.Draw(context.Background(), []quota.Draw{n.draw.Draw})
	if results[0].Err != nil {
		n.shard.FailDraw(n.draw)
	} else {
		n.shard.EndDraw(w.db.Now, n.draw, results[0].Drawn)
	}
	n.draw = nil
}

func (w *small) giveBack(n *smallNode, late bool) {
	if n.returning == nil {
		if n.returning = n.shard.BeginReturn(w.db.Now, true, 20); n.returning == nil {
			return
		}
	}
	if late {
		w.post(letter{verb: returns, lane: n.lane, shrinks: n.returning})
		return
	}
	err := w.db.Return(context.Background(), n.lane, n.returning)
	switch {
	case err == nil:
		n.shard.EndReturn(n.returning)
		n.returning = nil
	case fencedOff(err):
		n.returning = nil // what was going home does so with the lane
	}
}

func (w *small) tick(n *smallNode) {
	for _, x := range n.shard.Tick(w.db.Now) {
		if w.flaw.expireUnrecorded {
			x.Fate.Verdict = quota.VerdictApplied
			n.shard.Settled(x)
			continue
		}
		n.own.Push(x)
	}
}

func (w *small) poll(n *smallNode) {
	req := quota.PollRequest{Incarnation: n.id, Lanes: []quota.LaneID{n.lane}}
	res, _ := w.db.Poll(context.Background(), req)
	for i := range res.Notes {
		for j := range res.Notes[i].Entries {
			n.shard.Noted(&res.Notes[i].Entries[j])
		}
	}
	req.Forget = res.Notes
	_, _ = w.db.Poll(context.Background(), req)
}

// rollOver is what R13 forbids: at a window's end the node takes what is free there along into the
// next window.
func (w *small) rollOver() {
	if !w.flaw.rollsOver || w.db.Now%smallWindow != 0 {
		return
	}
	for i := range w.nodes {
		n := &w.nodes[i]
		if !n.alive {
			continue
		}
		p := n.shard.payerOf("org")
		r := w.request(n, 1)
		for _, pl := range n.shard.order {
			if pl.window == nil || pl.window.End > w.db.Now {
				continue
			}
			to := n.shard.poolOf(p.wallet, &r.Candidates[0].Claims[0])
			for _, a := range pl.allotments {
				a.pool, a.notAfter = to, to.window.End
			}
			to.allotments, pl.allotments = append(to.allotments, pl.allotments...), nil
		}
	}
}
