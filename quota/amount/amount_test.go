package amount

import (
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestArithmeticAtTheEdges(t *testing.T) {
	const most, least = math.MaxInt64, math.MinInt64
	for _, c := range []struct {
		name string
		op   func(a, b int64) (int64, bool)
		a, b int64
		want int64
		ok   bool
	}{
		{"add", Add, 2, 3, 5, true},
		{"add to the top", Add, most - 1, 1, most, true},
		{"add over the top", Add, most, 1, 0, false},
		{"add to the bottom", Add, least + 1, -1, least, true},
		{"add under the bottom", Add, least, -1, 0, false},
		{"add of both ends", Add, least, most, -1, true},
		{"sub", Sub, 2, 3, -1, true},
		{"sub of the bottom", Sub, 0, least, 0, false},
		{"sub of the bottom from below zero", Sub, -1, least, most, true},
		{"sub under the bottom", Sub, least, 1, 0, false},
		{"mul", Mul, -4, 5, -20, true},
		{"mul by zero", Mul, least, 0, 0, true},
		{"mul to the bottom", Mul, 1 << 62, -2, least, true},
		{"mul bottom by one", Mul, least, 1, least, true},
		{"mul bottom by minus one", Mul, least, -1, 0, false},
		{"mul over the top", Mul, 1 << 32, 1 << 31, 0, false},
		{"mul under the bottom", Mul, 1 << 32, -(1<<31 + 1), 0, false},
		{"mul by three over the top", Mul, 1 << 62, 3, 0, false},
		{"mul far over the top", Mul, most, most, 0, false},
	} {
		got, ok := c.op(c.a, c.b)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%s: (%d, %d) = %d, %v; want %d, %v", c.name, c.a, c.b, got, ok, c.want, c.ok)
		}
	}
}

func TestMulDivAtTheEdges(t *testing.T) {
	const most = math.MaxInt64
	for _, c := range []struct {
		a, b, d  int64
		up, down int64
		ok       bool
	}{
		{0, 0, 1, 0, 0, true},
		{1, 1, 1000, 1, 0, true},
		{10, 10, 3, 34, 33, true},
		{1000, 3, 1000, 3, 3, true},
		{most, most, most, most, most, true},
		{most, 2, 1, 0, 0, false},
		{most, most, 1, 0, 0, false},
		{1 << 62, 8, 2, 0, 0, false}, // The quotient is 2^64.
		{-1, 1, 1, 0, 0, false},
		{1, -1, 1, 0, 0, false},
		{1, 1, 0, 0, 0, false},
		{1, 1, -1, 0, 0, false},
	} {
		up, upOK := MulDivUp(c.a, c.b, c.d)
		down, downOK := MulDivDown(c.a, c.b, c.d)
		if upOK != c.ok || downOK != c.ok || c.ok && (up != c.up || down != c.down) {
			t.Errorf("%d*%d/%d = up %d %v, down %d %v; want %d, %d, %v",
				c.a, c.b, c.d, up, upOK, down, downOK, c.up, c.down, c.ok)
		}
	}
	// The quotient is MaxInt64 exactly, and only rounding it up overflows.
	if q, ok := MulDivDown(most, 3, 3); !ok || q != most {
		t.Errorf("MulDivDown at the top = %d, %v", q, ok)
	}
	const a, b, d = int64(1)<<62 + 1, int64(4), int64(2)
	if _, ok := MulDivUp(a, b, d); ok {
		t.Errorf("MulDivUp(%d, %d, %d) fits", a, b, d)
	}
}

