package storagetest

import (
	"time"

	"github.com/purser-io/purser/quota"
)

func reaperTests() []Test {
	return []Test{
		{"MarkDead", reaperMarkDead},
		{"MarkDeadWaitsForTheSkew", reaperSkew},
		{"BuryPredecessors", reaperBury},
		{"BuryKeepsWhatWasPromised", reaperPromise},
		{"CloseAfterIsWrittenOnce", reaperCrashLoop},
		{"ClosableAfterHold", reaperClosable},
		{"FenceAgain", reaperFence},
		{"CloseNeedsTheFence", reaperCloseOpen},
		{"CloseArithmetic", reaperArithmetic},
		{"CloseCountsForeignSettlements", reaperForeign},
		{"CloseByParts", reaperByParts},
		{"CloseExpiredGrant", reaperExpired},
		{"CloseVoidedGrant", reaperVoided},
		{"CloseWindow", reaperWindow},
		{"ClosePaysDebt", reaperPaysDebt},
		{"CloseBelievesNoProjection", reaperNoProjection},
		{"ExpireGrants", reaperExpireGrants},
		{"NextClose", reaperNextClose},
		{"FenceAllRefusesTheLiving", restoreRefused},
		{"FenceAllChargesLate", restoreLate},
	}
}

func reaperMarkDead(e *Env) {
	self, short := e.nodeFor(200*time.Millisecond, hold), e.nodeFor(200*time.Millisecond, hold)
	long := e.node()
	e.eventually("a lease that ran out is buried", func() bool {
		n, err := e.Store.MarkDead(e.ctx, self.ID, 0)
		e.must(err)
		return n == 1
	})
	e.check(e.Now() >= short.Grant.IssueUntil, "it was buried before its lease ran out")
	lanes := e.lanes()
	e.same("state of the dead", lanes[short.Lane].NodeState, quota.IncarnationDead)
	e.same("state of self", lanes[self.Lane].NodeState, quota.IncarnationLive)
	e.same("state of the living", lanes[long.Lane].NodeState, quota.IncarnationLive)
	n, err := e.Store.MarkDead(e.ctx, self.ID, 0)
	e.must(err)
	e.same("marked again", n, 0)
	_, err = e.Store.Renew(e.ctx, quota.Renewal{Incarnation: short.ID, Sequence: short.Grant.Sequence, Nonce: 1, Lease: lease, Hold: hold})
	e.refused(err, quota.ReasonFenced) // DEAD is final
}

// reaperSkew is R10: two clocks may differ by the skew each way.
func reaperSkew(e *Env) {
	self, short := e.node(), e.nodeFor(100*time.Millisecond, hold)
	e.eventually("the lease runs out", func() bool { return e.Now() > short.Grant.IssueUntil+int64(50*time.Millisecond) })
	n, err := e.Store.MarkDead(e.ctx, self.ID, time.Hour)
	e.must(err)
	e.same("buried within the skew", n, 0)
	n, err = e.Store.MarkDead(e.ctx, self.ID, 0)
	e.must(err)
	e.same("buried without skew", n, 1)
}

// reaperBury is R29: the holder of the file's lock needs no lease to run out.
func reaperBury(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	old := e.nodeFor(lease, 0)
	old.take("acme", 100)
	self := e.node()
	e.must(e.Store.BuryPredecessors(e.ctx, self.ID, 0))
	lanes := e.lanes()
	e.same("state of the predecessor", lanes[old.Lane].NodeState, quota.IncarnationDead)
	e.same("state of self", lanes[self.Lane].NodeState, quota.IncarnationLive)
	e.check(lanes[old.Lane].State == quota.LaneOpen, "its lane was closed on the lock alone")
	// Until its lanes close, what it promised is kept.
	self.settled(old.commit("acme", wallet(5)), quota.VerdictApplied)
	e.eventually("its lanes may be closed", func() bool { return len(e.closable(0)) == 2 })
}

func (e *Env) closable(skew time.Duration) []quota.LaneID {
	e.Helper()
	lanes, err := e.Store.Closable(e.ctx, skew, 100)
	e.must(err)
	return lanes
}

// reaperPromise is R31: who closes uses the row of the dead, never its own settings alone. A
// process started again with a shorter hold must not break what its predecessor promised.
func reaperPromise(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	old := e.nodeFor(time.Minute, 2*time.Hour)
	old.take("acme", 100)
	self := e.node()
	before := e.Now()
	e.must(e.Store.BuryPredecessors(e.ctx, self.ID, time.Second))
	at, err := e.Store.NextClose(e.ctx, "acme")
	e.must(err)
	e.check(at >= before+int64(2*time.Hour), "it closes %s after its death, but had promised 2h", time.Duration(at-before))
	e.check(len(e.closable(0)) == 0, "lanes %v may be closed at once", e.closable(0))
}

