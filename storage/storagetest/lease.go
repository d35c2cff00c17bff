package storagetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
)

func leaseTests() []Test {
	return []Test{
		{"Register", leaseRegister},
		{"RegisterAgain", leaseRegisterAgain},
		{"Renew", leaseRenew},
		{"RenewNeverShortens", leaseRenewShorter},
		{"RenewByCompareAndSet", leaseRenewCAS},
		{"RenewIsForTheLiving", leaseRenewDead},
		{"PollChanges", leasePollChanges},
		{"PollTruncated", leasePollTruncated},
		{"PollLiveNodes", leaseLiveNodes},
		{"PollWishes", leasePollWishes},
		{"Unacked", leaseUnacked},
		{"UnackedLeaseRanOut", leaseUnackedRanOut},
		{"Drain", leaseDrain},
	}
}

func (e *Env) lanes() map[quota.LaneID]quota.LaneRow {
	e.Helper()
	out := map[quota.LaneID]quota.LaneRow{}
	e.read(func(r quota.AuditReader) error {
		return r.Lanes(func(l quota.LaneRow) error {
			out[l.Lane] = l
			return nil
		})
	})
	return out
}

func leaseRegister(e *Env) {
	before := e.Now()
	n := e.node()
	after := e.Now()
	g := n.Grant
	// A microsecond is what PostgreSQL's time is precise to.
	e.check(g.Now >= before-1000 && g.Now <= after+1000, "the lease says that it is %d, it was %d to %d", g.Now, before, after)
	e.check(g.IssueUntil == g.Now+int64(lease), "issue until %d, want %d", g.IssueUntil, g.Now+int64(lease))
	lanes := e.lanes()
	e.same("lane", lanes[n.Lane], quota.LaneRow{Lane: n.Lane, Incarnation: n.ID, State: quota.LaneOpen, Node: "node-01", NodeState: quota.IncarnationLive})
	e.same("guest lane", lanes[n.Guest], quota.LaneRow{Lane: n.Guest, Incarnation: n.ID, State: quota.LaneOpen, Guest: true, Node: "node-01", NodeState: quota.IncarnationLive})
}

func leaseRegisterAgain(e *Env) {
	n := e.node()
	g, err := e.Store.Register(e.ctx, n.registration(lease, hold))
	e.must(err)
	e.same("sequence", g.Sequence, n.Grant.Sequence)
	e.check(len(e.lanes()) == 2, "lanes %+v", e.lanes())
	n.Grant = g
	_, err = e.Store.Renew(e.ctx, quota.Renewal{Incarnation: n.ID, Sequence: g.Sequence, Nonce: 1, Lease: lease, Hold: hold})
	e.must(err)
}

func leaseRenew(e *Env) {
	n := e.nodeFor(time.Minute, hold)
	r := quota.Renewal{Incarnation: n.ID, Sequence: n.Grant.Sequence, Nonce: 5, Lease: 2 * time.Minute, Hold: hold}
	g, err := e.Store.Renew(e.ctx, r)
	e.must(err)
	e.check(g.Sequence == n.Grant.Sequence+1 && g.IssueUntil == g.Now+int64(2*time.Minute), "renewed to %+v", g)
	again, err := e.Store.Renew(e.ctx, r) // after an unknown outcome: same sequence, same nonce
	e.must(err)
	e.check(again.Sequence == g.Sequence && again.IssueUntil >= g.IssueUntil, "sent again: %+v, want as %+v", again, g)
}

func leaseRenewShorter(e *Env) {
	n := e.node()
	g, err := e.Store.Renew(e.ctx, quota.Renewal{Incarnation: n.ID, Sequence: n.Grant.Sequence, Nonce: 1, Lease: time.Second, Hold: time.Second})
	e.must(err)
	e.check(g.IssueUntil == n.Grant.IssueUntil, "a renewal moved issue_until from %d to %d", n.Grant.IssueUntil, g.IssueUntil)
}

