package faultproxy

import "strings"

// Op is what a statement is sent for: a method of quota.Store, or several that belong together.
// Every statement of a transaction has the Op of the first that tells.
type Op string

// Operations.
const (
	Any     Op = ""        // in a Fault: all of those below
	Append  Op = "Append"  // flush of settlements by their owner, which commits by itself
	Settle  Op = "Settle"  // settlements through a guest lane
	Interim Op = "Interim" // usage so far, noted by the owner
	Draw    Op = "Draw"    //
	Return  Op = "Return"  //
	Project Op = "Project" // projection, and what it looks for
	Renew   Op = "Renew"   // of the lease, and its beginning
	Poll    Op = "Poll"    // for changes and notes
	Close   Op = "Close"   // of the dead: fence, close, drain
	Admin   Op = "Admin"   // what takes a revision
	Other   Op = "Other"   // the rest: reads, and what sessions are set up with
)

// tells says by what a statement gives away its operation. The first that fits wins. TestWire of
// package authority wants to see every operation, so that they do not go stale.
var tells = []struct {
	text string
	op   Op
}{
	{"INSERT INTO journal (lane_id, tag, k1, k2, kind, body)\nSELECT", Append},
	{"SELECT lane_id, state, gc_before FROM lanes", Settle},
	{"INSERT INTO interims", Interim},
	{"SELECT i.state, i.issue_until, l.state FROM lanes l", Draw},
	{"shrink_sequence FROM allotments", Return},
	{"UPDATE cursors SET", Project},
	{"FROM cursors c", Project},
	{"SELECT state, lease_sequence, lease_nonce", Renew},
	{"FROM changes WHERE revision >", Poll},
	{"SET acked_revision", Poll},
	{"AND tag = 3", Poll},
	{"UPDATE incarnations SET state", Close},
	{"UPDATE lanes SET state", Close},
	{"SELECT id FROM incarnations WHERE state = 1", Close},
	{"SELECT l.lane_id FROM lanes l", Close},
	{"UPDATE revision SET", Admin},
}

// opOf is what sql is sent for, as far as it tells.
func opOf(sql string) Op {
	for _, t := range tells {
		if strings.Contains(sql, t.text) {
			return t.op
		}
	}
	return Other
}

// verb is the first word of sql.
func verb(sql string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(sql), " ")
	return strings.ToLower(strings.TrimRight(word, ";"))
}
