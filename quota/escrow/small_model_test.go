package escrow

import (
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/quotatest"
)

// The scopes that every push goes through.
var (
	// settling: commits and releases at the owner and elsewhere, expiry, crash, fence, close, LATE; a
	// third reservation lives on what the first two gave back.
	settling = scope{name: "settling", wallet: 3, drawn: 2, reservations: 3, usages: []int64{1}, crashes: 1, late: 2, rows: 3}
	// guests: several records in one batch of a guest lane, some of them settled meanwhile.
	guests = scope{name: "guests", wallet: 3, drawn: 2, reservations: 2, usages: []int64{1}, late: 1, rows: 2, groups: true}
	// order: batches of one record, projected while they come.
	order = scope{name: "order", wallet: 2, drawn: 2, reservations: 2, usages: []int64{1}, late: 1, rows: 1, projects: true}
	// usage: less and more than was held, free amounts, uncovered ones, debt.
	usage = scope{name: "usage", wallet: 2, drawn: 2, reservations: 2, usages: []int64{0, 2}, crashes: 1, rows: 3}
	// extending: over the end of a window, settled with either token.
	extending = scope{name: "extending", wallet: 4, drawn: 4, reservations: 1, usages: []int64{1, 2, 3}, crashes: 1, late: 1, rows: 3,
		draws: 1, extends: true, windows: true}
	// interim: usage reported in between, up to more than is held (R23).
	interim = scope{name: "interim", wallet: 3, drawn: 2, reservations: 1, usages: []int64{1, 3}, crashes: 1, late: 2, rows: 3, interims: []int64{1, 2}}
	// drawing: both nodes draw, issue and return.
	drawing = scope{name: "drawing", wallet: 2, drawn: 1, reservations: 2, usages: []int64{1}, late: 1, rows: 3,
		twoIssue: true, draws: 1, returns: true}
)

// scopes are those above; the smaller ones under the race detector, to which a single goroutine
// has nothing to show; and wider ones with TEST_EXPLORE=long.
func scopes() []scope {
	if underRace {
		return []scope{usage, extending}
	}
	all := []scope{settling, guests, order, usage, extending, interim, drawing}
	if os.Getenv("TEST_EXPLORE") != "long" {
		return all
	}
	for i := range all {
		all[i].crashes, all[i].late = 1, all[i].late+1
	}
	return all
}

// TestSmallModel visits every state of every scope.
func TestSmallModel(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // nearly all that is made is dropped at once
	for _, sc := range scopes() {
		t.Run(sc.name, func(t *testing.T) {
			f := explore(&sc, 0)
			if f.bad != nil {
				t.Fatalf("%v", f)
			}
			if !f.complete {
				t.Errorf("not all of it was visited")
			}
			t.Logf("%d states, %d moves, at most %d from the start", f.states, f.moves, f.depth)
		})
	}
}

// flaw leaves out one rule.
type flaw struct {
	database          quotatest.Break
	freeEarly         bool // what is held is free before the record is durable (R1)
	expireUnrecorded  bool // a hold expires without a record (R1)
	absentByRead      bool // a batch of unknown outcome that a read does not find is taken for failed (R5)
	numberGivenUp     bool // a batch of unknown outcome is sent again under the next number (R20)
	bySequence        bool // the projector's cursor counts sequences (R20)
	answersAll        bool // a batch that was refused for one record is answered as if all were applied (R17)
	takesMore         bool // who settles elsewhere takes more than is held from the allotment (R25)
	refusedWhenFenced bool // what a fenced lane leaves over is refused (R26)
	decidedFirst      bool // a guest lane's batch is decided when it is sent (R27)
	lapsed            bool // tokens are issued without a lease (R6)
	drawGivenUp       bool // a draw of unknown outcome is taken for failed (R11)
	oldGeneration     bool // a settlement holds what the caller's token says (race 13)
	oldEnd            bool // an extended hold expires at its first end (R35)
	newestFirst       bool // usage is charged to the newest window of a limit first (R34)
	interimDeltas     bool // interim usage is added up (R23)
	interimInMemory   bool // and acknowledged before it is durable
	interimElsewhere  bool // and noted by nodes that do not hold the reservation
	rollsOver         bool // what is free at a window's end is used in the next window (R13)
}

// lateBlind judges a late charge without a look at how the reservation ended.
func lateBlind(open bool, terminal, late *quota.Entry, r *quota.Record) (quota.Settlement, bool, bool) {
	if terminal != nil && r.Kind == quota.Committed && late == nil {
		return quota.Settlement{}, true, true
	}
	return quota.Judge(open, terminal, late, r)
}

