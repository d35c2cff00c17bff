// Package storagetest is the conformance suite of storage: one set of tests, by the contract
// lines of quota's store interfaces, that every backend passes. After each test the store is
// audited, so a test need not say that credits are conserved (I1): it always has to be so.
//
// The suite is itself tested against stores broken on purpose, each of which some named test
// must catch.
package storagetest

import (
	"testing"
	"time"

	"github.com/purser-io/purser/quota"
)

// Opened is a fresh, empty store with its time.
type Opened struct {
	Store quota.Store
	// Now is the store's time, unix ns (R44).
	Now func() int64
	// Advance moves a store's time that is injected; nil if real time passes.
	Advance func(time.Duration)
	// Disturb begins to make calls go wrong, until the function it returns is called; nil if
	// nothing disturbs the store. The tests in area Concurrency bear it.
	Disturb func() (calm func())
}

// Harness is a backend to be tested.
type Harness struct {
	Name string
	// Open makes a store and closes it, with all it took, when the test ends.
	Open func(t testing.TB) Opened
}

// Test is one test of the suite.
type Test struct {
	Name string
	Run  func(*Env)
}

// Area is the tests of one part of the contract.
type Area struct {
	Name  string
	Tests []Test
}

// Areas lists the suite.
func Areas() []Area {
	return []Area{
		{"Draw", drawTests()},
		{"Return", returnTests()},
		{"Journal", journalTests()},
		{"Settle", settleTests()},
		{"Interim", interimTests()},
		{"Lease", leaseTests()},
		{"Reaper", reaperTests()},
		{"Projection", projectionTests()},
		{"Catalogue", catalogueTests()},
		{"Account", accountTests()},
		{"Grant", grantTests()},
		{"Budget", budgetTests()},
		{"Key", keyTests()},
		{"Usage", usageTests()},
		{"Request", requestTests()},
		{"Concurrency", concurrencyTests()},
	}
}

// Run runs the suite on a backend.
func Run(t *testing.T, h Harness) {
	for _, area := range Areas() {
		t.Run(area.Name, func(t *testing.T) {
			for _, test := range area.Tests {
				t.Run(test.Name, func(t *testing.T) { RunOne(t, h, test) })
			}
		})
	}
}

// RunOne runs one test on a fresh store and audits it afterwards.
func RunOne(t testing.TB, h Harness, test Test) {
	e := newEnv(t, h.Open(t))
	test.Run(e)
	e.balance()
}
