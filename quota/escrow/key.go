package escrow

import "github.com/purser-io/purser/quota"

// KeyHash stands for an idempotency key with its principal and account, or for a request's
// content (R53).
type KeyHash [16]byte

// keyEntry is what an idempotency key was answered with. Only grants are remembered: a denial
// has no effect, and a later try may succeed. It is what a quota.Decision needs that grants;
// twice as many as live reservations are kept, so it is no larger.
type keyEntry struct {
	content            KeyHash
	token              []byte
	feature            string
	granted            []quota.Quantity
	warnings           []quota.Warning
	remaining          []quota.Remaining
	sequence, nonce    uint64
	held, expires      int64
	priceVersion       int64
	partial, exhausted bool
}

// decision is the answer again. It shares the entry's memory: copy it under the lock.
func (e *keyEntry) decision(l quota.LaneID) *quota.Decision {
	return &quota.Decision{Allowed: true, Replayed: true, Token: e.token, Lane: l, Sequence: e.sequence, Nonce: e.nonce,
		Feature: e.feature, Granted: e.granted, Held: e.held, ExpiresAt: e.expires, PriceVersion: e.priceVersion,
		Partial: e.partial, Exhausted: e.exhausted, Remaining: e.remaining, Warnings: e.warnings}
}

// keep takes in an answer, reusing memory.
func (e *keyEntry) keep(content KeyHash, d *quota.Decision) {
	e.content = content
	e.token, e.granted = append(e.token[:0], d.Token...), append(e.granted[:0], d.Granted...)
	e.warnings, e.remaining = append(e.warnings[:0], d.Warnings...), append(e.remaining[:0], d.Remaining...)
	e.feature, e.sequence, e.nonce = d.Feature, d.Sequence, d.Nonce
	e.held, e.expires, e.priceVersion = d.Held, d.ExpiresAt, d.PriceVersion
	e.partial, e.exhausted = d.Partial, d.Exhausted
}

func (s *Shard) replay(e *keyEntry, r *Request, out *Result) Status {
	if e.content != r.Content {
		return KeyReused
	}
	out.Replay = e.decision(s.lane)
	return Replayed
}

// Replay finds the answer that the request's key had before, if the request is the same.
func (s *Shard) Replay(r *Request) (*quota.Decision, bool) {
	e, ok := s.keys[r.Key]
	if !ok || e.content != r.Content {
		return nil, false
	}
	return e.decision(s.lane), true
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
	e.keep(r.Content, d)
	s.keys[r.Key] = e
	s.cfg.Room.keys.Add(1)
	s.keyEnd.add(now+2*r.TTL, r.Key)
}

// forgetKeys drops keys whose time is over.
func (s *Shard) forgetKeys(now int64) {
	s.keysDue = s.keyEnd.due(now, s.keysDue[:0])
	for _, key := range s.keysDue {
		e, ok := s.keys[key]
		if !ok {
			continue
		}
		delete(s.keys, key)
		s.cfg.Room.keys.Add(-1)
		if len(s.spareK) < spareMost {
			s.spareK = append(s.spareK, e)
		}
	}
}
