package quota

import (
	"errors"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// anyAmount prefers the bounds: differences between them wrap around.
func anyAmount() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 1<<20), rapid.SampledFrom([]int64{math.MinInt64, math.MaxInt64, 0}))
}

// few draws slices that are nil when empty, as decoding gives them.
func few[T any](g *rapid.Generator[T], most int) *rapid.Generator[[]T] {
	return rapid.Map(rapid.SliceOfN(g, 0, most), func(s []T) []T {
		if len(s) == 0 {
			return nil
		}
		return s
	})
}

func anyName() *rapid.Generator[string] {
	return rapid.OneOf(rapid.SampledFrom([]string{"", "acme", "chat.gpt-large", "output_tokens"}), rapid.String())
}

func anyKey() *rapid.Generator[EntryKey] {
	return rapid.Custom(func(t *rapid.T) EntryKey {
		return EntryKey{Lane: LaneID(rapid.Int64().Draw(t, "lane")), Sequence: rapid.Uint64().Draw(t, "sequence"),
			Phase: rapid.Uint8().Draw(t, "phase")}
	})
}

func anyParts() *rapid.Generator[[]token.Part] {
	return few(rapid.Custom(func(t *rapid.T) token.Part {
		return token.Part{Allotment: rapid.Uint32().Draw(t, "allotment"), Amount: anyAmount().Draw(t, "amount")}
	}), 5)
}

func anyEntry(key EntryKey) *rapid.Generator[Entry] {
	return rapid.Custom(func(t *rapid.T) Entry {
		return Entry{EntryKey: key, Nonce: rapid.Uint64().Draw(t, "nonce"), Kind: SettleKind(rapid.Uint8().Draw(t, "kind")),
			Digest: rapid.Uint64().Draw(t, "digest"), Charged: anyAmount().Draw(t, "charged"), Held: anyAmount().Draw(t, "held"),
			Uncovered: anyAmount().Draw(t, "uncovered"), Parts: anyParts().Draw(t, "parts"),
			BatchLane: LaneID(rapid.Int64().Draw(t, "batch lane")), BatchNo: anyAmount().Draw(t, "batch")}
	})
}

func anySlot() *rapid.Generator[Slot] {
	return rapid.Custom(func(t *rapid.T) Slot {
		return Slot{Kind: PotKind(rapid.Uint8Max(127).Draw(t, "kind")), Continues: rapid.Bool().Draw(t, "continues"), Unit: anyName().Draw(t, "unit"), Pot: anyName().Draw(t, "pot"),
			Anchor: AllotmentNo(rapid.Uint32().Draw(t, "anchor")), Parts: anyParts().Draw(t, "parts"),
			Charge: anyAmount().Draw(t, "charge"), Uncovered: anyAmount().Draw(t, "uncovered")}
	})
}

func anyQuantity() *rapid.Generator[Quantity] {
	return rapid.Custom(func(t *rapid.T) Quantity {
		return Quantity{Meter: anyName().Draw(t, "meter"), Quantity: anyAmount().Draw(t, "quantity")}
	})
}

func anyRecord() *rapid.Generator[Record] {
	pair := rapid.Custom(func(t *rapid.T) label.Pair {
		return label.Pair{Key: anyName().Draw(t, "key"), Value: anyName().Draw(t, "value")}
	})
	return rapid.Custom(func(t *rapid.T) Record {
		return Record{EntryKey: anyKey().Draw(t, "key"), Nonce: rapid.Uint64().Draw(t, "nonce"),
			Kind: SettleKind(rapid.Uint8().Draw(t, "kind")), Outcome: Outcome(rapid.Uint8().Draw(t, "outcome")),
			Delivered: rapid.Bool().Draw(t, "delivered"), Account: anyName().Draw(t, "account"), Payer: anyName().Draw(t, "payer"),
			Principal: anyName().Draw(t, "principal"), Feature: anyName().Draw(t, "feature"),
			PriceVersion: anyAmount().Draw(t, "price version"), Labels: few(pair, 3).Draw(t, "labels"),
			Usage: few(anyQuantity(), 3).Draw(t, "usage"), Lines: few(anyAmount(), 3).Draw(t, "lines"),
			Held: anyAmount().Draw(t, "held"), Slots: few(anySlot(), 3).Draw(t, "slots"),
			Digest: rapid.Uint64().Draw(t, "digest"), ReservedAt: anyAmount().Draw(t, "reserved"),
			ExpiresAt: anyAmount().Draw(t, "expires"), SettledAt: anyAmount().Draw(t, "settled")}
	})
}

func TestRecordsComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := few(anyRecord(), 4).Draw(t, "records")
		b := AppendRecords(nil, want)
		got, err := DecodeRecords(b)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeRecords = %+v, %v, want %+v", got, err, want)
		}
		if again := AppendRecords(nil, got); string(again) != string(b) {
			t.Fatalf("the same records gave other bytes")
		}
	})
}

func TestEntriesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := anyKey().Draw(t, "key")
		want := anyEntry(key).Draw(t, "entry")
		if usage := few(anyQuantity(), 3).Draw(t, "usage"); usage != nil {
			want.Used = &Used{usage, few(anyAmount(), 3).Draw(t, "lines")}
		}
		if got, err := DecodeEntry(key, AppendEntry(nil, &want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeEntry = %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestNotesComeBackAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Note{Lane: LaneID(rapid.Int64().Draw(t, "lane")), Guest: LaneID(rapid.Int64().Draw(t, "guest")),
			BatchNo: anyAmount().Draw(t, "batch")}
		for _, key := range rapid.SliceOfN(anyKey(), 0, 4).Draw(t, "keys") {
			want.Entries = append(want.Entries, anyEntry(key).Draw(t, "entry"))
		}
		got, err := DecodeNote(want.Lane, want.Guest, want.BatchNo, AppendNote(nil, &want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("DecodeNote = %+v, %v, want %+v", got, err, want)
		}
	})
}

// The smallest elements there are: the bounds on counts must let them pass.
func TestTheSmallestElementsComeBack(t *testing.T) {
	want := make([]Record, 300)
	for i := range want {
		want[i].Slots = make([]Slot, 1)
	}
	if got, err := DecodeRecords(AppendRecords(nil, want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("DecodeRecords of empty records: %v", err)
	}
	note := Note{Entries: make([]Entry, 300)}
	if got, err := DecodeNote(0, 0, 0, AppendNote(nil, &note)); err != nil || !reflect.DeepEqual(got, note) {
		t.Errorf("DecodeNote of empty entries: %v", err)
	}
	bare := make([]Record, 300)
	if got, err := DecodeRecords(AppendRecords(nil, bare)); err != nil || !reflect.DeepEqual(got, bare) {
		t.Errorf("DecodeRecords of bare records: %v", err)
	}
}

func TestACutOrLengthenedRowIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := AppendRecords(nil, rapid.SliceOfN(anyRecord(), 1, 2).Draw(t, "records"))
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		for _, bad := range [][]byte{b[:cut], append(b[:len(b):len(b)], 0)} {
			if _, err := DecodeRecords(bad); !errors.Is(err, ReasonInvariantViolated) {
				t.Fatalf("DecodeRecords of %d of %d bytes = %v, want INVARIANT_VIOLATED", len(bad), len(b), err)
			}
		}
	})
}

func TestAnotherVersionIsRefused(t *testing.T) {
	b := AppendRecords(nil, nil)
	b[0]++
	if _, err := DecodeRecords(b); !errors.Is(err, ReasonInvariantViolated) {
		t.Fatalf("DecodeRecords of version %d = %v, want INVARIANT_VIOLATED", b[0], err)
	}
}

