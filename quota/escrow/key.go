package escrow

import (
	"encoding/binary"

	"github.com/purser-io/purser/quota"
)

// KeyHash stands for an idempotency key with its principal and account, or for a request's
// content (R53).
type KeyHash [16]byte

// Replay gives the answer that the request's key had before, if the request is the same. d is
// overwritten, its memory reused.
func (s *Shard) Replay(r *Request, d *quota.Decision) bool {
	a, known := s.answers.find(r.Key)
	if !known || a.content() != r.Content {
		return false
	}
	a.read(d)
	d.Lane = s.lane
	return true
}

// Remember keeps the answer to a request with a key for twice its TTL, in the same locked
// section as the Reserve that granted it.
func (s *Shard) Remember(now int64, r *Request, d *quota.Decision) {
	s.answers.keep(r.Key, r.Content, now+2*r.TTL, d)
	s.cfg.Room.keys.Add(1)
}

// forgetKeys drops keys whose time is over.
func (s *Shard) forgetKeys(now int64) {
	s.cfg.Room.keys.Add(-int64(s.answers.forget(now)))
}

// answers is what idempotency keys were answered with, each until it is due. Only grants are
// remembered: a denial has no effect, and a later try may succeed.
//
// A node remembers hundreds of thousands. They are bytes behind one another on the shelf of the
// tick at which they are forgotten: the garbage collector finds no pointer to follow, and nothing
// to free but whole pages.
type answers struct {
	at      map[KeyHash]place
	due     wheel[shelf]
	scratch answer
}

// place is where an answer begins: an answer that ends a page of largePage begins before it ends.
type place struct {
	page     uint32
	slot, at uint16
}

// shelf is what is forgotten at the same tick: answers, each with its key and length before it.
type shelf [][]byte

// Pages grow with their shelf, so that a shelf of few answers is small.
const (
	firstPage = 1 << 10
	largePage = 1 << 16
)

// Before each answer stand its key and its length.
const (
	keyBytes    = len(KeyHash{})
	headerBytes = keyBytes + 4
)

func newAnswers(now, span int64) answers {
	return answers{at: make(map[KeyHash]place), due: newWheel[shelf](now, span)}
}

// keep writes an answer down; the key must have none.
func (a *answers) keep(key, content KeyHash, due int64, d *quota.Decision) {
	a.scratch.write(content, d)
	slot := a.due.slot(due)
	pages := &a.due.slots[slot]
	need := headerBytes + len(a.scratch)
	last := len(*pages) - 1
	if last < 0 || cap((*pages)[last])-len((*pages)[last]) < need {
		size := firstPage
		if last >= 0 {
			size = min(2*cap((*pages)[last]), largePage)
		}
		*pages = append(*pages, make([]byte, 0, max(size, need)))
		last++
	}
	page := &(*pages)[last]
	a.at[key] = place{slot: uint16(slot), page: uint32(last), at: uint16(len(*page) + headerBytes)}
	*page = append(*page, key[:]...)
	*page = binary.LittleEndian.AppendUint32(*page, uint32(len(a.scratch)))
	*page = append(*page, a.scratch...)
}

// find is a key's answer, in the shelf's memory.
func (a *answers) find(key KeyHash) (answer, bool) {
	p, ok := a.at[key]
	if !ok {
		return nil, false
	}
	page := a.due.slots[p.slot][p.page]
	size := binary.LittleEndian.Uint32(page[p.at-4:])
	return page[p.at : uint32(p.at)+size], true
}

// forget drops the answers that are due, and says how many.
func (a *answers) forget(now int64) (many int) {
	many = len(a.at)
	for pages := range a.due.due(now) {
		for _, page := range *pages {
			for len(page) > 0 {
				delete(a.at, KeyHash(page))
				page = page[headerBytes+int(binary.LittleEndian.Uint32(page[keyBytes:])):]
			}
		}
		*pages = nil
	}
	return many - len(a.at)
}

// clear drops all of them.
func (a *answers) clear() {
	clear(a.at)
	clear(a.due.slots)
}

// answer is a grant in bytes: a hash of what was asked, then what a quota.Decision says of it.
type answer []byte

