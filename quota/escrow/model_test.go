package escrow

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-io/purser/quota/quotatest"
)

// Size of the model test by default: about half a minute on one core. -rapid.checks and
// -rapid.steps change it, -rapid.seed repeats a run.
const (
	defaultChecks = "15000"
	raceChecks    = "1500"
	defaultSteps  = "120"
)

func TestMain(m *testing.M) {
	flag.Parse()
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	checks := defaultChecks
	if underRace { // one goroutine has nothing to show it
		checks = raceChecks
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.steps": defaultSteps} {
		if given[name] {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func (w *world) ctx() context.Context { return context.Background() }

// TestModel runs random histories of some processes over one faulty database against the
// oracle: I1 to I14 after every step, I15 at the end of each.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(func(n int, label string) int { return rapid.IntRange(0, n-1).Draw(t, label) }, mutant{})
		actions := map[string]func(*rapid.T){"": func(t *rapid.T) {
			if bad := w.step(); bad != nil {
				t.Fatalf("%s", strings.Join(bad, "\n"))
			}
		}}
		for name, do := range w.actions() {
			actions[name] = func(*rapid.T) { do() }
		}
		t.Repeat(actions)
		if bad := w.quiesce(); bad != nil {
			t.Fatalf("%s", strings.Join(bad, "\n"))
		}
	})
}

// run plays one history from a seed and returns the first violations.
func run(seed uint64, m mutant, steps int) (bad []string) {
	defer func() { // the core's own checks are invariants as well
		if v, ok := recover().(Violation); ok {
			bad = []string{v.Error()}
		}
	}()
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(func(n int, _ string) int { return random.IntN(n) }, m)
	actions := w.actions()
	names := make([]string, 0, len(actions))
	for name := range actions {
		names = append(names, name)
	}
	sort.Strings(names)
	for range steps {
		actions[names[random.IntN(len(names))]]()
		if bad := w.step(); bad != nil {
			return bad
		}
	}
	return w.quiesce()
}

// firstHistory is where the mutants begin: some of them are seen soon from here that take thousands
// of histories from 0.
const firstHistory = uint64(5700)

// TestMutants leaves out one rule at a time and expects the same checks to notice, by name,
// within so many histories.
func TestMutants(t *testing.T) {
	for _, c := range []struct {
		name   string
		mutant mutant
		want   string // invariants, any of which may be seen first
		within uint64
	}{
		{"R1 free before durable", mutant{freeEarly: true}, "I4 I2", 20},
		{"R5 unknown taken for failure", mutant{unknownIsFailure: true}, "I11 I4 R20 I10 I8", 50},
		{"R6 lease counted from the answer", mutant{replyDeadline: true}, "I6 I13", 2000},
		{"R11 draw given up", mutant{drawGivenUp: true}, "I15 I9", 200},
		{"R11 epoch looked at first", mutant{database: quotatest.Break{EpochFirst: true}}, "I15", 2000},
		{"R11 empty draw without a trace", mutant{database: quotatest.Break{NoTrace: true}}, "I15", 20000},
		{"R31 closed without waiting", mutant{database: quotatest.Break{CloseEarly: true}}, "I7", 50},
		{"R3 no fence", mutant{database: quotatest.Break{NoFence: true}}, "I2 I1 I5 I3 I14", 2000},
		{"R15 late not deduplicated", mutant{database: quotatest.Break{LateTwice: true}}, "I5", 500},
		{"R22 closed by projection", mutant{database: quotatest.Break{CloseByProjection: true}}, "I2 I1", 500},
		{"R19 shrink not deduplicated", mutant{database: quotatest.Break{NoShrinkSequence: true}}, "I1 I2 I4 R19", 500},
		{"R32 changes not taken in", mutant{deaf: true}, "I13", 2000},
		{"R55 a denial takes", mutant{denialTakes: true}, "R55", 50},
		{"R55 permits return twice", mutant{permitsTwice: true}, "R55", 50},
		{"R55 permits are kept", mutant{permitsKept: true}, "R55", 500},
		{"R55 what leaked is given back", mutant{unusedFirst: true}, "R55", 5000},
		{"R55 an extension counts whole again", mutant{wholeAgain: true}, "R55", 500},
		{"R49 drained without a promise", mutant{ownPromise: true}, "I7", 2000},
		{"R35 totals taken for increments", mutant{increments: true}, "R35", 50},
		{"R34 newest window charged first", mutant{newestFirst: true}, "R34", 2000},
		{"R23 interim usage added up", mutant{interimDeltas: true}, "R23", 500},
		{"R23 forgotten when the lane closes", mutant{database: quotatest.Break{InterimForgotten: true}}, "R23", 2000},
		{"R23 charged beside a late charge", mutant{database: quotatest.Break{InterimBesideLate: true}}, "R23", 5000},
		{"R23 expired and late both charged", mutant{database: quotatest.Break{InterimTwice: true}}, "R23", 2000},
		{"R6 extended without a lease", mutant{lapsed: true}, "I6 I13 I7", 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			for n := range c.within {
				seed := firstHistory + n
				bad := run(seed, c.mutant, 150)
				if bad == nil {
					continue
				}
				for _, b := range bad {
					name, _, _ := strings.Cut(strings.TrimPrefix(b, "invariant violated: "), ":")
					if strings.Contains(c.want+" ", name+" ") {
						t.Logf("history %d: %s", seed, b)
						return
					}
				}
				t.Fatalf("seed %d: found %q, want one of %s", seed, bad, c.want)
			}
			t.Fatalf("nobody noticed within %d histories", c.within)
		})
	}
}

// TestHalfRuleIsNotSafety proves the other side: without the half rule (R28) a crash costs
// more, and nothing breaks.
func TestHalfRuleIsNotSafety(t *testing.T) {
	for seed := range uint64(3000) {
		if bad := run(seed, mutant{database: quotatest.Break{NoHalf: true}}, 150); bad != nil {
			t.Fatalf("seed %d: %s", seed, fmt.Sprint(bad))
		}
	}
}
