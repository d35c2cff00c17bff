package purser

import (
	"math"
	"sync/atomic"
)

// never is a mark that no usage reaches.
const never = math.MaxInt64

// meter is what a handle knows of one meter. Reporting touches nothing but atomics: it is done
// for every token.
type meter struct {
	name  string
	step  int64 // how much more is asked for at a time
	most  int64 // up to which total: at least what was granted at first
	bound bool  // what is granted says when to stop

	used    atomic.Int64 // total that the caller reported
	granted atomic.Int64 // total over all reservations of the handle
	mark    atomic.Int64 // usage from which more is asked for
}

// raise sets the usage to total if that is more.
func (m *meter) raise(total int64) int64 {
	for {
		used := m.used.Load()
		if total <= used {
			return used
		}
		if m.used.CompareAndSwap(used, total) {
			return total
		}
	}
}

// add counts n more, and stays at the largest number rather than wrap.
func (m *meter) add(n int64) int64 {
	for {
		used := m.used.Load()
		if n <= 0 {
			return used
		}
		total := used + min(n, math.MaxInt64-used)
		if m.used.CompareAndSwap(used, total) {
			return total
		}
	}
}

// grant notes a new total, and when to ask for more: with a fifth of it left (R35).
func (m *meter) grant(total int64) {
	m.granted.Store(total)
	if total >= m.most {
		m.mark.Store(never)
		return
	}
	m.mark.Store(total - total/5)
}

// over reports whether the work has to stop at this usage, final being that no more will come.
func (m *meter) over(used int64, final bool) bool {
	return m.bound && used >= m.granted.Load() && (final || used >= m.most)
}

// left is what may be used still.
func (m *meter) left() int64 { return max(m.granted.Load()-m.used.Load(), 0) }

// more is the total to ask for; what is granted already if usage has not come near it.
func (m *meter) more() int64 {
	granted, used := m.granted.Load(), m.used.Load()
	if used < m.mark.Load() {
		return granted
	}
	from := max(granted, used)
	return max(from, min(m.most, from+min(m.step, math.MaxInt64-from)))
}

// newMeter is the meter of an estimate of which granted may be used, and most later on.
func newMeter(e Estimate, granted, most int64) *meter {
	m := &meter{name: e.Meter, step: max(e.Quantity, 1), most: max(most, granted), bound: e.Flexible || e.Max > 0}
	m.grant(granted)
	return m
}

// meters are those of a handle. The slice is replaced whole when one is added, which happens
// only if usage is reported that was not estimated.
type meters struct{ list atomic.Pointer[[]*meter] }

func (ms *meters) all() []*meter {
	if list := ms.list.Load(); list != nil {
		return *list
	}
	return nil
}

// find returns nil if there is none of that name.
func (ms *meters) find(name string) *meter {
	for _, m := range ms.all() {
		if m.name == name {
			return m
		}
	}
	return nil
}

// get adds the meter if it is not there.
func (ms *meters) get(name string) *meter {
	for {
		if m := ms.find(name); m != nil {
			return m
		}
		old := ms.list.Load()
		m := &meter{name: name}
		m.mark.Store(never)
		list := append(append([]*meter(nil), ms.all()...), m)
		if ms.list.CompareAndSwap(old, &list) {
			return m
		}
	}
}

// sum adds up the usage of all meters: it changes whenever any is reported.
func (ms *meters) sum() (sum int64) {
	for _, m := range ms.all() {
		sum += m.used.Load()
	}
	return sum
}

// reported are the totals of all meters that anything was reported of.
func (ms *meters) reported() []Quantity {
	var out []Quantity
	for _, m := range ms.all() {
		if used := m.used.Load(); used > 0 {
			out = append(out, Quantity{m.name, used})
		}
	}
	return out
}
