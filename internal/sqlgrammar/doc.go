// Package sqlgrammar has one test: every SQL statement and migration of the stores, and of the
// naive design that `purser bench` compares with, is parsed with CockroachDB's own grammar. It is
// a module of its own so that the product does not depend on that grammar, which is large;
// `make test` enters it.
//
// The grammar is of CockroachDB 25.2 and accepts more than 21.1, the oldest version that the
// store runs on. What 21.1 refuses, or takes and means something else by, is refused by the
// deny-list in storage/cockroach.
package sqlgrammar
