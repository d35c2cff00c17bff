package escrow

import "iter"

// wheel finds what falls due, by the tick. A slot S holds what its user files under it. Filing is
// an append, so it does not allocate once the slots have grown.
type wheel[S any] struct {
	grain int64 // ns per slot
	slots []S
	next  int64 // first tick not yet collected
}

// newWheel covers span ns ahead; what is due later is clamped to the farthest slot and has
// to be put back by the caller when it comes up early.
func newWheel[S any](now, span int64) wheel[S] {
	const slots = 512
	grain := max(span/(slots-2), 1)
	return wheel[S]{grain: grain, slots: make([]S, slots), next: now / grain}
}

// slot is the number of the slot of what is due then.
func (w *wheel[S]) slot(due int64) int {
	tick := min(max(due/w.grain+1, w.next), w.next+int64(len(w.slots))-1)
	return int(tick % int64(len(w.slots)))
}

// due goes through the slots that fell due until now. Whoever does empties each, and files
// nothing meanwhile.
func (w *wheel[S]) due(now int64) iter.Seq[*S] {
	return func(yield func(*S) bool) {
		for end := now / w.grain; w.next <= end; w.next++ {
			if !yield(&w.slots[w.next%int64(len(w.slots))]) {
				return
			}
			if end-w.next > int64(len(w.slots)) { // a clock jump: one round collects everything
				w.next = end - int64(len(w.slots))
			}
		}
	}
}

// numbers are holds in a slot. Who has ended before its time is simply no longer found by them.
type numbers []uint64

// add files a number under its due time.
func add(w *wheel[numbers], due int64, n uint64) {
	slot := &w.slots[w.slot(due)]
	*slot = append(*slot, n)
}

// collect appends the numbers that fell due until now to dst.
func collect(w *wheel[numbers], now int64, dst []uint64) []uint64 {
	for slot := range w.due(now) {
		dst = append(dst, *slot...)
		*slot = (*slot)[:0]
	}
	return dst
}
