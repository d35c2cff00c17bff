// Package amount is checked integer arithmetic on amounts: micros of a credit (millionths),
// or a count of a meter, both int64.
//
// It holds the one rounding rule of the product: a price is rounded up, once per line
// ([MulDivUp]); what a balance affords is rounded down ([MulDivDown]). It knows nothing of
// prices, pots or meters, and there is no float in it.
package amount

import (
	"fmt"
	"math"
	"math/bits"
	"strings"
)

// Max is the largest amount accepted at the edge, 2^53: the largest range of integers that
// a JSON number carries exactly. It leaves ten bits of head room below int64, so a sum of a
// thousand accepted amounts cannot overflow.
const Max = 1 << 53

// MicrosPerCredit is how many micros one credit has.
const MicrosPerCredit = 1_000_000

// decimals is how many decimals of a credit a micro is.
const decimals = 6

// Add returns a+b; ok is false if the sum does not fit an int64.
func Add(a, b int64) (sum int64, ok bool) {
	sum = a + b
	// Overflow is the only way for two numbers of one sign to give a sum of the other.
	return sum, (a^sum)&(b^sum) >= 0
}

// Sub returns a-b; ok is false if the difference does not fit an int64.
func Sub(a, b int64) (difference int64, ok bool) {
	difference = a - b
	return difference, (a^b)&(a^difference) >= 0
}

// Mul returns a*b; ok is false if the product does not fit an int64.
func Mul(a, b int64) (product int64, ok bool) {
	hi, lo := bits.Mul64(magnitude(a), magnitude(b))
	negative := (a < 0) != (b < 0)
	switch {
	case hi != 0:
		return 0, false
	case lo <= math.MaxInt64 && negative:
		return -int64(lo), true
	case lo <= math.MaxInt64:
		return int64(lo), true
	default:
		// -2^63 has no positive twin: the one product whose magnitude exceeds MaxInt64.
		return math.MinInt64, negative && lo == 1<<63
	}
}

// MulDivUp returns a*b/d rounded up, with 128 bits inside, for a, b >= 0 and d > 0. ok is
// false if an argument is out of range or the result does not fit an int64.
func MulDivUp(a, b, d int64) (quotient int64, ok bool) {
	q, remainder, ok := mulDiv(a, b, d)
	if ok && remainder > 0 {
		return Add(q, 1)
	}
	return q, ok
}

// MulDivDown returns a*b/d rounded down, under the conditions of [MulDivUp].
func MulDivDown(a, b, d int64) (quotient int64, ok bool) {
	q, _, ok := mulDiv(a, b, d)
	return q, ok
}

func mulDiv(a, b, d int64) (quotient int64, remainder uint64, ok bool) {
	if a < 0 || b < 0 || d <= 0 {
		return 0, 0, false
	}
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(d) {
		return 0, 0, false // Div64 panics where the quotient needs more than 64 bits.
	}
	q, remainder := bits.Div64(hi, lo, uint64(d))
	if q > math.MaxInt64 {
		return 0, 0, false
	}
	return int64(q), remainder, true
}

// magnitude is the absolute value of a, right for math.MinInt64 as well.
func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

// FormatCredits writes micros as credits for people: exact, with a point, and without
// trailing zeros ("12.5", "-0.000001", "3"). [ParseCredits] reads every result back.
func FormatCredits(micros int64) string {
	m := magnitude(micros)
	text := fmt.Sprintf("%d.%06d", m/MicrosPerCredit, m%MicrosPerCredit)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	if micros < 0 {
		return "-" + text
	}
	return text
}

// ParseCredits reads a decimal number of credits ("12.5") as micros (12500000). It takes
// plain digits with an optional leading minus and at most six decimals: no exponent, no
// grouping, no spaces, no plus sign. What would have to be rounded is refused, and so is
// what does not fit an int64. The result may be beyond [Max] or negative: the caller knows
// which range it wants.
func ParseCredits(s string) (int64, error) {
	digits, negative := strings.CutPrefix(s, "-")
	whole, fraction, pointed := strings.Cut(digits, ".")
	switch {
	case whole == "" || pointed && fraction == "":
		return 0, fmt.Errorf("parse credits %q: want digits, as in 12.5", clip(s))
	case !onlyDigits(whole) || !onlyDigits(fraction):
		return 0, fmt.Errorf("parse credits %q: only digits and one point are allowed", clip(s))
	case len(fraction) > decimals:
		return 0, fmt.Errorf("parse credits %q: more than six decimals", clip(s))
	}
	fraction += strings.Repeat("0", decimals-len(fraction))
	micros, ok := int64(0), true
	for _, digit := range []byte(whole + fraction) {
		// Counted downwards, because -2^63 exists and 2^63 does not.
		if micros, ok = Mul(micros, 10); ok {
			micros, ok = Sub(micros, int64(digit-'0'))
		}
		if !ok {
			return 0, fmt.Errorf("parse credits %q: too large, it does not fit 64 bits of micros", clip(s))
		}
	}
	if negative {
		return micros, nil
	}
	if micros, ok = Sub(0, micros); !ok {
		return 0, fmt.Errorf("parse credits %q: too large, it does not fit 64 bits of micros", clip(s))
	}
	return micros, nil
}

func onlyDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// clip keeps an error message readable when the input is not.
func clip(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
