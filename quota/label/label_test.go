package label

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustNew(t testing.TB, m map[string]string) Set {
	t.Helper()
	set, err := New(m)
	if err != nil {
		t.Fatalf("New(%v): %v", m, err)
	}
	return set
}

// numbered makes n labels whose values have size bytes.
func numbered(prefix string, n, size int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("%s%02d", prefix, i)] = strings.Repeat("v", size)
	}
	return m
}

func TestNewSorts(t *testing.T) {
	set := mustNew(t, map[string]string{"user": "ann", "team": "search", "a.b-c_9": "", "model": "größe"})
	want := Set{{"a.b-c_9", ""}, {"model", "größe"}, {"team", "search"}, {"user", "ann"}}
	if !slices.Equal(set, want) {
		t.Errorf("got %v, want %v", set, want)
	}
	if value, ok := set.Get("team"); !ok || value != "search" {
		t.Errorf("team = %q, %v", value, ok)
	}
	if value, ok := set.Get("a.b-c_9"); !ok || value != "" {
		t.Errorf("an empty value reads as %q, %v", value, ok)
	}
	if value, ok := set.Get("tea"); ok {
		t.Errorf("an absent key has the value %q", value)
	}
}

func TestEmpty(t *testing.T) {
	set := mustNew(t, nil)
	if set != nil || len(set.Map()) != 0 {
		t.Errorf("no labels give %v", set)
	}
	if _, ok := set.Get("a"); ok {
		t.Error("the empty set has a label")
	}
}

func TestBoundsAreReached(t *testing.T) {
	mustNew(t, numbered("k", MaxLabels, MaxBytes/MaxLabels-3))
	mustNew(t, map[string]string{"k" + strings.Repeat("0", MaxKeyBytes-1): strings.Repeat("v", MaxValueBytes)})
}

func TestNewNamesLabelAndBound(t *testing.T) {
	for _, c := range []struct {
		name   string
		labels map[string]string
		says   []string
	}{
		{"too many", numbered("k", MaxLabels+1, 1), []string{"17", "at most 16"}},
		{"too many bytes", numbered("k", 5, 110), []string{`"k04"`, "at most 512"}},
		{"one byte too many", numbered("k", 4, 126), []string{`"k03"`, "at most 512"}},
		{"empty key", map[string]string{"": "v"}, []string{"empty"}},
		{"long key", map[string]string{strings.Repeat("k", 64): "v"}, []string{"kkkk", "64 bytes", "at most 63"}},
		{"upper case", map[string]string{"Team": "v"}, []string{`"Team"`, "a-z"}},
		{"starts with a digit", map[string]string{"1st": "v"}, []string{`"1st"`}},
		{"starts with a sign", map[string]string{"-k": "v"}, []string{`"-k"`}},
		{"space", map[string]string{"a b": "v"}, []string{`"a b"`}},
		{"not ASCII", map[string]string{"größe": "v"}, []string{`"größe"`}},
		{"long value", map[string]string{"k": strings.Repeat("v", 129)}, []string{`"k"`, "129 bytes", "at most 128"}},
		{"newline", map[string]string{"k": "a\nb"}, []string{`"k"`, "control"}},
		{"C1 control", map[string]string{"k": "a\u0085b"}, []string{`"k"`, "control"}},
		{"NUL", map[string]string{"k": "\x00"}, []string{`"k"`, "control"}},
		{"not UTF-8", map[string]string{"k": "\xff"}, []string{`"k"`, "UTF-8"}},
		{"the first by key is named", map[string]string{"b": "\x00", "a": "\x00", "c": "\x00"}, []string{`"a"`}},
	} {
		_, err := New(c.labels)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %s", c.name, err, part)
			}
		}
	}
}

func TestKeysAgreeWithTheExpression(t *testing.T) {
	expression := regexp.MustCompile(`^[a-z][a-z0-9_.-]{0,62}$`)
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(rapid.StringMatching(`[a-z][a-z0-9_.-]{0,66}`), rapid.String()).Draw(t, "key")
		_, err := New(map[string]string{key: ""})
		if (err == nil) != expression.MatchString(key) {
			t.Fatalf("%q: %v", key, err)
		}
	})
}

func TestMergeLetsTheBoundLabelWin(t *testing.T) {
	sent := mustNew(t, map[string]string{"team": "finance", "user": "ann", "agent": "a1"})
	bound := mustNew(t, map[string]string{"team": "search", "region": "eu"})
	got, err := Merge(sent, bound)
	want := Set{{"agent", "a1"}, {"region", "eu"}, {"team", "search"}, {"user", "ann"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if value, _ := sent.Get("team"); value != "finance" {
		t.Errorf("Merge changed what was sent: %v", sent)
	}
}

func TestMergeChecksTheResult(t *testing.T) {
	for name, says := range map[string]string{"many": "at most 16", "large": "at most 512"} {
		n, size := 9, 1
		if name == "large" {
			n, size = 3, 100
		}
		_, err := Merge(mustNew(t, numbered("a", n, size)), mustNew(t, numbered("b", n, size)))
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "bound to the key") {
			t.Errorf("%s: got %v, want an error that says %q", name, err, says)
		}
	}
}

func TestMergeAgreesWithMaps(t *testing.T) {
	labels := rapid.MapOfN(rapid.SampledFrom(strings.Split("abcdefgh", "")), rapid.SampledFrom([]string{"", "x", "y"}), 0, 8)
	rapid.Check(t, func(t *rapid.T) {
		sent, bound := labels.Draw(t, "sent"), labels.Draw(t, "bound")
		a, errA := New(sent)
		b, errB := New(bound)
		got, err := Merge(a, b)
		if errA != nil || errB != nil || err != nil {
			t.Fatalf("errors: %v, %v, %v", errA, errB, err)
		}
		want := maps.Clone(sent)
		maps.Copy(want, bound)
		if !maps.Equal(got.Map(), want) || len(got) != len(want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if !slices.IsSortedFunc(got, func(x, y Pair) int { return strings.Compare(x.Key, y.Key) }) {
			t.Fatalf("%v is not sorted", got)
		}
	})
}

// BenchmarkNew resolves the labels of a request.
func BenchmarkNew(b *testing.B) {
	sent := map[string]string{"user": "u-1234", "team": "search", "region": "eu-west-1"}
	b.ReportAllocs()
	for range b.N {
		if _, err := New(sent); err != nil {
			b.Fatal(err)
		}
	}
}
