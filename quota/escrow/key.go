package escrow

import "github.com/purser-io/purser/quota"

// KeyHash stands for an idempotency key with its principal and account, or for a request's
// content (R53).
type KeyHash [16]byte

// keyEntry is what an idempotency key was answered with. Only grants are remembered: a denial
// has no effect, and a later try may succeed.
type keyEntry struct {
	content  KeyHash
	decision quota.Decision
}

func (e *keyEntry) replay(r *Request, out *Result) Status {
	if e.content != r.Content {
		return KeyReused
	}
	out.Replay = &e.decision
	return Replayed
}

// Replay finds the answer that the request's key had before, if the request is the same.
func (s *Shard) Replay(r *Request) (*quota.Decision, bool) {
	e, ok := s.keys[r.Key]
	if !ok || e.content != r.Content {
		return nil, false
	}
	return &e.decision, true
}

// Remember keeps the answer to a request with a key for twice its TTL, in the same locked
// section as the Reserve that granted it.
func (s *Shard) Remember(now int64, r *Request, d *quota.Decision) {
	var e *keyEntry
	if n := len(s.spareK); n > 0 {
		e, s.spareK = s.spareK[n-1], s.spareK[:n-1]
	} else {
		e = &keyEntry{}
	}
	e.content = r.Content
	copyDecision(&e.decision, d)
	s.keys[r.Key] = e
	s.keyNext++
	s.keyIDs[s.keyNext] = r.Key
	s.keyEnd.add(now+2*r.TTL, s.keyNext)
}

// copyDecision copies what a replay repeats, reusing dst's memory.
func copyDecision(dst, d *quota.Decision) {
	token, granted := append(dst.Token[:0], d.Token...), append(dst.Granted[:0], d.Granted...)
	warnings, remaining := append(dst.Warnings[:0], d.Warnings...), append(dst.Remaining[:0], d.Remaining...)
	*dst = *d
	dst.Token, dst.Granted, dst.Warnings, dst.Remaining = token, granted, warnings, remaining
	dst.Denial, dst.Replayed = quota.Denial{}, true
}

// forgetKeys drops keys whose time is over.
func (s *Shard) forgetKeys(now int64) {
	s.scratch = s.keyEnd.due(now, s.scratch[:0])
	for _, id := range s.scratch {
		key := s.keyIDs[id]
		delete(s.keyIDs, id)
		if e, ok := s.keys[key]; ok && len(s.spareK) < 4096 {
			s.spareK = append(s.spareK, e)
		}
		delete(s.keys, key)
	}
}