// leaseRenewCAS is R8: a clone of the process loses.
func leaseRenewCAS(e *Env) {
	n := e.node()
	renew := func(sequence, nonce int64) error {
		_, err := e.Store.Renew(e.ctx, quota.Renewal{Incarnation: n.ID, Sequence: sequence, Nonce: nonce, Lease: lease, Hold: hold})
		return err
	}
	first := n.Grant.Sequence
	e.must(renew(first, 11))
	e.refused(renew(first, 12), quota.ReasonFenced)
	e.must(renew(first+1, 13))
	e.refused(renew(first, 11), quota.ReasonFenced)
	e.refused(renew(first+7, 14), quota.ReasonFenced)
}

func leaseRenewDead(e *Env) {
	n, dead := e.node(), e.node()
	dead.die()
	_, err := e.Store.Renew(e.ctx, quota.Renewal{Incarnation: dead.ID, Sequence: dead.Grant.Sequence, Nonce: 1, Lease: lease, Hold: hold})
	e.refused(err, quota.ReasonFenced)
	_, err = e.Store.Renew(e.ctx, quota.Renewal{Incarnation: "00000000000000000000000000000bad", Sequence: 1, Nonce: 1, Lease: lease, Hold: hold})
	e.refused(err, quota.ReasonFenced)
	_, err = e.Store.Renew(e.ctx, quota.Renewal{Incarnation: n.ID, Sequence: n.Grant.Sequence, Nonce: 1, Lease: lease, Hold: hold})
	e.must(err)
}

func (n *Node) pollSince(since, acked int64) quota.PollResult {
	n.Helper()
	p, err := n.Store.Poll(n.ctx, quota.PollRequest{Incarnation: n.ID, Since: since, Acked: acked, Lanes: []quota.LaneID{n.Lane}})
	n.must(err)
	return p
}

// leasePollChanges is R32: revisions have no gaps, and each says what it changed.
func leasePollChanges(e *Env) {
	n := e.node()
	start := n.pollSince(0, 0)
	e.check(start.Now > 0 && len(start.Changes) == 0, "first poll %+v", start)
	var want []quota.Change
	did := func(kind quota.ChangeKind, id string) {
		want = append(want, quota.Change{Revision: start.Revision + int64(len(want)) + 1, Kind: kind, ID: id})
	}
	e.account("acme", "")
	did(quota.ChangeAccount, "acme")
	_, err := e.Store.CreateFeature(e.ctx, e.mutation(), authz.Feature{ID: "chat", Kind: authz.FeatureBoolean})
	e.must(err)
	did(quota.ChangeCatalogue, "")
	_, revision, err := e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountSuspended, "x")
	e.must(err)
	did(quota.ChangeAccount, "acme")
	e.same("revision of the suspension", revision, want[2].Revision)
	_, err = e.Store.CreateKey(e.ctx, e.mutation(), authz.Key{ID: "0123456789abcdef", Role: authz.RoleGate, Principal: "p", ExpireTime: authz.Never})
	e.must(err)
	did(quota.ChangeKey, "0123456789abcdef")
	got := n.pollSince(start.Revision, 0)
	e.same("changes", got.Changes, want)
	e.check(got.Revision == want[3].Revision && !got.Truncated, "poll %+v", got)
	e.same("later changes", n.pollSince(want[1].Revision, 0).Changes, want[2:])
	e.check(len(n.pollSince(got.Revision, 0).Changes) == 0, "changes came again")
}

func leasePollTruncated(e *Env) {
	n := e.node()
	const changes = 1001
	for i := range changes {
		_, err := e.Store.CreateFeature(e.ctx, e.mutation(), authz.Feature{ID: fmt.Sprintf("f%d", i), Kind: authz.FeatureBoolean})
		e.must(err)
	}
	p := n.pollSince(0, 0)
	e.check(p.Truncated && p.Revision == changes, "truncated %t at revision %d after %d changes", p.Truncated, p.Revision, changes)
	p = n.pollSince(1, 0)
	e.check(!p.Truncated && len(p.Changes) == changes-1, "truncated %t with %d changes", p.Truncated, len(p.Changes))
	e.check(slices.IsSortedFunc(p.Changes, func(a, b quota.Change) int { return int(a.Revision - b.Revision) }), "changes out of order")
}