// reaperCrashLoop: a process that starts again and again must not push out the close.
func reaperCrashLoop(e *Env) {
	const wait = 300 * time.Millisecond
	e.nodeFor(lease, wait)
	first := e.node()
	at := e.Now()
	e.must(e.Store.BuryPredecessors(e.ctx, first.ID, wait))
	next := e.node()
	e.eventually("the lanes of the first may be closed", func() bool {
		e.must(e.Store.BuryPredecessors(e.ctx, next.ID, time.Hour))
		return len(e.closable(0)) == 2
	})
	e.check(e.Now() >= at+int64(wait), "lanes may be closed after %d ns, want %s", e.Now()-at, wait)
}

// reaperClosable is R31: the row's own hold decides, and skew on top unless it was drained.
func reaperClosable(e *Env) {
	self, short := e.node(), e.nodeFor(50*time.Millisecond, 300*time.Millisecond)
	patient := e.nodeFor(50*time.Millisecond, time.Hour)
	e.eventually("both are dead", func() bool {
		_, err := e.Store.MarkDead(e.ctx, self.ID, 0)
		e.must(err)
		return e.lanes()[short.Lane].NodeState == quota.IncarnationDead && e.lanes()[patient.Lane].NodeState == quota.IncarnationDead
	})
	e.eventually("lanes may be closed", func() bool { return len(e.closable(0)) > 0 })
	e.check(e.Now() >= short.Grant.IssueUntil+int64(300*time.Millisecond), "closable before hold_until")
	e.same("closable", e.closable(0), []quota.LaneID{short.Lane, short.Guest})
	e.check(len(e.closable(time.Hour)) == 0, "skew of an hour, and yet closable")
	drained := e.node()
	drained.die()
	e.same("closable with skew", e.closable(time.Hour), []quota.LaneID{drained.Lane, drained.Guest})
	e.closeLane(drained.Lane)
	e.same("closable with one closed", e.closable(time.Hour), []quota.LaneID{drained.Guest})
	e.must(e.Store.Fence(e.ctx, drained.Guest))
	e.same("closable while closing", e.closable(time.Hour), []quota.LaneID{drained.Guest})
}

func reaperFence(e *Env) {
	n := e.node()
	for range 2 {
		e.must(e.Store.Fence(e.ctx, n.Lane))
		e.same("state", e.lanes()[n.Lane].State, quota.LaneClosing)
	}
	e.closeFenced(n.Lane)
	_ = e.Store.Fence(e.ctx, n.Lane) // Refused or passed over; closed is final.
	e.same("state", e.lanes()[n.Lane].State, quota.LaneClosed)
	done, err := e.Store.CloseLane(e.ctx, n.Lane, e.Now(), 10)
	e.must(err)
	e.check(done, "a closed lane is not done")
}

func reaperCloseOpen(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 100)
	done, err := e.Store.CloseLane(e.ctx, n.Lane, e.Now(), 10)
	e.check(!done || err != nil, "an open lane was closed")
	e.figures("acme", "one", 900, 100, 0, 0, 0, 0)
	n.append(n.commit("acme", wallet(100, part(a, 100))))
}

// reaperArithmetic is R22: spent is what the entries say, the rest goes home.
func reaperArithmetic(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	e.grant("acme", "two", 1000)
	n := e.node()
	got := n.drawn(n.draw("acme", n.want(1500, 1500)))[0].Allotments
	a, b := got[0], got[1]
	n.append(n.commit("acme", wallet(1100, part(a, 1000), part(b, 100))), ended(n.commit("acme"), quota.Released))
	n.append(n.commit("acme", wallet(30, part(b, 20))), ended(n.commit("acme"), quota.Expired))
	n.leave()
	e.figures("acme", "one", 0, 0, 1000, 0, 0, 0)
	e.figures("acme", "two", 880, 0, 120, 0, 0, 0)
	e.finish()
	e.figures("acme", "two", 870, 0, 120, 0, 0, 10)
}

func reaperForeign(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n, other := e.node(), e.node()
	a := n.take("acme", 400)
	n.append(n.commit("acme", wallet(70, part(a, 70))))
	other.settled(n.commit("acme", wallet(30, part(a, 30))), quota.VerdictApplied)
	n.leave()
	e.figures("acme", "one", 900, 0, 100, 0, 0, 0)
	// LATE now: nothing of it may be counted on the closed allotment.
	other.settled(n.commit("acme", wallet(50, part(a, 50))), quota.VerdictApplied)
	e.figures("acme", "one", 900, 0, 100, 0, 0, 0)
	e.finish(other)
	e.figures("acme", "one", 850, 0, 100, 0, 0, 50)
}

