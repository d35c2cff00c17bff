package escrow

// wheel finds what falls due, by the tick. Items are numbers or hashes; who has ended before its
// time is simply no longer found by them. Inserting is an append, so it does not allocate
// once the slots have grown.
type wheel[T any] struct {
	grain int64 // ns per slot
	slots [][]T
	next  int64 // first tick not yet collected
}

// newWheel covers span ns ahead; what is due later is clamped to the farthest slot and has
// to be put back by the caller when it comes up early.
func newWheel[T any](now, span int64) wheel[T] {
	const slots = 512
	grain := max(span/(slots-2), 1)
	return wheel[T]{grain: grain, slots: make([][]T, slots), next: now / grain}
}

// add files id under its due time.
func (w *wheel[T]) add(due int64, id T) {
	tick := min(max(due/w.grain+1, w.next), w.next+int64(len(w.slots))-1)
	slot := &w.slots[tick%int64(len(w.slots))]
	*slot = append(*slot, id)
}

// due appends what fell due until now to dst.
func (w *wheel[T]) due(now int64, dst []T) []T {
	for end := now / w.grain; w.next <= end; w.next++ {
		slot := &w.slots[w.next%int64(len(w.slots))]
		dst = append(dst, *slot...)
		*slot = (*slot)[:0]
		if end-w.next > int64(len(w.slots)) { // a clock jump: one round collects everything
			w.next = end - int64(len(w.slots))
		}
	}
	return dst
}
