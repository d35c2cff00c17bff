package escrow

import (
	"context"
	"fmt"
	"time"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// verb is what a move does.
type verb uint8

// The first of them are a node's.
const (
	reserves verb = iota + 1 // a client asks node for a reservation
	extends                  // and for more on reservation on
	commits                  // a client commits reservation on at node, with usage arg
	releases                 // or releases it
	interims                 // or reports what it has used so far
	flushes                  // node sends its lane's batch
	settles                  // node sends its guest lane's batch
	draws                    // node sends its draw
	returns                  // node sends what goes home
	ticks                    // node records what has expired
	polls                    // node reads its notes

	projects // somebody projects the next batch of lane on
	lands    // letter on arrives
	crash    // the mortal node dies
	closing  // its lanes are closed
	passes   // the next moment comes; in the last the mortal node is marked dead and its lane is fenced
)

// move is one step.
type move struct {
	verb  verb
	node  uint8
	on    uint8
	arg   uint8
	older bool // with the token from before the extension
	late  bool // the write is still on its way when its sender gives up waiting
}

// String tells a move in words.
func (m move) String() string {
	how := ""
	if m.late {
		how = "; the write is on its way when the waiting ends"
	}
	with := ""
	if m.older {
		with = " with the token from before the extension"
	}
	n := names[m.node]
	switch m.verb {
	case reserves:
		return n + " is asked for a reservation"
	case extends:
		return fmt.Sprintf("%s is asked to extend r%d", n, m.on)
	case commits:
		return fmt.Sprintf("%s is asked to commit r%d%s, usage %d%s", n, m.on, with, m.arg, how)
	case releases:
		return fmt.Sprintf("%s is asked to release r%d%s%s", n, m.on, with, how)
	case interims:
		return fmt.Sprintf("%s is told that r%d has used %d so far%s", n, m.on, m.arg, how)
	case flushes:
		return n + " flushes its lane" + how
	case settles:
		return n + " flushes its guest lane" + how
	case draws:
		return n + " draws" + how
	case returns:
		return n + " returns what is free" + how
	case projects:
		return fmt.Sprintf("lane %d is projected by one batch%s", m.on, how)
	case lands:
		return fmt.Sprintf("late write %d lands", m.on)
	case ticks:
		return n + " records what expired"
	case polls:
		return n + " reads its notes"
	}
	return map[verb]string{crash: "A crashes", closing: "A's lanes are closed", passes: "a second passes"}[m.verb]
}

// free reports whether a move may stay out for ever: clients fall silent, late writes vanish, nobody
// has to crash.
func (m move) free() bool {
	switch m.verb {
	case reserves, extends, commits, releases, interims, lands, crash:
		return true
	}
	return m.late
}

// moves lists what can happen next. Some of it may turn out to change nothing.
func (w *small) moves(dst []move) []move {
	for i := range w.nodes {
		if w.nodes[i].alive {
			dst = w.nodeMoves(dst, uint8(i))
			dst = w.clientMoves(dst, uint8(i))
		}
	}
	for i := range w.letters {
		dst = append(dst, move{verb: lands, on: uint8(i)})
	}
	if w.projects || w.over() {
		for _, n := range w.nodes {
			for _, lane := range []quota.LaneID{n.lane, n.stray} {
				if batches, _ := w.db.Batches(context.Background(), w.db.Cursor(lane), 1); len(batches) > 0 {
					dst = w.write(dst, move{verb: projects, on: uint8(lane)})
				}
			}
		}
	}
	return w.deathMoves(dst)
}

// nodeMoves is what a node does by itself.
func (w *small) nodeMoves(dst []move, i uint8) []move {
	n := &w.nodes[i]
	if n.own.Len() > 0 {
		dst = w.write(dst, move{verb: flushes, node: i})
	}
	if n.guest.Len() > 0 {
		dst = w.write(dst, move{verb: settles, node: i})
	}
	if n.draw != nil {
		dst = w.write(dst, move{verb: draws, node: i})
	}
	if w.scope.returns && !n.own.Closed() && len(n.shard.byNo) > 0 {
		dst = w.write(dst, move{verb: returns, node: i})
	}
	due, noted := false, false
	for _, h := range n.shard.holds {
		if n.own.Closed() || h.settling != nil {
			continue
		}
		due = due || h.expires+smallGrace <= w.db.Now
		noted = noted || w.db.Oracle.Token(quota.EntryKey{Lane: n.lane, Sequence: h.sequence}).Settled()
	}
	if due {
		dst = append(dst, move{verb: ticks, node: i})
	}
	if noted {
		dst = append(dst, move{verb: polls, node: i})
	}
	return dst
}

// clientMoves is what clients may ask of a node.
func (w *small) clientMoves(dst []move, i uint8) []move {
	n := &w.nodes[i]
	tokens := w.db.Oracle.Tokens()
	mayIssue := n.lease.MayIssue(w.instant()) || w.flaw.lapsed
	if i != mortal { // so that it has time to see its reservations end
		mayIssue = w.twoIssue && w.moment < lastMoment
	}
	if mayIssue && len(tokens) < w.reservations {
		dst = append(dst, move{verb: reserves, node: i})
	}
	for r, t := range tokens {
		if mayIssue && w.scope.extends && t.Generation == 0 && n.lane == t.Key.Lane {
			dst = append(dst, move{verb: extends, node: i, on: uint8(r)})
		}
		if t.Answered() {
			continue
		}
		for _, older := range []bool{false, true}[:1+min(len(t.Older), 1)] {
			for _, u := range w.usages {
				dst = w.ask(dst, n, t, move{verb: commits, node: i, on: uint8(r), arg: uint8(u), older: older})
			}
			for _, u := range w.scope.interims {
				if n.holds(t) || w.flaw.interimElsewhere && !n.guest.Closed() {
					dst = w.write(dst, move{verb: interims, node: i, on: uint8(r), arg: uint8(u)})
				}
			}
			if w.releases || n.lane == t.Key.Lane {
				dst = w.ask(dst, n, t, move{verb: releases, node: i, on: uint8(r), older: older})
			}
		}
	}
	return dst
}

// ask lists the ways in which a call may go. A node writes at once what goes to its guest lane,
// if it does not wait for an earlier batch: to keep it would be no different from being asked later.
func (w *small) ask(dst []move, n *smallNode, t *quotatest.Issued, m move) []move {
	if n.holds(t) {
		if n.shard.holds[t.Sequence].settling != nil {
			return dst // it would wait for that
		}
		return append(dst, m)
	}
	if n.guest.Len() > 0 && !w.groups {
		return dst
	}
	return w.write(dst, m)
}

// holds reports whether the node would settle a reservation in its own lane.
func (n *smallNode) holds(t *quotatest.Issued) bool {
	return n.lane == t.Key.Lane && !n.own.Closed() && n.shard.holds[t.Sequence] != nil
}

// write lists the ways in which a write may end.
func (w *small) write(dst []move, m move) []move {
	dst = append(dst, m)
	if m.late = w.late > 0; m.late {
		dst = append(dst, m)
	}
	return dst
}

// deathMoves is time, and what becomes of the mortal node.
func (w *small) deathMoves(dst []move) []move {
	a := &w.nodes[mortal]
	if w.moment < lastMoment {
		dst = append(dst, move{verb: passes})
	}
	if w.crashes > 0 && a.alive {
		dst = append(dst, move{verb: crash})
	}
	if w.moment == lastMoment && !w.db.LaneOpen(a.lane) && !w.db.Cursor(a.lane).Closed {
		dst = append(dst, move{verb: closing})
	}
	return dst
}

// over reports that nothing is left to do but to project.
func (w *small) over() bool {
	if w.moment < lastMoment || w.nodes[mortal^1].guest.Len()+w.nodes[mortal^1].own.Len() > 0 {
		return false
	}
	return w.db.Cursor(w.nodes[mortal].stray).Closed
}

// do makes a move.
func (w *small) do(m move) {
	n, ctx := &w.nodes[m.node], context.Background()
	switch m.verb {
	case reserves:
		w.reserve(n)
	case extends:
		w.extend(n, w.db.Oracle.Tokens()[m.on])
	case commits:
		w.call(n, m, quota.Committed)
	case releases:
		w.call(n, m, quota.Released)
	case interims:
		w.interim(n, m)
	case flushes:
		w.flush(n, m.late)
	case settles:
		w.settle(n, m.late)
	case draws:
		w.sendDraw(n, m.late)
	case returns:
		w.giveBack(n, m.late)
	case projects:
		w.project(quota.LaneID(m.on), m.late)
	case lands:
		w.land(int(m.on))
	case ticks:
		w.tick(n)
	case polls:
		w.poll(n)
	case crash:
		w.nodes[mortal] = smallNode{lane: n.lane, stray: n.stray}
		w.crashes--
		if w.flaw.database.CloseEarly {
			w.reap(-time.Hour)
		}
	case closing:
		_, _ = w.db.CloseLane(ctx, n.lane, w.db.Now, 10)
		_ = w.db.Fence(ctx, n.stray)
		_, _ = w.db.CloseLane(ctx, n.stray, w.db.Now, 10)
		w.nodes[mortal] = smallNode{lane: n.lane, stray: n.stray} // all it could still do is to learn of it
	case passes:
		w.moment++
		w.db.Now += second
		w.rollOver()
		w.reap(0)
	}
	for i := 0; i < len(w.letters); {
		if w.dead(&w.letters[i]) {
			w.land(i)
		} else {
			i++
		}
	}
}