// Against arithmetic without bounds, which is obviously right.
func TestArithmeticAgreesWithBigIntegers(t *testing.T) {
	check := func(t *rapid.T, what string, got int64, ok bool, want *big.Int) {
		if ok != want.IsInt64() || ok && got != want.Int64() {
			t.Fatalf("%s = %d, %v; want %s", what, got, ok, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		x, y := big.NewInt(a), big.NewInt(b)
		got, ok := Add(a, b)
		check(t, "Add", got, ok, new(big.Int).Add(x, y))
		got, ok = Sub(a, b)
		check(t, "Sub", got, ok, new(big.Int).Sub(x, y))
		got, ok = Mul(a, b)
		check(t, "Mul", got, ok, new(big.Int).Mul(x, y))
	})
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Int64Min(0).Draw(t, "a")
		b := rapid.Int64Min(0).Draw(t, "b")
		d := rapid.Int64Min(1).Draw(t, "d")
		down, remainder := new(big.Int).DivMod(
			new(big.Int).Mul(big.NewInt(a), big.NewInt(b)), big.NewInt(d), new(big.Int))
		got, ok := MulDivDown(a, b, d)
		check(t, "MulDivDown", got, ok, down)
		up := new(big.Int).Set(down)
		if remainder.Sign() > 0 {
			up.Add(up, big.NewInt(1))
		}
		got, ok = MulDivUp(a, b, d)
		check(t, "MulDivUp", got, ok, up)
	})
}

func TestCreditsAsText(t *testing.T) {
	for micros, text := range map[int64]string{
		0:             "0",
		1:             "0.000001",
		-1:            "-0.000001",
		12_500_000:    "12.5",
		12_345_678:    "12.345678",
		100_000_000:   "100",
		-3_000_000:    "-3",
		math.MaxInt64: "9223372036854.775807",
		math.MinInt64: "-9223372036854.775808",
	} {
		if got := FormatCredits(micros); got != text {
			t.Errorf("FormatCredits(%d) = %q, want %q", micros, got, text)
		}
		if got, err := ParseCredits(text); err != nil || got != micros {
			t.Errorf("ParseCredits(%q) = %d, %v, want %d", text, got, err, micros)
		}
	}
	for text, micros := range map[string]int64{"007": 7_000_000, "1.500000": 1_500_000, "-0": 0} {
		if got, err := ParseCredits(text); err != nil || got != micros {
			t.Errorf("ParseCredits(%q) = %d, %v, want %d", text, got, err, micros)
		}
	}
}

func TestParseCreditsNamesTheProblem(t *testing.T) {
	for text, problem := range map[string]string{
		"":                       "want digits",
		"-":                      "want digits",
		".5":                     "want digits",
		"5.":                     "want digits",
		"+5":                     "only digits",
		"--5":                    "only digits",
		" 5":                     "only digits",
		"1e3":                    "only digits",
		"1,000":                  "only digits",
		"1.2.3":                  "only digits",
		"0x10":                   "only digits",
		"١":                      "only digits",
		"1.1234567":              "more than six decimals",
		"1.0000000":              "more than six decimals",
		"9223372036854.775808":   "too large",
		"-9223372036854.775809":  "too large",
		"99999999999999999999":   "too large",
		strings.Repeat("9", 1e5): "too large",
	} {
		_, err := ParseCredits(text)
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("ParseCredits(%.40q) = %v, want an error that says %q", text, err, problem)
		} else if len(err.Error()) > 200 {
			t.Errorf("ParseCredits(%.40q): error of %d bytes", text, len(err.Error()))
		}
	}
}

func TestCreditsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		micros := rapid.Int64().Draw(t, "micros")
		got, err := ParseCredits(FormatCredits(micros))
		if err != nil || got != micros {
			t.Fatalf("%d was read back as %d, %v", micros, got, err)
		}
	})
}

func FuzzParseCredits(f *testing.F) {
	for _, seed := range []string{"", "12.5", "-0.000001", "1e9", "9223372036854.775807", "1.2.3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		micros, err := ParseCredits(s)
		if err != nil {
			return
		}
		again, err := ParseCredits(FormatCredits(micros))
		if err != nil || again != micros {
			t.Fatalf("%q is %d micros, and %q is %d, %v", s, micros, FormatCredits(micros), again, err)
		}
	})
}
