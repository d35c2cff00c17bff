package escrow

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestAnswers: whatever was answered is found as it was until it is due, and then no more, with
// any number of others before and behind it.
func TestAnswers(t *testing.T) {
	type known struct {
		content KeyHash
		due     int64
		d       quota.Decision
	}
	const span = 510 // a grain of 1
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 0))
		now, a, model := int64(0), newAnswers(0, span), map[KeyHash]known{}
		got := quota.Decision{Granted: make([]quota.Quantity, 2), Token: []byte("of another"), Warnings: []quota.Warning{}, Remaining: []quota.Remaining{}}
		for serial := range byte(200) {
			k := known{KeyHash{byte(random.IntN(3))}, now + random.Int64N(span), grant(random)}
			a.keep(KeyHash{serial}, k.content, k.due, &k.d)
			model[KeyHash{serial}] = k
			now += random.Int64N(10)
			forgotten := a.forget(now)
			for key, k := range model {
				if k.due < now {
					delete(model, key)
					forgotten--
				}
			}
			if forgotten != 0 || len(a.at) != len(model) {
				t.Fatalf("seed %d, %d answers: forgotten %d too many, %d are known of %d", seed, serial, forgotten, len(a.at), len(model))
			}
			if serial%20 != 0 {
				continue
			}
			for key, want := range model {
				found, ok := a.find(key)
				if !ok || found.content() != want.content {
					t.Fatalf("seed %d, %d answers: key %x is found: %t", seed, serial, key, ok)
				}
				found.read(&got)
				want.d.Allowed, want.d.Replayed = true, true
				if !reflect.DeepEqual(got, want.d) {
					t.Fatalf("seed %d, %d answers: key %x\n got %+v\nwant %+v", seed, serial, key, got, want.d)
				}
			}
		}
		a.forget(now + 2*span)
		for slot, pages := range a.due.slots {
			if len(pages) != 0 {
				t.Fatalf("seed %d: slot %d keeps %d pages of nothing", seed, slot, len(pages))
			}
		}
	}
}

// grant is an answer of any size, to one that needs more than a page.
func grant(random *rand.Rand) quota.Decision {
	size := []int{0, 184, 184, 184, 184, 184, 184, 900, firstPage, largePage}[random.IntN(10)]
	number := func() int64 { return int64(random.Uint64()) >> random.IntN(64) }
	text := func() string { return strings.Repeat("é", random.IntN(3)*random.IntN(16)) }
	level := func() quota.Level {
		return quota.Level{Kind: quota.PotKind(random.IntN(4)), Account: text(), Limit: text(), LabelKey: text(), Selector: text(), Unit: text()}
	}
	d := quota.Decision{Token: bytes.Repeat([]byte{byte(size + random.IntN(9))}, size), Sequence: random.Uint64(), Nonce: random.Uint64(),
		Feature: text(), Held: number(), ExpiresAt: number(), PriceVersion: number(), Partial: random.IntN(2) == 0, Exhausted: random.IntN(2) == 0,
		Granted: []quota.Quantity{}, Warnings: []quota.Warning{}, Remaining: []quota.Remaining{}}
	for range random.IntN(4) {
		d.Granted = append(d.Granted, quota.Quantity{Meter: text(), Quantity: number()})
	}
	for range random.IntN(3) {
		d.Warnings = append(d.Warnings, quota.Warning{Level: level(), Used: number(), Cap: number()})
	}
	for range random.IntN(4) {
		d.Remaining = append(d.Remaining, quota.Remaining{Level: level(), Amount: number()})
	}
	return d
}
