package storagetest

import (
	"fmt"

	"github.com/purser-io/purser/quota"
)

func settleTests() []Test {
	return []Test{
		{"Foreign", settleForeign},
		{"Notes", settleNotes},
		{"NotesToEveryOwner", settleNotesToEach},
		{"Judge", settleJudge},
		{"LateOnce", settleLateOnce},
		{"ClosedLane", settleClosedLane},
		{"ResendIsHarmless", settleResend},
		{"ResendAfterTheLaneClosed", settleResendClosed},
		{"NothingToWriteLeavesTheNumber", settleUnused},
		{"TwiceInOneBatch", settleTwice},
		{"GuestFenced", settleFenced},
		{"UnknownLane", settleUnknownLane},
	}
}

func settleForeign(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	owner, other := e.node(), e.node()
	a := owner.take("acme", 300)
	r := owner.commit("acme", wallet(50, part(a, 30)))
	got := other.settled(r, quota.VerdictApplied)
	e.same("entry", got, r.Entry(other.Guest, 1))
	e.same("entries", e.entries(), []quota.Entry{r.Entry(other.Guest, 1)})
	owner.leave()
	e.figures("acme", "one", 970, 0, 30, 0, 0, 0)
}

func (n *Node) poll(forget ...quota.Note) quota.PollResult {
	n.Helper()
	p, err := n.Store.Poll(n.ctx, quota.PollRequest{Incarnation: n.ID, Lanes: []quota.LaneID{n.Lane}, Forget: forget})
	n.must(err)
	return p
}

// settleNotes is R27: the owner learns what others settled, until it says that it knows.
func settleNotes(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	r, s := owner.commit("acme", wallet(5)), owner.commit("acme", wallet(6))
	other.settle(r, s)
	want := []quota.Note{{Lane: owner.Lane, Guest: other.Guest, BatchNo: 1, Entries: []quota.Entry{r.Entry(other.Guest, 1), s.Entry(other.Guest, 1)}}}
	for range 2 {
		e.same("notes", owner.poll().Notes, want)
	}
	e.check(len(other.poll().Notes) == 0, "a note reached another node: %+v", other.poll().Notes)
	e.check(len(owner.poll(want...).Notes) == 0, "a note came again though it was forgotten")
	t := owner.commit("acme", wallet(7))
	other.settled(t, quota.VerdictApplied)
	e.same("next notes", owner.poll(want...).Notes, []quota.Note{{Lane: owner.Lane, Guest: other.Guest, BatchNo: 2,
		Entries: []quota.Entry{t.Entry(other.Guest, 2)}}})
}

func settleNotesToEach(e *Env) {
	e.account("acme", "")
	one, two, other := e.node(), e.node(), e.node()
	r, s := one.commit("acme", wallet(5)), two.commit("acme", wallet(6))
	other.settle(r, s)
	for _, n := range []*Node{one, two} {
		notes := n.poll().Notes
		e.check(len(notes) == 1 && notes[0].Lane == n.Lane && len(notes[0].Entries) == 1, "notes of lane %d: %+v", n.Lane, notes)
	}
}

