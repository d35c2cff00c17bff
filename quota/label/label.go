// Package label holds resolved attribution labels: key=value pairs such as team=search,
// checked, bounded and sorted, as budgets select them and usage is reported by them.
//
// A [Set] is what remains when the labels of a request and the labels bound to an API key
// have been merged. The package gives no key a meaning and matches no selectors.
package label

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a Set (R37: labels travel in every token).
const (
	// MaxLabels is the largest number of labels in a Set.
	MaxLabels = 16
	// MaxBytes is the largest size of a Set: all keys and values together, in bytes.
	MaxBytes = 512
	// MaxKeyBytes is the largest size of a key. A key is a lower-case letter followed by
	// lower-case letters, digits, and the signs _ . -
	MaxKeyBytes = 63
	// MaxValueBytes is the largest size of a value. A value is UTF-8 without control
	// characters, and may be empty.
	MaxValueBytes = 128
)

// Pair is one label.
type Pair struct{ Key, Value string }

// Set is a list of labels, sorted by key, each key once. Make one with [New] or [Merge]; it
// is not changed afterwards, so it may be shared. The nil Set is empty.
type Set []Pair

// New checks m and returns it as a Set; an empty m gives the nil Set. The error names the
// first label, by key, that breaks a bound, and the bound.
func New(m map[string]string) (Set, error) {
	if len(m) == 0 {
		return nil, nil
	}
	if err := checkCount(len(m)); err != nil {
		return nil, err
	}
	set := make(Set, 0, len(m)) // the only allocation: every reservation comes by here
	for key, value := range m {
		set = append(set, Pair{key, value})
	}
	slices.SortFunc(set, func(a, b Pair) int { return strings.Compare(a.Key, b.Key) })
	for i := range set {
		if err := set[i].check(); err != nil {
			return nil, err
		}
	}
	return set, set.checkBytes()
}

// Merge joins the labels sent with a request and those bound to the API key; where both have
// a key, the bound value wins, for a caller must not charge another team's budget. The
// error is about the bounds of the result. Neither argument is changed; the result may be
// one of them.
func Merge(sent, bound Set) (Set, error) {
	switch {
	case len(bound) == 0:
		return sent, nil
	case len(sent) == 0:
		return bound, nil
	}
	merged := make(Set, 0, len(sent)+len(bound))
	for len(sent) > 0 && len(bound) > 0 {
		switch strings.Compare(sent[0].Key, bound[0].Key) {
		case -1:
			merged, sent = append(merged, sent[0]), sent[1:]
		case 0:
			sent = sent[1:]
		default:
			merged, bound = append(merged, bound[0]), bound[1:]
		}
	}
	merged = append(append(merged, sent...), bound...)
	if err := checkCount(len(merged)); err != nil {
		return nil, fmt.Errorf("with the labels bound to the key: %w", err)
	}
	if err := merged.checkBytes(); err != nil {
		return nil, fmt.Errorf("with the labels bound to the key: %w", err)
	}
	return merged, nil
}

// Get returns the value of key, and whether the Set has it.
func (s Set) Get(key string) (value string, ok bool) {
	for i := range s { // At most MaxLabels: a scan beats a search.
		if s[i].Key == key {
			return s[i].Value, true
		}
	}
	return "", false
}

// Map returns the labels as a new map, empty for an empty Set.
func (s Set) Map() map[string]string {
	m := make(map[string]string, len(s))
	for _, pair := range s {
		m[pair.Key] = pair.Value
	}
	return m
}

func checkCount(n int) error {
	if n > MaxLabels {
		return fmt.Errorf("labels: there are %d, at most %d are allowed", n, MaxLabels)
	}
	return nil
}

// checkBytes names the label with which the Set passes MaxBytes.
func (s Set) checkBytes() error {
	size := 0
	for _, pair := range s {
		size += len(pair.Key) + len(pair.Value)
		if size > MaxBytes {
			return fmt.Errorf("label %q: all keys and values up to this one have %d bytes, at most %d are allowed",
				pair.Key, size, MaxBytes)
		}
	}
	return nil
}

func (p Pair) check() error {
	switch {
	case p.Key == "":
		return fmt.Errorf("label %q: the key is empty", p.Key)
	case len(p.Key) > MaxKeyBytes:
		return fmt.Errorf("label %.20q...: the key has %d bytes, at most %d are allowed", p.Key, len(p.Key), MaxKeyBytes)
	case !validKey(p.Key):
		return fmt.Errorf("label %q: a key is a letter a-z followed by a-z, 0-9, '_', '.' or '-'", p.Key)
	case len(p.Value) > MaxValueBytes:
		return fmt.Errorf("label %q: the value has %d bytes, at most %d are allowed", p.Key, len(p.Value), MaxValueBytes)
	case !utf8.ValidString(p.Value):
		return fmt.Errorf("label %q: the value is not valid UTF-8", p.Key)
	case strings.ContainsFunc(p.Value, unicode.IsControl):
		return fmt.Errorf("label %q: the value has a control character", p.Key)
	}
	return nil
}

func validKey(key string) bool {
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z':
		case i > 0 && (c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return key != ""
}
