package token

import (
	"encoding/binary"
	"math"

	"github.com/purser-io/purser/quota/label"
)

const maxLabels = label.MaxLabels

// The first byte of a slot: its kind in the low bits, and what follows.
const (
	slotKind   = 0x0f
	slotHasPot = 0x10 // The pot's id follows.
	slotMeter  = 0x20 // The meter follows; else the unit is credits.
	slotOn     = 0x40 // Continues the slot before.
	slotKnown  = slotKind | slotHasPot | slotMeter | slotOn
)

// appendBody writes all fields of t but the key's id. Random and dense numbers are written
// with fixed size, the rest as varints; times as the distance from the first, allotments as the
// distance from the one before, which is mostly one byte.
func appendBody(b []byte, t *Token) []byte {
	b = binary.AppendVarint(b, t.Lane)
	b = binary.AppendUvarint(b, t.Sequence)
	b = binary.LittleEndian.AppendUint64(b, t.Nonce)
	b = append(b, t.Generation)
	b = binary.LittleEndian.AppendUint64(b, uint64(t.IssuedAt))
	b = binary.AppendVarint(b, t.Expires-t.IssuedAt) // Wraps, and wraps back.
	b = appendString(b, t.Account)
	b = appendPayer(b, t)
	b = appendString(b, t.Principal)
	b = appendString(b, t.Feature)
	b = binary.AppendVarint(b, t.PriceVersion)
	b = binary.AppendUvarint(b, uint64(len(t.Labels)))
	for i := range t.Labels {
		b = appendString(b, t.Labels[i].Key)
		b = appendString(b, t.Labels[i].Value)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Slots)))
	before := int64(0)
	for i := range t.Slots {
		b, before = appendSlot(b, &t.Slots[i], before)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// appendPayer writes one zero byte for an account that pays for itself, as most do, and
// else the payer's length plus one and the payer.
func appendPayer(b []byte, t *Token) []byte {
	if t.Payer == t.Account {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(t.Payer))+1)
	return append(b, t.Payer...)
}

func appendSlot(b []byte, slot *Slot, before int64) ([]byte, int64) {
	head := slot.Kind
	if slot.PotID != "" {
		head |= slotHasPot
	}
	if slot.Unit != "" {
		head |= slotMeter
	}
	if slot.Continues {
		head |= slotOn
	}
	b = append(b, head)
	if slot.PotID != "" {
		b = appendString(b, slot.PotID)
	}
	if slot.Unit != "" {
		b = appendString(b, slot.Unit)
	}
	b = binary.AppendUvarint(b, uint64(len(slot.Parts)))
	for _, part := range slot.Parts {
		b = binary.AppendVarint(b, int64(part.Allotment)-before)
		b = binary.AppendUvarint(b, uint64(part.Amount))
		before = int64(part.Allotment)
	}
	return b, before
}

// readBody is the inverse of appendBody. The body is authentic when it comes here; it
// is read with care all the same, for a key may be shared with a build that differs.
func readBody(body []byte, t *Token) error {
	r := reader{rest: body, text: string(body)}
	t.Lane = r.varint()
	t.Sequence = r.uvarint()
	t.Nonce = r.fixed()
	t.Generation = r.byte()
	t.IssuedAt = int64(r.fixed())
	t.Expires = t.IssuedAt + r.varint()
	t.Account = r.string()
	t.Payer = r.payer(t.Account)
	t.Principal = r.string()
	t.Feature = r.string()
	t.PriceVersion = r.varint()
	t.Labels = t.Labels[:0]
	for range r.count(maxLabels) {
		t.Labels = append(t.Labels, label.Pair{Key: r.string(), Value: r.string()})
	}
	r.slots(t)
	if r.bad || len(r.rest) > 0 {
		return ErrMalformed
	}
	return nil
}

// reader takes fields off a body. After the first field that is not there, bad is set and
// every further field is zero.
type reader struct {
	rest []byte
	text string // The whole body, of which strings are cut.
	bad  bool
}

func (r *reader) fail() {
	r.bad, r.rest = true, nil
}

func (r *reader) take(n int) {
	if n <= 0 || n > len(r.rest) {
		r.fail()
		return
	}
	r.rest = r.rest[n:]
}

func (r *reader) varint() int64 {
	value, n := binary.Varint(r.rest)
	r.take(n)
	return value
}

func (r *reader) uvarint() uint64 {
	value, n := binary.Uvarint(r.rest)
	r.take(n)
	return value
}

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	value := r.rest[0]
	r.rest = r.rest[1:]
	return value
}

func (r *reader) fixed() uint64 {
	if len(r.rest) < 8 {
		r.fail()
		return 0
	}
	value := binary.LittleEndian.Uint64(r.rest)
	r.rest = r.rest[8:]
	return value
}

// count reads the length of a list and refuses it above most.
func (r *reader) count(most int) int {
	n := r.uvarint()
	if n > uint64(most) {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *reader) string() string {
	return r.cut(r.uvarint())
}

// cut takes n bytes as a string.
func (r *reader) cut(n uint64) string {
	if n > uint64(len(r.rest)) {
		r.fail()
		return ""
	}
	start := len(r.text) - len(r.rest)
	r.rest = r.rest[n:]
	return r.text[start : start+int(n)]
}

func (r *reader) payer(account string) string {
	n := r.uvarint()
	if n == 0 {
		return account
	}
	return r.cut(n - 1)
}

func (r *reader) slots(t *Token) {
	n := r.count(MaxSlots)
	t.Slots = t.Slots[:0]
	before := int64(0)
	for i := range n {
		if i < cap(t.Slots) {
			t.Slots = t.Slots[:i+1] // Finds the parts of an earlier token again, to reuse.
		} else {
			t.Slots = append(t.Slots, Slot{})
		}
		before = r.slot(&t.Slots[i], before)
	}
	if checkOrder(t.Slots) != nil {
		r.fail()
	}
}

func (r *reader) slot(slot *Slot, before int64) int64 {
	head := r.byte()
	slot.Kind = head & slotKind
	if head&^slotKnown != 0 || slot.Kind < KindWallet || slot.Kind > KindQuota {
		r.fail()
	}
	slot.PotID, slot.Unit, slot.Continues = "", "", head&slotOn != 0
	if head&slotHasPot != 0 {
		slot.PotID = r.string()
	}
	if head&slotMeter != 0 {
		slot.Unit = r.string()
	}
	slot.Parts = slot.Parts[:0]
	for range r.count(MaxParts) {
		allotment := before + r.varint()
		held := r.uvarint()
		if allotment < 0 || allotment > math.MaxUint32 || held > math.MaxInt64 {
			r.fail()
			return 0
		}
		slot.Parts = append(slot.Parts, Part{uint32(allotment), int64(held)})
		before = allotment
	}
	return before
}