// TestSmallModelSees leaves out one rule at a time and expects that to be found, by name, in the
// fewest moves.
func TestSmallModelSees(t *testing.T) {
	noting := interim
	noting.late = 1
	leaking, punctual := drawing, order // an amount that never comes home is seen at the very end only
	leaking.wallet, leaking.reservations = 1, 1
	punctual.late = 0
	for _, c := range []struct {
		name string
		in   scope
		flaw flaw
		want string // invariants, any of which may be seen first
	}{
		{"R1 free before durable", settling, flaw{freeEarly: true}, "I4 I2"},
		{"R1 expired without a record", settling, flaw{expireUnrecorded: true}, "I4 I2"},
		{"R2 two ends", settling, flaw{database: quotatest.Break{NoKey: true}}, "I5"},
		{"R3 no fence", settling, flaw{database: quotatest.Break{NoFence: true}}, "I2 I1 I5"},
		{"R5 absent by a read", settling, flaw{absentByRead: true}, "I11 I4 I8"},
		{"R6 issued without a lease", drawing, flaw{lapsed: true}, "I6"},
		{"R11 draw given up", leaking, flaw{drawGivenUp: true}, "I15"},
		{"R11 empty draw without a trace", leaking, flaw{database: quotatest.Break{NoTrace: true}}, "I15"},
		{"R13 free amounts roll over", extending, flaw{rollsOver: true}, "R34"},
		{"R15 late not deduplicated", settling, flaw{database: quotatest.Break{LateTwice: true}}, "I5"},
		{"R15 late without a look at the end", settling, flaw{database: quotatest.Break{Judge: lateBlind}}, "I5"},
		{"R17 all answered for some", settling, flaw{answersAll: true}, "I10"},
		{"R19 shrink not deduplicated", drawing, flaw{database: quotatest.Break{NoShrinkSequence: true}}, "I1 I2 I4 R19"},
		{"R20 number given up", settling, flaw{numberGivenUp: true}, "I15"},
		{"R20 cursor by sequence", punctual, flaw{bySequence: true}, "I15 I5"},
		{"R20 cursor without compare-and-set", order, flaw{database: quotatest.Break{CursorUnchecked: true}}, "I15 I5"},
		{"R22 closed by projection", settling, flaw{database: quotatest.Break{CloseByProjection: true}}, "I2 I1"},
		{"R23 interim usage added up", noting, flaw{interimDeltas: true}, "R23"},
		{"R23 acknowledged from memory", noting, flaw{interimInMemory: true}, "R23"},
		{"R23 noted elsewhere", noting, flaw{interimElsewhere: true}, "R23"},
		{"R23 forgotten when the lane closes", noting, flaw{database: quotatest.Break{InterimForgotten: true}}, "R23"},
		{"R23 charged beside a late charge", noting, flaw{database: quotatest.Break{InterimBesideLate: true}}, "R23"},
		{"R23 expired and late both charged", noting, flaw{database: quotatest.Break{InterimTwice: true}}, "R23"},
		{"R25 more than is held", usage, flaw{takesMore: true}, "I3"},
		{"R26 refused when fenced", settling, flaw{refusedWhenFenced: true}, "I11"},
		{"R26 late out of the closed allotment", settling, flaw{database: quotatest.Break{LateFromHold: true}}, "I3"},
		{"R27 decided outside the transaction", settling, flaw{decidedFirst: true}, "I5"},
		{"R31 closed without waiting", settling, flaw{database: quotatest.Break{CloseEarly: true}}, "I7"},
		{"R34 newest window charged first", extending, flaw{newestFirst: true}, "R34"},
		{"R35 settled by the old generation", extending, flaw{oldGeneration: true}, "I4 R25"},
		{"R35 expired by the old generation", extending, flaw{oldEnd: true}, "I8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.flaw = c.flaw
			f := explore(&c.in, 100_000)
			if f.bad == nil {
				t.Fatalf("nobody noticed in %d states", f.states)
			}
			for _, b := range f.bad {
				name, _, _ := strings.Cut(strings.TrimPrefix(b, "invariant violated: "), ":")
				if strings.Contains(c.want+" ", name+" ") {
					t.Logf("%d states: %v", f.states, f)
					return
				}
			}
			t.Fatalf("found, want one of %s:\n%v", c.want, f)
		})
	}
}
