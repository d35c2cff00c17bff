package quota

import (
	"encoding/binary"

	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// The version leads every row the journal keeps. Readers refuse any other: a program that does
// not know of EXPIRED entries with usage must not take one for an end without (R23).
const (
	codecVersion     = 1
	codecVersionUsed = 2 // of an entry with usage
)

// Least bytes an element takes: what bounds a count read from a row, and with it the memory
// that a damaged row can ask for.
const (
	leastRecord = 28
	leastEntry  = 19
	leastSlot   = 7
	leastPair   = 2
)

// AppendRecords appends the body of a batch row: the records in full. Names that come again
// within the batch take a byte or two; sequences and times are differences to the record
// before. The same records always give the same bytes, so that a batch that was sent twice
// can be compared with what is stored.
func AppendRecords(dst []byte, rs []Record) []byte {
	e := encoder{b: append(dst, codecVersion), names: make(map[string]uint64)}
	e.uvarint(uint64(len(rs)))
	var last Record
	for i := range rs {
		e.record(&rs[i], &last)
		last.EntryKey, last.ReservedAt, last.PriceVersion = rs[i].EntryKey, rs[i].ReservedAt, rs[i].PriceVersion
	}
	return e.b
}

// DecodeRecords reads what [AppendRecords] wrote. It never panics; bytes of any other form
// are reason INVARIANT_VIOLATED.
func DecodeRecords(b []byte) ([]Record, error) {
	d := newDecoder(b)
	var rs []Record
	var last Record
	for range d.count(leastRecord) {
		r := d.record(&last)
		last.EntryKey, last.ReservedAt, last.PriceVersion = r.EntryKey, r.ReservedAt, r.PriceVersion
		rs = append(rs, r)
	}
	return rs, d.end("batch")
}

// AppendEntry appends the body of an entry row; its key stands in the row's key.
func AppendEntry(dst []byte, entry *Entry) []byte {
	if entry.Used == nil {
		e := encoder{b: append(dst, codecVersion)}
		e.entry(entry)
		return e.b
	}
	e := encoder{b: append(dst, codecVersionUsed), names: make(map[string]uint64)}
	e.entry(entry)
	e.usage(entry.Used.Usage, entry.Used.Lines)
	return e.b
}

// DecodeEntry reads what [AppendEntry] wrote, under the row's key.
func DecodeEntry(key EntryKey, b []byte) (Entry, error) {
	d := &decoder{b: b}
	version := d.byte()
	entry := d.entry(key)
	switch version {
	case codecVersion:
	case codecVersionUsed:
		entry.Used = &Used{}
		if entry.Used.Usage, entry.Used.Lines = d.usage(); len(entry.Used.Usage) == 0 {
			d.fail()
		}
	default:
		d.fail()
	}
	return entry, d.end("entry")
}

// AppendNote appends the body of a note row: its entries with their keys, without usage. The
// note's own key stands in the row's key.
func AppendNote(dst []byte, n *Note) []byte {
	e := encoder{b: append(dst, codecVersion)}
	e.uvarint(uint64(len(n.Entries)))
	last := EntryKey{Lane: n.Lane}
	for i := range n.Entries {
		e.key(n.Entries[i].EntryKey, last)
		e.entry(&n.Entries[i])
		last = n.Entries[i].EntryKey
	}
	return e.b
}

// DecodeNote reads what [AppendNote] wrote, under the row's key.
func DecodeNote(lane, guest LaneID, no int64, b []byte) (Note, error) {
	d := newDecoder(b)
	n := Note{Lane: lane, Guest: guest, BatchNo: no}
	last := EntryKey{Lane: lane}
	for range d.count(leastEntry) {
		last = d.key(last)
		n.Entries = append(n.Entries, d.entry(last))
	}
	return n, d.end("note")
}

// encoder appends to b. Differences wrap around, which decoding undoes.
type encoder struct {
	b     []byte
	names map[string]uint64 // name to its number, from 1
}

func (e *encoder) byte(v uint8)     { e.b = append(e.b, v) }
func (e *encoder) uvarint(v uint64) { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) varint(v int64)   { e.b = binary.AppendVarint(e.b, v) }

// name writes the number of a name seen before, or 0 and the name.
func (e *encoder) name(s string) {
	if n := e.names[s]; n != 0 {
		e.uvarint(n)
		return
	}
	e.names[s] = uint64(len(e.names) + 1)
	e.uvarint(0)
	e.uvarint(uint64(len(s)))
	e.b = append(e.b, s...)
}

func (e *encoder) key(k, last EntryKey) {
	e.varint(int64(k.Lane - last.Lane))
	e.varint(int64(k.Sequence - last.Sequence))
	e.byte(k.Phase)
}

func (e *encoder) parts(parts []token.Part) {
	e.uvarint(uint64(len(parts)))
	var last uint32
	for _, p := range parts {
		e.varint(int64(p.Allotment) - int64(last))
		e.varint(p.Amount)
		last = p.Allotment
	}
}

func (e *encoder) entry(x *Entry) {
	e.uvarint(x.Nonce)
	e.byte(uint8(x.Kind))
	e.b = binary.LittleEndian.AppendUint64(e.b, x.Digest)
	e.varint(x.Charged)
	e.varint(x.Held)
	e.varint(x.Uncovered)
	e.varint(int64(x.BatchLane - x.Lane)) // 0 in the owner's own batches
	e.varint(x.BatchNo)
	e.parts(x.Parts)
}

func (e *encoder) record(r, last *Record) {
	e.key(r.EntryKey, last.EntryKey)
	e.uvarint(r.Nonce)
	e.byte(uint8(r.Kind))
	e.byte(uint8(r.Outcome))
	e.bool(r.Delivered)
	for _, s := range []string{r.Account, r.Payer, r.Principal, r.Feature} {
		e.name(s)
	}
	e.varint(r.PriceVersion - last.PriceVersion)
	e.uvarint(uint64(len(r.Labels)))
	for _, l := range r.Labels {
		e.name(l.Key)
		e.name(l.Value)
	}
	e.usage(r.Usage, r.Lines)
	e.varint(r.Held)
	e.uvarint(uint64(len(r.Slots)))
	for i := range r.Slots {
		e.slot(&r.Slots[i])
	}
	e.b = binary.LittleEndian.AppendUint64(e.b, r.Digest)
	e.varint(r.ReservedAt - last.ReservedAt)
	e.varint(r.ExpiresAt - r.ReservedAt)
	e.varint(r.SettledAt - r.ReservedAt)
}

func (e *encoder) usage(usage []Quantity, lines []int64) {
	e.uvarint(uint64(len(usage)))
	for _, q := range usage {
		e.name(q.Meter)
		e.varint(q.Quantity)
	}
	e.uvarint(uint64(len(lines)))
	for _, l := range lines {
		e.varint(l)
	}
}

// slotContinues stands beside the kind of a slot in its first byte.
const slotContinues = 0x80

func (e *encoder) slot(s *Slot) {
	head := uint8(s.Kind)
	if s.Continues {
		head |= slotContinues
	}
	e.byte(head)
	e.name(s.Unit)
	e.name(s.Pot)
	e.uvarint(uint64(s.Anchor))
	e.parts(s.Parts)
	e.varint(s.Charge)
	e.varint(s.Uncovered)
}

func (e *encoder) bool(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

// decoder reads from b. After the first fault everything it answers is zero.
type decoder struct {
	b     []byte
	bad   bool
	names []string
}

func newDecoder(b []byte) *decoder {
	d := &decoder{b: b}
	if d.byte() != codecVersion {
		d.fail()
	}
	return d
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

// end reports whether all was read, and nothing too much.
func (d *decoder) end(what string) error {
	if d.bad || len(d.b) != 0 {
		return Errorf(ReasonInvariantViolated, "a journal row is no "+what+" that this program can read")
	}
	return nil
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) byte() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) bool() bool {
	v := d.byte()
	if v > 1 {
		d.fail()
	}
	return v == 1
}

func (d *decoder) fixed() uint64 {
	if b := d.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// uint32 is an unsigned number that has to fit.
func (d *decoder) uint32(v uint64) uint32 {
	if v > 1<<32-1 {
		d.fail()
		return 0
	}
	return uint32(v)
}

// count reads how many elements follow, each of least bytes or more.
func (d *decoder) count(least int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/least) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) name() string {
	n := d.uvarint()
	if n == 0 {
		s := string(d.take(d.uvarint()))
		d.names = append(d.names, s)
		return s
	}
	if n > uint64(len(d.names)) {
		d.fail()
		return ""
	}
	return d.names[n-1]
}

func (d *decoder) key(last EntryKey) EntryKey {
	return EntryKey{
		Lane:     last.Lane + LaneID(d.varint()),
		Sequence: last.Sequence + uint64(d.varint()),
		Phase:    d.byte(),
	}
}

func (d *decoder) parts() []token.Part {
	n := d.count(leastPair)
	if n == 0 {
		return nil
	}
	parts := make([]token.Part, n)
	var last uint32
	for i := range parts {
		last = d.uint32(uint64(int64(last) + d.varint()))
		parts[i] = token.Part{Allotment: last, Amount: d.varint()}
	}
	return parts
}

func (d *decoder) entry(key EntryKey) Entry {
	return Entry{
		EntryKey:  key,
		Nonce:     d.uvarint(),
		Kind:      SettleKind(d.byte()),
		Digest:    d.fixed(),
		Charged:   d.varint(),
		Held:      d.varint(),
		Uncovered: d.varint(),
		BatchLane: key.Lane + LaneID(d.varint()),
		BatchNo:   d.varint(),
		Parts:     d.parts(),
	}
}

func (d *decoder) record(last *Record) Record {
	r := Record{EntryKey: d.key(last.EntryKey), Nonce: d.uvarint()}
	r.Kind, r.Outcome, r.Delivered = SettleKind(d.byte()), Outcome(d.byte()), d.bool()
	r.Account, r.Payer, r.Principal, r.Feature = d.name(), d.name(), d.name(), d.name()
	r.PriceVersion = last.PriceVersion + d.varint()
	for range d.count(leastPair) {
		r.Labels = append(r.Labels, label.Pair{Key: d.name(), Value: d.name()})
	}
	r.Usage, r.Lines = d.usage()
	r.Held = d.varint()
	for range d.count(leastSlot) {
		r.Slots = append(r.Slots, d.slot())
	}
	r.Digest = d.fixed()
	r.ReservedAt = last.ReservedAt + d.varint()
	r.ExpiresAt = r.ReservedAt + d.varint()
	r.SettledAt = r.ReservedAt + d.varint()
	return r
}

func (d *decoder) usage() (usage []Quantity, lines []int64) {
	for range d.count(leastPair) {
		usage = append(usage, Quantity{Meter: d.name(), Quantity: d.varint()})
	}
	for range d.count(1) {
		lines = append(lines, d.varint())
	}
	return usage, lines
}

func (d *decoder) slot() Slot {
	head := d.byte()
	return Slot{
		Kind:      PotKind(head &^ slotContinues),
		Continues: head&slotContinues != 0,
		Unit:      d.name(),
		Pot:       d.name(),
		Anchor:    AllotmentNo(d.uint32(d.uvarint())),
		Parts:     d.parts(),
		Charge:    d.varint(),
		Uncovered: d.varint(),
	}
}