func (a answer) content() KeyHash { return KeyHash(a) }

// write overwrites the answer, reusing its memory.
func (a *answer) write(content KeyHash, d *quota.Decision) {
	b := append((*a)[:0], content[:]...)
	b = appendText(b, d.Token)
	b = binary.AppendUvarint(b, d.Sequence)
	b = binary.LittleEndian.AppendUint64(b, d.Nonce)
	b = appendText(b, d.Feature)
	b = binary.AppendVarint(b, d.Held)
	b = binary.AppendVarint(b, d.ExpiresAt)
	b = binary.AppendVarint(b, d.PriceVersion)
	b = append(b, bit(d.Partial, 1)|bit(d.Exhausted, 2))
	b = binary.AppendUvarint(b, uint64(len(d.Granted)))
	for i := range d.Granted {
		b = appendText(b, d.Granted[i].Meter)
		b = binary.AppendVarint(b, d.Granted[i].Quantity)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Warnings)))
	for i := range d.Warnings {
		b = appendLevel(b, &d.Warnings[i].Level)
		b = binary.AppendVarint(b, d.Warnings[i].Used)
		b = binary.AppendVarint(b, d.Warnings[i].Cap)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Remaining)))
	for i := range d.Remaining {
		b = appendLevel(b, &d.Remaining[i].Level)
		b = binary.AppendVarint(b, d.Remaining[i].Amount)
	}
	*a = b
}

// read overwrites d with the answer, reusing its memory; the lane is not in it.
func (a answer) read(d *quota.Decision) {
	b := answerReader(a[keyBytes:])
	*d = quota.Decision{Allowed: true, Replayed: true, Token: append(d.Token[:0], b.bytes()...),
		Granted: d.Granted[:0], Warnings: d.Warnings[:0], Remaining: d.Remaining[:0]}
	d.Sequence, d.Nonce, d.Feature = b.uvarint(), b.uint64(), b.text()
	d.Held, d.ExpiresAt, d.PriceVersion = b.varint(), b.varint(), b.varint()
	flags := b.byte()
	d.Partial, d.Exhausted = flags&1 != 0, flags&2 != 0
	for range b.uvarint() {
		d.Granted = append(d.Granted, quota.Quantity{Meter: b.text(), Quantity: b.varint()})
	}
	for range b.uvarint() {
		d.Warnings = append(d.Warnings, quota.Warning{Level: b.level(), Used: b.varint(), Cap: b.varint()})
	}
	for range b.uvarint() {
		d.Remaining = append(d.Remaining, quota.Remaining{Level: b.level(), Amount: b.varint()})
	}
}

func bit(set bool, value byte) byte {
	if set {
		return value
	}
	return 0
}

func appendText[T string | []byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendLevel(b []byte, l *quota.Level) []byte {
	b = append(b, byte(l.Kind))
	for _, text := range [...]string{l.Account, l.Limit, l.LabelKey, l.Selector, l.Unit} {
		b = appendText(b, text)
	}
	return b
}

// answerReader takes an answer's parts off its front. They are this package's own bytes, so
// that what is missing is a bug, and panics.
type answerReader []byte

func (b *answerReader) byte() byte {
	first := (*b)[0]
	*b = (*b)[1:]
	return first
}

func (b *answerReader) uint64() uint64 {
	n := binary.LittleEndian.Uint64(*b)
	*b = (*b)[8:]
	return n
}

func (b *answerReader) uvarint() uint64 {
	n, size := binary.Uvarint(*b)
	*b = (*b)[size:]
	return n
}

func (b *answerReader) varint() int64 {
	n, size := binary.Varint(*b)
	*b = (*b)[size:]
	return n
}

func (b *answerReader) bytes() []byte {
	size := b.uvarint()
	text := (*b)[:size]
	*b = (*b)[size:]
	return text
}

func (b *answerReader) text() string { return string(b.bytes()) }

func (b *answerReader) level() quota.Level {
	return quota.Level{Kind: quota.PotKind(b.byte()), Account: b.text(), Limit: b.text(), LabelKey: b.text(), Selector: b.text(), Unit: b.text()}
}
