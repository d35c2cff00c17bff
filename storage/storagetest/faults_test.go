package storagetest

import (
	"fmt"
	"testing"

	"github.com/purser-io/purser/storage/faultstore"
)

// TestLostAnswers runs what happens at once with requests and answers lost at random: whoever
// sends the same again gets the same answer, and the books balance (R5, R11, R17, R19).
func TestLostAnswers(t *testing.T) {
	h := onSQLite()
	for seed := range uint64(4) {
		met := 0
		disturbed := Harness{Name: "disturbed", Open: func(t testing.TB) Opened {
			o := h.Open(t)
			s := faultstore.New(o.Store)
			o.Store = s
			o.Disturb = func() func() {
				s.Randomise(seed, faultstore.Rates{FailBefore: 60, FailAfter: 120, Swallow: 120})
				return func() {
					s.Clear()
					met += s.Met()
				}
			}
			return o
		}}
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			for _, test := range concurrencyTests() {
				t.Run(test.Name, func(t *testing.T) { RunOne(t, disturbed, test) })
			}
			if met < 20 {
				t.Errorf("%d calls went wrong: the test shows little", met)
			}
		})
	}
}