// leasePollWishes is protocol §3.2: what a node wishes for is read by the others that live, until
// it wishes for something else or does not live any more.
func leasePollWishes(e *Env) {
	one, two, three := e.node(), e.node(), e.node()
	wish := func(n *Node, pots ...quota.PotRef) []quota.PotRef {
		n.Helper()
		p, err := n.Store.Poll(n.ctx, quota.PollRequest{Incarnation: n.ID, Lanes: []quota.LaneID{n.Lane}, Wishes: pots})
		n.must(err)
		return p.Wishes
	}
	purse, window := quota.PotRef{Payer: "acme"}, quota.PotRef{Payer: `a "b"`, Pot: "b/team/cap/1/\"x\", ü"}
	e.check(len(wish(one, purse, window)) == 0, "the first poll saw wishes, or its own")
	e.same("wishes", wish(two, window), []quota.PotRef{purse, window})
	e.check(len(wish(three)) == 3, "the third node misses wishes")
	e.same("wishes", wish(one, purse), []quota.PotRef{window})
	e.same("wishes after they changed", wish(two), []quota.PotRef{purse})
	e.check(len(wish(one)) == 0 && len(wish(two)) == 0, "wishes that are over were seen")
	wish(one, purse)
	one.die()
	e.check(len(wish(two)) == 0, "the wish of a dead node was seen")
	_, err := two.Store.Poll(two.ctx, quota.PollRequest{Incarnation: two.ID, Wishes: make([]quota.PotRef, quota.MaxWishes+1)})
	e.check(err != nil, "more wishes than a node may have were taken")
}

func leaseLiveNodes(e *Env) {
	one, two := e.node(), e.node()
	short := e.nodeFor(300*time.Millisecond, hold)
	e.eventually("a lease runs out", func() bool { return e.Now() > short.Grant.IssueUntil+int64(50*time.Millisecond) })
	e.same("live nodes", one.poll().LiveNodes, 2)
	two.die()
	e.same("live nodes", one.poll().LiveNodes, 1)
}

func leaseUnacked(e *Env) {
	one, two := e.node(), e.node()
	e.account("acme", "")
	_, revision, err := e.Store.SetStatus(e.ctx, e.mutation(), "acme", quota.AccountSuspended, "x")
	e.must(err)
	unacked := func(want int) {
		e.Helper()
		n, err := e.Store.Unacked(e.ctx, revision)
		e.must(err)
		e.same("unacknowledged", n, want)
	}
	unacked(2)
	one.pollSince(revision, revision-1)
	unacked(2)
	one.pollSince(revision, revision)
	unacked(1)
	one.pollSince(revision, revision-1) // an old poll sent again takes nothing back
	unacked(1)
	two.die()
	unacked(0)
}

func leaseUnackedRanOut(e *Env) {
	e.nodeFor(300*time.Millisecond, hold)
	e.account("acme", "")
	e.eventually("the lease runs out", func() bool {
		n, err := e.Store.Unacked(e.ctx, 1)
		e.must(err)
		return n == 0
	})
}

func leaseDrain(e *Env) {
	n := e.node()
	until := e.Now() + int64(time.Hour)
	e.must(e.Store.Drain(e.ctx, n.ID, until))
	e.must(e.Store.Drain(e.ctx, n.ID, until)) // may be sent again
	row := e.lanes()[n.Lane]
	e.check(row.NodeState == quota.IncarnationDrained && row.State == quota.LaneOpen, "lane of a drained node: %+v", row)
	closable, err := e.Store.Closable(e.ctx, 0, 10)
	e.must(err)
	e.check(len(closable) == 0, "lanes %v may be closed before their tokens end", closable)
}