// TestOnlyAnExpiryWithUsageTakesMore: the row of an ordinary entry is what it was, and who does
// not know the other kind refuses it.
func TestOnlyAnExpiryWithUsageTakesMore(t *testing.T) {
	r := sampleRecord(1)
	committed := r.Entry(9, 1)
	r.Kind = Expired
	expired := r.Entry(9, 1)
	plain, used := AppendEntry(nil, &committed), AppendEntry(nil, &expired)
	if plain[0] != 1 || committed.Used != nil {
		t.Errorf("a COMMITTED entry is of version %d, with usage %v", plain[0], committed.Used)
	}
	if used[0] != 2 || expired.Used == nil || len(expired.Used.Usage) != len(r.Usage) || len(used) <= len(plain) {
		t.Errorf("an EXPIRED entry is of version %d, with usage %v, in %d bytes; without %d", used[0], expired.Used, len(used), len(plain))
	}
	used[0] = 1
	if _, err := DecodeEntry(r.EntryKey, used); !errors.Is(err, ReasonInvariantViolated) {
		t.Errorf("an entry with usage that says it has none: %v", err)
	}
}

func sampleRecord(sequence uint64) Record {
	return Record{EntryKey: EntryKey{Lane: 1 << 62, Sequence: sequence}, Nonce: 1 << 15, Kind: Committed, Outcome: OutcomeSuccess,
		Account: "acme", Payer: "acme", Principal: "gateway", Feature: "chat.gpt-large", PriceVersion: 7,
		Labels: label.Set{{Key: "team", Value: "search"}, {Key: "user", Value: "ada"}},
		Usage:  []Quantity{{Meter: "input_tokens", Quantity: 1200}, {Meter: "output_tokens", Quantity: 300}},
		Lines:  []int64{1200, 900}, Held: 4000,
		Slots:  []Slot{{Kind: PotWallet, Anchor: 3, Parts: []token.Part{{Allotment: 3, Amount: 2100}}, Charge: 2100}},
		Digest: 1 << 60, ReservedAt: 1_700_000_000_000_000_000, ExpiresAt: 1_700_000_030_000_000_000, SettledAt: 1_700_000_002_000_000_000}
}

func TestABatchIsSmall(t *testing.T) {
	rs := make([]Record, 256)
	for i := range rs {
		rs[i] = sampleRecord(uint64(i + 1))
	}
	if per := len(AppendRecords(nil, rs)) / len(rs); per > 80 {
		t.Errorf("a record takes %d bytes in a batch, want 80 or less", per)
	}
}

// FuzzDecode feeds all decoders anything: they answer or refuse, and what they accept is
// written back as something they accept.
func FuzzDecode(f *testing.F) {
	r := sampleRecord(1)
	e := r.Entry(9, 1)
	f.Add(AppendRecords(nil, []Record{r, r.Late(nil)}))
	f.Add(AppendEntry(nil, &e))
	expired := r
	expired.Kind = Expired
	e = expired.Entry(9, 1)
	f.Add(AppendEntry(nil, &e))
	f.Add(AppendNote(nil, &Note{Lane: 9, Entries: []Entry{e, e}}))
	f.Add([]byte{codecVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if rs, err := DecodeRecords(b); err == nil {
			if again, err := DecodeRecords(AppendRecords(nil, rs)); err != nil || !reflect.DeepEqual(again, rs) {
				t.Errorf("records did not come back: %v", err)
			}
		}
		if e, err := DecodeEntry(EntryKey{}, b); err == nil {
			if again, err := DecodeEntry(EntryKey{}, AppendEntry(nil, &e)); err != nil || !reflect.DeepEqual(again, e) {
				t.Errorf("entry did not come back: %v", err)
			}
		}
		if n, err := DecodeNote(1, 2, 3, b); err == nil {
			if again, err := DecodeNote(1, 2, 3, AppendNote(nil, &n)); err != nil || !reflect.DeepEqual(again, n) {
				t.Errorf("note did not come back: %v", err)
			}
		}
	})
}

func BenchmarkAppendRecords256(b *testing.B) {
	rs := make([]Record, 256)
	for i := range rs {
		rs[i] = sampleRecord(uint64(i + 1))
	}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendRecords(dst[:0], rs)
	}
}