func reaperByParts(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	for range 5 {
		n.take("acme", 100)
	}
	e.must(e.Store.Fence(e.ctx, n.Lane))
	calls := 0
	for done := false; !done; calls++ {
		e.check(calls < 10, "the lane does not close")
		before := e.pot("acme", "g/one").Escrowed
		var err error
		done, err = e.Store.CloseLane(e.ctx, n.Lane, e.Now(), 2)
		e.must(err)
		e.check(before-e.pot("acme", "g/one").Escrowed <= 200, "a call closed more than its limit")
		e.balance()
	}
	e.check(calls >= 3, "5 allotments were closed in %d calls of at most 2", calls)
	e.same("state", e.lanes()[n.Lane].State, quota.LaneClosed)
	e.figures("acme", "one", 1000, 0, 0, 0, 0, 0)
}

// reaperExpired is R14: what has expired meanwhile never becomes available.
func reaperExpired(e *Env) {
	e.account("acme", "")
	g := e.newGrant("short", 1000)
	g.End = e.Now() + int64(time.Hour)
	_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", g)
	e.must(err)
	n := e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(100, part(a, 100))))
	e.must(e.Store.Fence(e.ctx, n.Lane))
	done, err := e.Store.CloseLane(e.ctx, n.Lane, g.End, 10)
	e.must(err)
	e.check(done, "not closed")
	e.figures("acme", "short", 700, 0, 100, 200, 0, 0)
}

func reaperVoided(e *Env) {
	e.account("acme", "")
	e.grant("acme", "gone", 1000)
	n := e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(100, part(a, 100))))
	_, err := e.Store.VoidGrant(e.ctx, e.mutation(), "acme", "gone")
	e.must(err)
	n.leave()
	e.figures("acme", "gone", 0, 0, 100, 0, 900, 0)
}

func reaperWindow(e *Env) {
	e.account("acme", "")
	n := e.node()
	w := e.day("acme", "daily", 100)
	a := n.takeWindow("acme", w, 60)
	n.append(n.commit("acme", slot(quota.PotBudget, 25, part(a, 25))))
	n.leave()
	e.taken("acme", w, 0, 25, 0)
	next := e.node()
	got := next.drawn(next.draw("acme", next.windowWant(w, 100, 100)))[0]
	e.check(len(got.Allotments) == 1 && got.Allotments[0].Amount == 75, "of 75 left drew %+v", got)
}

func reaperPaysDebt(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 300)
	n, other := e.node(), e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(100, part(a, 100))))
	other.settled(n.commit("acme", wallet(150)), quota.VerdictApplied)
	other.project()
	e.same("debt", e.debt("acme"), int64(150))
	n.leave()
	e.figures("acme", "one", 50, 0, 100, 0, 0, 150)
	e.same("debt", e.debt("acme"), int64(0))
	e.finish(other)
}

// reaperNoProjection: closing comes before the projector, and does not wait for it.
func reaperNoProjection(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	n := e.node()
	a := n.take("acme", 300)
	n.append(n.commit("acme", wallet(10, part(a, 10))))
	n.project()
	n.append(n.commit("acme", wallet(90, part(a, 90))))
	n.leave()
	e.figures("acme", "one", 900, 0, 100, 0, 0, 0)
	e.finish()
}

func reaperExpireGrants(e *Env) {
	e.account("acme", "")
	now := e.Now()
	for id, end := range map[string]int64{"a": now + 1e9, "b": now + 2e9, "c": now + 3e9, "later": now + 1e12} {
		g := e.newGrant(id, 100)
		g.End = end
		_, err := e.Store.CreateGrant(e.ctx, e.mutation(), "acme", g)
		e.must(err)
	}
	n := e.node()
	n.take("acme", 30) // of a, the first to burn
	expire := func(at int64, limit, want int) {
		e.Helper()
		got, err := e.Store.ExpireGrants(e.ctx, at, limit)
		e.must(err)
		e.same("expired", got, want)
	}
	expire(now+1e9-1, 10, 0)
	expire(now+5e9, 2, 2)
	expire(now+5e9, 2, 1)
	expire(now+5e9, 2, 0)
	e.figures("acme", "a", 0, 30, 0, 70, 0, 0)
	e.figures("acme", "b", 0, 0, 0, 100, 0, 0)
	e.figures("acme", "c", 0, 0, 0, 100, 0, 0)
	e.figures("acme", "later", 100, 0, 0, 0, 0, 0)
}

// reaperNextClose makes retry_after honest (R29).
func reaperNextClose(e *Env) {
	e.account("acme", "")
	e.account("other", "")
	e.grant("acme", "one", 1000)
	e.grant("other", "two", 1000)
	n, living := e.node(), e.node()
	n.take("acme", 100)
	living.take("other", 100)
	next := func(payer string) int64 {
		e.Helper()
		at, err := e.Store.NextClose(e.ctx, payer)
		e.must(err)
		return at
	}
	e.same("of the living", next("acme"), int64(0))
	until := e.Now() + int64(time.Hour)
	e.must(e.Store.Drain(e.ctx, n.ID, until))
	e.same("of the drained", next("acme"), until)
	e.same("of another payer", next("other"), int64(0))
	e.closeLane(n.Lane)
	e.same("after closing", next("acme"), int64(0))
}
