package escrow

// wheel finds what falls due, by the tick. Items are numbers; who has ended before its time
// is simply no longer found by its number. Inserting is an append, so it does not allocate
// once the slots have grown.
type wheel struct {
	grain int64 // ns per slot
	slots [][]uint64
	next  int64 // first tick not yet collected
}

// newWheel covers span ns ahead; what is due later is clamped to the farthest slot and has
// to be put back by the caller when it comes up early.
func newWheel(now, span int64) wheel {
	const slots = 512
	grain := max(span/(slots-2), 1)
	return wheel{grain: grain, slots: make([][]uint64, slots), next: now / grain}
}

// add files id under its due time.
func (w *wheel) add(due int64, id uint64) {
	tick := min(max(due/w.grain+1, w.next), w.next+int64(len(w.slots))-1)
	slot := &w.slots[tick%int64(len(w.slots))]
	*slot = append(*slot, id)
}

// due appends what fell due until now to dst.
func (w *wheel) due(now int64, dst []uint64) []uint64 {
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