// settleJudge is the table of protocol §2.3, by way of the store: what stands in the journal,
// what comes, what becomes of it.
func settleJudge(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	const none = quota.SettleKind(0)
	for _, c := range []struct {
		stands    quota.SettleKind
		comes     quota.SettleKind
		delivered bool
		want      quota.Verdict
		late      bool
	}{
		{none, quota.Committed, false, quota.VerdictApplied, false},
		{none, quota.Released, false, quota.VerdictApplied, false},
		{none, quota.Expired, false, quota.VerdictApplied, false},
		{quota.Committed, quota.Committed, false, quota.VerdictSettled, false},
		{quota.Committed, quota.Committed, true, quota.VerdictSettled, false},
		{quota.Committed, quota.Released, false, quota.VerdictSettled, false},
		{quota.Committed, quota.Expired, false, quota.VerdictSettled, false},
		{quota.Released, quota.Committed, false, quota.VerdictSettled, false},
		{quota.Released, quota.Committed, true, quota.VerdictApplied, true},
		{quota.Released, quota.Released, false, quota.VerdictSettled, false},
		{quota.Expired, quota.Committed, false, quota.VerdictApplied, true},
		{quota.Expired, quota.Released, false, quota.VerdictSettled, false},
		{quota.Expired, quota.Expired, false, quota.VerdictSettled, false},
	} {
		name := fmt.Sprintf("%s comes upon %s, delivered %t", c.comes, c.stands, c.delivered)
		r := owner.commit("acme", wallet(7))
		var terminal quota.Entry
		switch c.stands {
		case none:
		case quota.Committed:
			owner.append(r)
			terminal = r.Entry(owner.Lane, owner.batch)
		default:
			was := ended(r, c.stands)
			owner.append(was)
			terminal = was.Entry(owner.Lane, owner.batch)
		}
		comes := charging(r, 9)
		if c.comes != quota.Committed {
			comes = ended(r, c.comes)
		}
		comes.Delivered = c.delivered
		got := other.settle(comes)[0]
		e.check(got.Verdict == c.want, "%s: verdict %d, want %d", name, got.Verdict, c.want)
		switch {
		case c.late:
			late := comes.Late(nil)
			e.same(name, got.Entry, late.Entry(other.Guest, other.guestBatch))
		case c.want == quota.VerdictApplied:
			e.same(name, got.Entry, comes.Entry(other.Guest, other.guestBatch))
		default:
			e.same(name, got.Entry, terminal)
		}
	}
}

// settleLateOnce is R15.
func settleLateOnce(e *Env) {
	e.account("acme", "")
	owner, one, two := e.node(), e.node(), e.node()
	r := owner.commit("acme", wallet(7))
	owner.append(ended(r, quota.Expired))
	late := one.settled(r, quota.VerdictApplied)
	e.check(late.Phase == quota.PhaseLate && late.Charged == 7 && late.Uncovered == 7, "LATE entry %+v", late)
	e.same("again", one.settled(r, quota.VerdictSettled), late)
	e.same("elsewhere", two.settled(charging(r, 8), quota.VerdictSettled), late)
	e.same("a release", two.settled(ended(r, quota.Released), quota.VerdictSettled), late)
	e.check(len(e.entries()) == 2, "entries %+v", e.entries())
}

// settleClosedLane is R26: closing counts as closed.
func settleClosedLane(e *Env) {
	e.account("acme", "")
	e.grant("acme", "one", 1000)
	for _, closed := range []bool{false, true} {
		owner, other := e.node(), e.node()
		a := owner.take("acme", 100)
		committed := owner.commit("acme", wallet(40, part(a, 40)))
		owner.append(committed)
		open, dropped := owner.commit("acme", wallet(30, part(a, 30))), owner.commit("acme", wallet(20, part(a, 20)))
		e.must(e.Store.Fence(e.ctx, owner.Lane))
		if closed {
			owner.closeFenced(owner.Lane)
		}
		e.same("settled before", other.settled(committed, quota.VerdictSettled), committed.Entry(owner.Lane, 1))
		other.settled(ended(dropped, quota.Released), quota.VerdictDropped)
		other.settled(ended(dropped, quota.Expired), quota.VerdictDropped)
		late := other.settled(open, quota.VerdictApplied)
		e.check(late.Phase == quota.PhaseLate && late.Uncovered == 30 && len(late.Parts) == 0, "LATE entry %+v", late)
		e.same("again", other.settled(open, quota.VerdictSettled), late)
		e.same("a release", other.settled(ended(open, quota.Released), quota.VerdictSettled), late)
		if !closed {
			owner.closeFenced(owner.Lane)
		}
	}
	e.figures("acme", "one", 920, 0, 80, 0, 0, 0)
	n := e.node()
	n.project()
}

