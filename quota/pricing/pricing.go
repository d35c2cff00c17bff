// Package pricing turns quantities of meters into micros of a credit, and a budget of micros
// back into quantities.
//
// A line is one meter of a request: a [Rate] and a quantity. Every line is rounded up by
// itself, once, so that a price does not depend on the order or the grouping of lines.
// The package knows no rate cards, versions, markups or features: who calls it has already
// chosen the rates. Nothing in it allocates.
package pricing

import "github.com/purser-io/purser/quota/amount"

// Rate is a price: PriceMicros micros of a credit for each Per units of a meter.
// PriceMicros is at least 0, and 0 means explicitly free; Per is at least 1. A Rate out of
// these ranges prices nothing: Cost is never ok and Affordable is 0.
type Rate struct {
	PriceMicros int64
	Per         int64
}

func (r Rate) valid() bool { return r.PriceMicros >= 0 && r.Per > 0 }

// Cost is the price of quantity units in micros, rounded up. ok is false if the quantity is
// negative, the rate is not valid, or the price does not fit an int64.
func (r Rate) Cost(quantity int64) (micros int64, ok bool) {
	return amount.MulDivUp(quantity, r.PriceMicros, r.Per)
}

// Affordable is the largest quantity up to [amount.Max] whose Cost is at most micros: one
// more unit would cost more than micros, or would exceed amount.Max (R42). A negative micros
// affords 0, though not even 0 units fit in it.
func (r Rate) Affordable(micros int64) int64 {
	switch {
	case micros < 0 || !r.valid():
		return 0
	case r.PriceMicros == 0:
		return amount.Max
	}
	// ceil(q*price/per) <= micros exactly if q*price <= micros*per, for micros is an integer.
	quantity, ok := amount.MulDivDown(micros, r.Per, r.PriceMicros)
	if !ok {
		return amount.Max // The quotient itself does not fit, so it is above amount.Max.
	}
	return min(quantity, amount.Max)
}

// Total is the sum of the lines' costs in micros. ok is false if any line has none, the sum
// does not fit an int64, or rates and quantities differ in length.
func Total(rates []Rate, quantities []int64) (micros int64, ok bool) {
	return totalBut(rates, quantities, -1)
}

// totalBut is the sum of the costs of all lines but the one at index but.
func totalBut(rates []Rate, quantities []int64, but int) (sum int64, ok bool) {
	if len(rates) != len(quantities) {
		return 0, false
	}
	for i, rate := range rates {
		if i == but {
			continue
		}
		cost, ok := rate.Cost(quantities[i])
		if !ok {
			return 0, false
		}
		if sum, ok = amount.Add(sum, cost); !ok {
			return 0, false
		}
	}
	return sum, true
}

// Fit finds quantities whose Total is at most budget micros (R42). It starts from want and
// shrinks the flexible lines, from the last listed to the first and none below its minimum,
// until the total fits; a line that would be no cheaper at its minimum keeps what it
// wants. The quantities are written to out. The answer is false, and out is not to be used,
// if not even all minimums fit, a line cannot be priced, or the slices differ in length.
//
// A line that is not flexible ignores its minimum. A minimum above what is wanted counts as
// what is wanted. Fit takes time quadratic in the number of lines when something has to
// shrink: the edge admits 16.
func Fit(rates []Rate, want, minimum []int64, flexible []bool, budget int64, out []int64) bool {
	n := len(rates)
	if len(want) != n || len(minimum) != n || len(flexible) != n || len(out) != n {
		return false
	}
	copy(out, want)
	if total, ok := Total(rates, out); ok && total <= budget {
		return true
	}
	for i := n - 1; i >= 0; i-- {
		if !flexible[i] || !shrinks(rates[i], minimum[i], want[i]) {
			continue
		}
		out[i] = minimum[i]
		rest, ok := totalBut(rates, out, i)
		if !ok || rest > budget {
			continue // The lines before this one are too much already.
		}
		// A rest >= 0 cannot overflow the difference; budget >= rest makes it >= 0.
		if q := rates[i].Affordable(budget - rest); q >= minimum[i] {
			out[i] = q // Below want[i], with which the total has just been seen not to fit.
			return true
		}
	}
	return false
}

// shrinks says whether a line gets cheaper on the way from want down to minimum. A want so
// dear that its price overflows does.
func shrinks(rate Rate, minimum, want int64) bool {
	low, ok := rate.Cost(minimum)
	if !ok || minimum >= want {
		return false
	}
	high, ok := rate.Cost(want)
	return !ok || low < high
}
