package escrow

import (
	"time"

	"github.com/purser-io/purser/quota"
)

// Instant is a reading of the node's clocks, both in ns: Wall by the local wall clock since
// 1970, Mono by a clock that never jumps, from any origin.
type Instant struct {
	Wall, Mono int64
}

// Bounds of how far wall and monotonic clock may drift apart between renewals before the node
// must suppose that it was suspended (R7).
const (
	leastJump = int64(50 * time.Millisecond) // wall clocks are corrected by less all the time
	mostJump  = int64(time.Second)
)

// Lease says whether an incarnation may issue. The zero value may not.
type Lease struct {
	length int64 // L
	skew   int64 // eps

	sequence   int64
	issueUntil int64   // database time
	deadline   int64   // local monotonic: stop issuing (R6)
	renewed    Instant // when the last successful renewal was sent
	unbroken   int64   // mono: renewed without a gap since
	polled     int64   // mono: last successful poll was sent
	deaf       bool    // no poll was sent since the last gap
	gap        int64   // mono: end of the last gap
	database   int64   // time of the database at renewed
	granted    bool
	ended      bool
}

// NewLease makes a lease of length l on nodes whose clocks agree within skew.
func NewLease(l, skew time.Duration) *Lease {
	return &Lease{length: int64(l), skew: int64(skew)}
}

// margin is what the local deadline stays ahead of the database's by.
func (l *Lease) margin() int64 { return min(l.skew, l.length/4) }

// jumped reports that the clocks drifted apart since the last renewal. A suspension that is
// not seen must not use up more than the margin of the deadline.
func (l *Lease) jumped(t Instant) bool {
	drift := (t.Wall - l.renewed.Wall) - (t.Mono - l.renewed.Mono)
	most := min(max(l.margin(), leastJump), mostJump)
	return drift > most || drift < -most
}

// Granted takes in the answer to a renewal that was sent at sent and answered at received.
func (l *Lease) Granted(g quota.LeaseGrant, sent, received Instant) {
	// Between the old end and this renewal's arrival nobody waited for this node (R32): what
	// it heard before does not count. When it arrived is not known, only that it was by now.
	lapsed := l.granted && (received.Mono >= l.deadline || l.jumped(received))
	if lapsed {
		l.deaf, l.gap = true, received.Mono
	}
	if !l.granted || lapsed {
		l.unbroken = sent.Mono // R30: a gap starts the count anew
	}
	l.granted = true
	l.sequence, l.issueUntil = g.Sequence, g.IssueUntil
	l.renewed = sent
	// R6: from before the renewal was sent, shortened for a slow clock and a margin.
	l.deadline = sent.Mono + l.length - l.length/1000 - l.margin()
	l.database = sent.Wall + offset(g.Now, sent, received)
}

// offset estimates database time - wall time; a difference within the uncertainty of the
// measurement is no difference.
func offset(now int64, sent, received Instant) int64 {
	half := (received.Mono - sent.Mono) / 2
	d := now - (sent.Wall + half)
	if d <= half && d >= -half {
		return 0
	}
	return d
}

// Polled notes a successful poll sent at sent: who did not hear of changes for a whole lease,
// or since its lease had run out, may not issue (R32).
func (l *Lease) Polled(sent Instant) {
	if l.deaf && sent.Mono < l.gap {
		return
	}
	l.deaf = false
	l.polled = max(l.polled, sent.Mono)
}

// End stops issuing for good: the incarnation is DEAD or draining.
func (l *Lease) End() { l.ended = true }

// MayIssue reports whether a token may be issued at t (I6).
func (l *Lease) MayIssue(t Instant) bool {
	if l.ended || !l.granted || l.deaf || t.Mono >= l.deadline || t.Mono >= l.polled+l.length {
		return false
	}
	return !l.jumped(t) // R7
}

// Left is for how long tokens may be issued from t on, in ns, unless it is renewed; 0 = not at
// all.
func (l *Lease) Left(t Instant) int64 {
	if !l.MayIssue(t) {
		return 0
	}
	return min(l.deadline, l.polled+l.length) - t.Mono
}

// MayBury reports whether the node may mark others dead: its own lease was renewed without a
// gap for one full length (R30).
func (l *Lease) MayBury(t Instant) bool {
	return l.MayIssue(t) && t.Mono-l.unbroken >= l.length
}

// Now estimates the database's time at t (R44). It goes by the monotonic clock: a wall clock
// set forward must not end holds before their promised time (I8).
func (l *Lease) Now(t Instant) int64 {
	if !l.granted {
		return t.Wall
	}
	return l.database + t.Mono - l.renewed.Mono
}

// Sequence is the compare-and-set value of the next renewal (R8).
func (l *Lease) Sequence() int64 { return l.sequence }

// IssueUntil is the end of the lease in database time.
func (l *Lease) IssueUntil() int64 { return l.issueUntil }
