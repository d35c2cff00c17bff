package escrow

import (
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
)

// at is the node's clocks s seconds after the origin.
func at(s float64) Instant {
	ns := int64(s * float64(second))
	return Instant{Wall: epoch + ns, Mono: ns}
}

// leased is a lease of 30 s with a skew of 500 ms, renewed at 0 and polled then.
func leased() *Lease {
	l := NewLease(30*time.Second, 500*time.Millisecond)
	l.Granted(grantedAt(0), at(0), at(0))
	l.Polled(at(0))
	return l
}

func grantedAt(s float64) quota.LeaseGrant {
	now := at(s).Wall
	return quota.LeaseGrant{Sequence: 1, Now: now, IssueUntil: now + 30*second}
}

// renewAt renews and polls every five seconds up to s.
func (l *Lease) renewTo(from, to float64) {
	for s := from; s <= to; s += 5 {
		l.Granted(grantedAt(s), at(s), at(s))
		l.Polled(at(s))
	}
}

func TestLeaseMayIssue(t *testing.T) {
	for _, c := range []struct {
		name  string
		make  func() *Lease
		at    Instant
		issue bool
	}{
		{"never granted", func() *Lease { return NewLease(30*time.Second, 0) }, at(0), false},
		{"fresh", leased, at(0), true},
		{"R6 before its end, less a thousandth and the skew", leased, at(29.46), true},
		{"R6 at its end, less a thousandth and the skew", leased, at(29.47), false},
		{"R6 counted from the sending", func() *Lease {
			l := leased()
			l.Granted(grantedAt(6), at(2), at(10))
			l.Polled(at(10))
			return l
		}, at(31.48), false},
		{"R7 wall clock forward", leased, Instant{Wall: at(1).Wall + 2*second, Mono: at(1).Mono}, false},
		{"R7 wall clock back", leased, Instant{Wall: at(1).Wall - 2*second, Mono: at(1).Mono}, false},
		{"R7 less than the margin", leased, Instant{Wall: at(1).Wall + second/3, Mono: at(1).Mono}, true},
		{"R7 more than the margin of the deadline", leased, Instant{Wall: at(1).Wall + second*2/3, Mono: at(1).Mono}, false},
		{"R32 not polled for a lease", func() *Lease {
			l := leased()
			l.Granted(grantedAt(20), at(20), at(20))
			return l
		}, at(30), false},
		{"R32 polled", func() *Lease {
			l := leased()
			l.Granted(grantedAt(20), at(20), at(20))
			l.Polled(at(20))
			return l
		}, at(30), true},
		{"ended", func() *Lease { l := leased(); l.End(); return l }, at(1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.make().MayIssue(c.at); got != c.issue {
				t.Errorf("MayIssue is %v", got)
			}
		})
	}
}

// TestLeaseHearsAfterGap: while a lease has run out in the database, Suspend(sync) does not
// wait for the node, so nothing it heard before the next renewal counts (I13, R32).
func TestLeaseHearsAfterGap(t *testing.T) {
	suspended := func(s, slept float64) Instant { // the machine stood still for slept seconds
		return Instant{Wall: at(s).Wall, Mono: at(s - slept).Mono}
	}
	for _, c := range []struct {
		name           string
		polled         Instant
		sent, received Instant
		poll           Instant
		deaf           bool // until poll
	}{
		{"renewed in time", at(20), at(25), at(25), at(25), false},
		{"renewed too late, polled between", at(20), at(31), at(31), at(31), true},
		{"sent in time, answered too late", at(20), at(29), at(31), at(31), true},
		{"suspended, by the wall clock too late", at(1), suspended(600, 598), suspended(600, 598), suspended(600, 598), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := leased()
			l.Polled(c.polled)
			l.Granted(quota.LeaseGrant{Sequence: 2, Now: c.received.Wall, IssueUntil: c.received.Wall + 30*second}, c.sent, c.received)
			if got := l.MayIssue(c.received); got == c.deaf {
				t.Fatalf("MayIssue before the next poll is %v", got)
			}
			l.Polled(Instant{Wall: c.received.Wall - 1, Mono: c.received.Mono - 1})
			if got := l.MayIssue(c.received); got == c.deaf {
				t.Fatalf("MayIssue after a poll sent before the answer is %v", got)
			}
			l.Polled(c.poll)
			if !l.MayIssue(c.received) {
				t.Fatalf("after the next poll it may not issue")
			}
		})
	}
}

func TestLeaseMayBury(t *testing.T) {
	l := leased()
	l.renewTo(5, 25)
	if l.MayBury(at(29)) {
		t.Errorf("R30: it buries before its lease was renewed for one length")
	}
	l.renewTo(30, 35)
	if !l.MayBury(at(36)) {
		t.Errorf("R30: it does not bury after one length without a gap")
	}
	l.renewTo(70, 95) // a gap from 65 to 70
	if l.MayBury(at(96)) {
		t.Errorf("R30: it buries though it was blind at 65")
	}
	l.renewTo(100, 100)
	if !l.MayBury(at(101)) {
		t.Errorf("R30: the gap is one length ago")
	}
}

// TestLeaseNow: the estimate of the database's time does not follow a wall clock that jumps,
// or holds would expire before their promised time (I8).
func TestLeaseNow(t *testing.T) {
	l := NewLease(30*time.Second, 500*time.Millisecond)
	if got := l.Now(at(3)); got != at(3).Wall {
		t.Errorf("before the first grant it is %d, want the wall clock", got)
	}
	g := grantedAt(10)
	l.Granted(g, at(9.9), at(10.1))
	if got := l.Now(at(12)); got != at(12).Wall {
		t.Errorf("within the uncertainty it is off by %d", got-at(12).Wall)
	}
	g.Now += 4 * second
	l.Granted(g, at(9.9), at(10.1))
	if got, want := l.Now(at(12)), at(16).Wall; got != want {
		t.Errorf("four seconds behind the database it is off by %d", got-want)
	}
	for _, jump := range []int64{-3600 * second, 3600 * second} {
		if got, want := l.Now(Instant{Wall: at(12).Wall + jump, Mono: at(12).Mono}), at(16).Wall; got != want {
			t.Errorf("after a jump by %d s it is off by %d", jump/second, got-want)
		}
	}
	if l.Sequence() != 1 || l.IssueUntil() != at(40).Wall {
		t.Errorf("sequence %d, issue until %d", l.Sequence(), l.IssueUntil())
	}
}
