// Package escrow is the protocol core: what a node does with the allotments it was handed.
//
// It is a state machine without I/O. Every method takes the time as an argument and returns
// what is to be done; there is no goroutine, clock, channel or lock in it, no map iteration
// that decides an effect, and randomness is injected. The shell in quota/authority holds a
// lock around each [Shard] and [Journal] and carries the effects out.
//
// A [Shard] keeps the allotments and holds of some payers, a [Journal] numbers the batches of
// a lane, a [Lease] says whether the incarnation may issue.
//
// The rule to remember, R-FREE: an amount goes from held to free only after the reservation's
// terminal record is durable and its outcome known. In this package that is the one call of
// Shard.Settled.
package escrow
