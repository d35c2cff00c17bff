package storagetest

import (
	"time"

	"github.com/purser-io/purser/quota"
)

func (e *Env) fenceAll(force bool) (quota.Fenced, error) {
	e.Helper()
	store, ok := e.Store.(quota.RestoreStore)
	e.check(ok, "%T is no quota.RestoreStore", e.Store)
	return store.FenceAll(e.ctx, force)
}

// restoreRefused: a node whose lease runs would go on spending what has returned (I1).
func restoreRefused(e *Env) {
	short, long := e.nodeFor(200*time.Millisecond, hold), e.node()
	_, err := e.fenceAll(false)
	e.refused(err, quota.ReasonResourceInUse)
	lanes := e.lanes()
	e.check(lanes[short.Lane].State == quota.LaneOpen && lanes[long.Lane].State == quota.LaneOpen, "refused, and a lane is fenced: %v", lanes)
	done, err := e.fenceAll(true)
	e.must(err)
	e.same("fenced by force", done, quota.Fenced{Incarnations: 2, Lanes: 4})
	done, err = e.fenceAll(false)
	e.must(err)
	e.same("fenced again", done, quota.Fenced{})
}

// restoreLate: what old nodes had set aside comes home whole, and their tokens are charged
// behind it, once, from the pots and not from an allotment that may not be in the backup.
func restoreLate(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	old := e.node()
	token := old.commit("acme", wallet(5, part(old.take("acme", 100), 5)))
	_, err := e.fenceAll(true)
	e.must(err)
	e.same("lanes that may be closed", len(e.closable(0)), 2)
	e.closeFenced(old.Lane)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
	entry := e.node().settled(token, quota.VerdictApplied)
	e.same("phase of an old token's entry", entry.Phase, quota.PhaseLate)
	e.same("uncovered", entry.Uncovered, int64(5))
}