// settleResend: after an unknown outcome the batch is sent again and gets the same answers.
func settleResend(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	settled := owner.commit("acme", wallet(3))
	owner.append(settled)
	expired := owner.commit("acme", wallet(4))
	owner.append(ended(expired, quota.Expired))
	batch := []quota.Record{owner.commit("acme", wallet(1)), charging(settled, 9), expired, ended(owner.commit("acme"), quota.Released)}
	first, used, err := e.Store.Settle(e.ctx, other.Guest, 1, batch)
	e.must(err)
	e.check(used, "the number was not used")
	entries := e.entries()
	for range 2 {
		again, used, err := e.Store.Settle(e.ctx, other.Guest, 1, batch)
		e.must(err)
		e.check(used, "sent again, the number is not used")
		e.same("sent again", again, first)
	}
	e.same("entries", e.entries(), entries)
	e.check(len(owner.poll().Notes) == 1, "notes %+v", owner.poll().Notes)
}

// settleResendClosed: a batch that landed is found again though the lane was closed since.
func settleResendClosed(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	batch := []quota.Record{owner.commit("acme", wallet(1)), ended(owner.commit("acme"), quota.Released)}
	first, _, err := e.Store.Settle(e.ctx, other.Guest, 1, batch)
	e.must(err)
	owner.closeLane(owner.Lane)
	again, used, err := e.Store.Settle(e.ctx, other.Guest, 1, batch)
	e.must(err)
	e.check(used, "sent again, the number is not used")
	e.same("sent again", again, first)
	e.check(len(e.entries()) == 2, "entries %+v", e.entries())
}

func settleUnused(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	r := owner.commit("acme", wallet(3))
	owner.append(r)
	_, used, err := e.Store.Settle(e.ctx, other.Guest, 1, []quota.Record{r})
	e.must(err)
	e.check(!used, "a batch that wrote nothing used its number: batches would be missing (R20)")
	_, used, err = e.Store.Settle(e.ctx, other.Guest, 1, []quota.Record{owner.commit("acme", wallet(4))})
	e.must(err)
	e.check(used, "the number was not used")
}

func settleTwice(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	r := owner.commit("acme", wallet(3))
	got := other.settle(r, charging(r, 5), ended(r, quota.Released))
	want := r.Entry(other.Guest, 1)
	e.same("fates", got, []quota.Settlement{{Verdict: quota.VerdictApplied, Entry: want},
		{Verdict: quota.VerdictSettled, Entry: want}, {Verdict: quota.VerdictSettled, Entry: want}})
	late := owner.commit("acme", wallet(3))
	got = other.settle(ended(late, quota.Expired), late, late)
	e.check(got[0].Verdict == quota.VerdictApplied && got[1].Verdict == quota.VerdictApplied && got[1].Entry.Phase == quota.PhaseLate &&
		got[2].Verdict == quota.VerdictSettled && got[2].Entry.Phase == quota.PhaseLate, "fates %+v", got)
}

func settleFenced(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	r := owner.commit("acme", wallet(3))
	e.must(e.Store.Fence(e.ctx, other.Guest))
	_, _, err := e.Store.Settle(e.ctx, other.Guest, 1, []quota.Record{r})
	e.refused(err, quota.ReasonFenced)
	e.check(len(e.entries()) == 0, "a fenced guest lane wrote %+v", e.entries())
}

// settleUnknownLane: what would decide is not there any more.
func settleUnknownLane(e *Env) {
	e.account("acme", "")
	owner, other := e.node(), e.node()
	lost := owner.commit("acme", wallet(3))
	lost.Lane = 987654
	got := other.settle(lost, owner.commit("acme", wallet(4)))
	e.check(got[0].Verdict == quota.VerdictTooOld && got[1].Verdict == quota.VerdictApplied, "fates %+v", got)
}
