// Package quota is the domain: accounts and their budgets, pots and what is drawn from them,
// reservations and how they are settled. It holds the words, the types and the interfaces
// that storage satisfies; quota/escrow decides, quota/authority drives.
//
// Amounts are int64: micros (millionths of a credit) for credits, a count for a meter. Times
// are int64 unix nanoseconds of the database's clock as a node estimates it (R44); [Never]
// stands for "no end".
package quota

import "github.com/purser-io/purser/authz"

// Never is the time of what does not end.
const Never = authz.Never

// UnitCredits is the unit of pots that hold credits; any other unit is a meter's name.
const UnitCredits = ""
