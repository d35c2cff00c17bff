package document

import (
	"strings"
	"testing"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func TestYAMLIsJSONWithoutBraces(t *testing.T) {
	value := map[string]any{
		"a": []any{map[string]any{"number": "12", "word": "x"}, []string{}},
		"b": "true", "c": true, "d": 12, "e": "2026-01-01", "f": "two\nlines", "g": "a: b",
		"answer": Answer{&purserv1.ReleaseResponse{State: purserv1.ReservationState_RESERVATION_STATE_RELEASED, Replayed: true}},
	}
	want := strings.TrimPrefix(`
a:
  - number: "12"
    word: x
  - []
answer:
  state: RESERVATION_STATE_RELEASED
  replayed: true
b: "true"
c: true
d: 12
e: "2026-01-01"
f: |-
  two
  lines
g: 'a: b'
`, "\n")
	var b strings.Builder
	if err := YAML(&b, value); err != nil {
		t.Fatal(err)
	}
	if b.String() != want {
		t.Errorf("YAML:\n%s\nwant:\n%s", b.String(), want)
	}
}
