// Package wire says how large messages are.
package wire

import (
	"google.golang.org/protobuf/proto"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Size is how many bytes m takes; or a bound of that which is found without walking m by
// reflection, if the bound is at most enough.
func Size(m proto.Message, enough int) int {
	var bound int
	var ok bool
	switch m := m.(type) {
	case *purserv1.CheckAndReserveRequest:
		bound, ok = reserve(m)
	case *purserv1.Operation:
		bound, ok = reserve(m.GetCheckAndReserve())
		bound += 3 * field
		ok = ok && !stuffed(m) && !stuffed(m.GetTimeout())
	}
	if !ok || bound > enough {
		return proto.Size(m)
	}
	return bound
}

// field is at least what a field takes beside its text: tag, length, and numbers.
const field = 16

// reserve bounds the request that is asked most. Without one, nothing is bounded.
func reserve(r *purserv1.CheckAndReserveRequest) (bound int, ok bool) {
	if r == nil || stuffed(r) || stuffed(r.GetTtl()) {
		return 0, false
	}
	bound = 4*field + len(r.GetAccount()) + len(r.GetIdempotencyKey())
	for _, c := range r.GetCandidates() {
		bound += field + len(c)
	}
	for _, e := range r.GetEstimates() {
		if stuffed(e) {
			return 0, false
		}
		bound += 4*field + len(e.GetMeter())
	}
	for k, v := range r.GetLabels() {
		bound += 3*field + len(k) + len(v)
	}
	return bound, true
}

// stuffed reports whether a message has fields that are not known here.
func stuffed(m proto.Message) bool { return len(m.ProtoReflect().GetUnknown()) > 0 }
