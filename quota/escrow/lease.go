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

// clockJump is how far wall and monotonic clock may drift apart between renewals before the
// node must suppose that it was suspended (R7).
const clockJump = int64(time.Second)

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
	offset     int64   // database time - local wall clock
	granted    bool
	ended      bool
}

// NewLease makes a lease of length l on nodes whose clocks agree within skew.
func NewLease(l, skew time.Duration) *Lease {
	return &Lease{length: int64(l), skew: int64(skew)}
}

// Granted takes in the answer to a renewal that was sent at sent and answered at received.
func (l *Lease) Granted(g quota.LeaseGrant, sent, received Instant) {
	if !l.granted || sent.Mono >= l.deadline {
		l.unbroken = sent.Mono // R30: a gap starts the count anew
	}
	l.granted = true
	l.sequence, l.issueUntil = g.Sequence, g.IssueUntil
	l.renewed = sent
	// R6: from before the renewal was sent, shortened for a slow clock and a margin.
	l.deadline = sent.Mono + l.length - l.length/1000 - min(l.skew, l.length/4)
	l.offset = offset(g.Now, sent, received)
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

// Polled notes a successful poll sent at sent: who did not hear of changes for a whole lease
// may not issue (R32).
func (l *Lease) Polled(sent Instant) { l.polled = max(l.polled, sent.Mono) }

// End stops issuing for good: the incarnation is DEAD or draining.
func (l *Lease) End() { l.ended = true }

// MayIssue reports whether a token may be issued at t (I6).
func (l *Lease) MayIssue(t Instant) bool {
	if l.ended || !l.granted || t.Mono >= l.deadline || t.Mono >= l.polled+l.length {
		return false
	}
	drift := (t.Wall - l.renewed.Wall) - (t.Mono - l.renewed.Mono)
	return drift <= clockJump && drift >= -clockJump // R7
}

// MayBury reports whether the node may mark others dead: its own lease was renewed without a
// gap for one full length (R30).
func (l *Lease) MayBury(t Instant) bool {
	return l.MayIssue(t) && t.Mono-l.unbroken >= l.length
}

// Now estimates the database's time at t (R44).
func (l *Lease) Now(t Instant) int64 { return t.Wall + l.offset }

// Sequence is the compare-and-set value of the next renewal (R8).
func (l *Lease) Sequence() int64 { return l.sequence }

// IssueUntil is the end of the lease in database time.
func (l *Lease) IssueUntil() int64 { return l.issueUntil }
