// Package mutation breaks the product on purpose, one rule at a time, and expects the tests to
// notice: each of the 23 mistakes that the protocol must not make is made in the product's own
// text, compiled by way of a source overlay, and has to be found by the test that answers for it.
// The product itself has no switch for any of this.
package mutation
