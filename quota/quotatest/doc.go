// Package quotatest is what the protocol core is proved against: a naive in-memory database
// and a sequential oracle.
//
// The [DB] does what storage/relational does in SQL, one operation at a time, on plain maps
// and slices, and can lie about it as a real database does: an operation may fail, its answer
// may be lost, and a write may land long after its sender sent it again or gave up. The
// [Oracle] is told all that was promised and answered, and says which invariant of the
// protocol a state breaks. Both can be cloned and written down, to visit every state of a small
// world.
//
// Nothing here is safe for concurrent use, and nothing has a clock: the test sets [DB.Now].
package quotatest
