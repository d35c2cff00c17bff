package interceptor

import "sync/atomic"

// Sampler picks which of many like events get a line in the log: the first few, then one in
// Every. Safe for concurrent use.
type Sampler struct {
	First uint64 // all of the first ones
	Every uint64 // then each of these; 0 = none
	seen  atomic.Uint64
}

// Take counts an event and says whether it gets a line; seen is how many there were so far.
func (s *Sampler) Take() (seen uint64, ok bool) {
	seen = s.seen.Add(1)
	return seen, seen <= s.First || s.Every > 0 && seen%s.Every == 0
}
