package token

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/purser-io/purser/quota/label"
	"pgregory.net/rapid"
)

func testKey(id uint32) Key {
	key := Key{ID: id}
	for i := range key.Secret {
		key.Secret[i] = byte(i) ^ byte(id)
	}
	return key
}

func mustCodec(t testing.TB, signing uint32, ids ...uint32) *Codec {
	t.Helper()
	keys := make([]Key, len(ids))
	for i, id := range ids {
		keys[i] = testKey(id)
	}
	codec, err := NewCodec(keys, signing)
	if err != nil {
		t.Fatalf("new codec: %v", err)
	}
	return codec
}

// typical is the token that design.md's targets speak of: 3 labels, 3 pots.
func typical() *Token {
	return &Token{
		Lane: 941_338_125_620_019_201, Sequence: 1_234_567, Nonce: 0xfedcba9876543210,
		Expires: 1_790_000_030_123_456_789, IssuedAt: 1_790_000_000_123_456_789,
		Account: "acct-7f3a9b2c51", Payer: "acct-7f3a9b2c51", Principal: "gateway-eu-1", Feature: "chat.gpt-large",
		PriceVersion: 17,
		Labels:       label.Set{{Key: "model", Value: "gpt-large"}, {Key: "team", Value: "search"}, {Key: "user", Value: "ann@example.com"}},
		Slots: []Slot{
			{Kind: KindWallet, Parts: []Part{{Allotment: 1042, Amount: 38_250_000}}},
			{Kind: KindBudget, Parts: []Part{{Allotment: 1043, Amount: 38_250_000}}},
			{Kind: KindQuota, Unit: "output_tokens", Parts: []Part{{Allotment: 1040, Amount: 2048}}},
		},
	}
}

func encode(t testing.TB, codec *Codec, token *Token) []byte {
	t.Helper()
	b, err := codec.Append(nil, token)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	return b
}

// seal signs any body, to get past the MAC to what stands behind it.
func seal(key Key, body []byte) []byte {
	b := binary.AppendUvarint([]byte{version}, uint64(key.ID))
	b = append(b, body...)
	mac := hmac.New(sha256.New, key.Secret[:])
	mac.Write(b)
	return append(b, mac.Sum(nil)[:macSize]...)
}

// R37: typically below 256 bytes.
func TestTypicalTokenIsSmall(t *testing.T) {
	size := len(encode(t, mustCodec(t, 3, 3), typical()))
	if size >= 256 {
		t.Errorf("it has %d bytes", size)
	}
	t.Logf("%d bytes", size)
}

func TestRoundTripOfEdges(t *testing.T) {
	codec := mustCodec(t, math.MaxUint32, 1, math.MaxUint32)
	parts := make([]Part, MaxParts)
	parts[0], parts[1] = Part{math.MaxUint32, math.MaxInt64}, Part{0, 0}
	slots := make([]Slot, MaxSlots)
	for i := range slots {
		slots[i] = Slot{Kind: KindBudget, PotID: "p"}
	}
	for name, token := range map[string]*Token{
		"zero":           {},
		"typical":        typical(),
		"lowest numbers": {Lane: math.MinInt64, Expires: math.MinInt64, IssuedAt: math.MaxInt64, PriceVersion: math.MinInt64},
		"highest numbers": {
			Lane: math.MaxInt64, Sequence: math.MaxUint64, Nonce: math.MaxUint64, Generation: math.MaxUint8,
			Expires: math.MaxInt64, IssuedAt: math.MinInt64, PriceVersion: math.MaxInt64,
		},
		"another pays": {Account: "a", Payer: "root"},
		"nobody pays":  {Account: "a"},
		"most parts":   {Slots: []Slot{{Kind: KindWallet, Parts: parts}}},
		"most slots":   {Slots: slots},
	} {
		var got Token
		if err := codec.Decode(encode(t, codec, token), &got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := *token
		want.KeyID = math.MaxUint32
		if !same(&got, &want) {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
}

// same compares two tokens; an empty list is a missing list.
func same(a, b *Token) bool {
	tidy := func(t *Token) Token {
		c := *t
		c.Labels = append(label.Set{}, t.Labels...)
		c.Slots = append([]Slot{}, t.Slots...)
		for i := range c.Slots {
			c.Slots[i].Parts = append([]Part{}, c.Slots[i].Parts...)
		}
		return c
	}
	return reflect.DeepEqual(tidy(a), tidy(b))
}

func tokens() *rapid.Generator[*Token] {
	text := rapid.StringN(0, 20, 30)
	return rapid.Custom(func(t *rapid.T) *Token {
		parts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Part {
			return Part{rapid.Uint32().Draw(t, "allotment"), rapid.Int64Min(0).Draw(t, "amount")}
		}), 0, 5)
		account := text.Draw(t, "account")
		slots := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Slot {
			return Slot{
				Kind: rapid.Uint8Range(KindWallet, KindQuota).Draw(t, "kind"),
				Unit: text.Draw(t, "unit"), PotID: text.Draw(t, "pot"), Parts: parts.Draw(t, "parts"),
			}
		}), 0, 5).Draw(t, "slots")
		for i := 1; i < len(slots); i++ { // windows of one limit
			if slots[i-1].Kind != KindWallet && rapid.IntRange(0, 3).Draw(t, "continues") == 0 {
				slots[i].Kind, slots[i].Unit, slots[i].Continues = slots[i-1].Kind, slots[i-1].Unit, true
			}
		}
		return &Token{
			Lane: rapid.Int64().Draw(t, "lane"), Sequence: rapid.Uint64().Draw(t, "sequence"),
			Nonce: rapid.Uint64().Draw(t, "nonce"), Generation: rapid.Uint8().Draw(t, "generation"),
			Expires: rapid.Int64().Draw(t, "expires"), IssuedAt: rapid.Int64().Draw(t, "issued at"),
			Account: account, Payer: rapid.OneOf(rapid.Just(account), text).Draw(t, "payer"),
			Principal: text.Draw(t, "principal"), Feature: text.Draw(t, "feature"),
			PriceVersion: rapid.Int64().Draw(t, "price version"),
			Labels: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) label.Pair {
				return label.Pair{Key: text.Draw(t, "key"), Value: text.Draw(t, "value")}
			}), 0, 4).Draw(t, "labels"),
			Slots: slots,
		}
	})
}

// One Token is decoded into again and again, so whatever an earlier one leaves behind shows.
func TestRoundTripIntoAReusedToken(t *testing.T) {
	codec := mustCodec(t, 7, 7)
	var got Token
	var buffer []byte
	rapid.Check(t, func(t *rapid.T) {
		want := tokens().Draw(t, "token")
		want.KeyID = 7
		var err error
		if buffer, err = codec.Append(buffer[:0], want); err != nil {
			t.Fatalf("encode: %v", err)
		}
		if err := codec.Decode(buffer, &got); err != nil {
			t.Fatalf("decode: %v", err)
		}
		if !same(&got, want) {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
		again, err := codec.Append(nil, &got)
		if err != nil || !bytes.Equal(again, buffer) {
			t.Fatalf("encoded again it is %x, %v, not %x", again, err, buffer)
		}
		clear(buffer) // The strings must not live in the caller's memory.
		if !same(&got, want) {
			t.Fatalf("the token changed with the caller's buffer: %+v", got)
		}
	})
}

func TestAppendKeepsWhatStandsBefore(t *testing.T) {
	codec := mustCodec(t, 1, 1)
	b, err := codec.Append([]byte("head"), typical())
	if err != nil || !bytes.Equal(b[:4], []byte("head")) || !bytes.Equal(b[4:], encode(t, codec, typical())) {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	codec := mustCodec(t, 1, 1, 0, 2, 3)
	b := encode(t, codec, typical())
	var got Token
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if err := codec.Decode(b, &got); err == nil {
			t.Errorf("bit %d was flipped and the token accepted", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	if err := codec.Decode(b, &got); err != nil {
		t.Errorf("the token as issued: %v", err)
	}
}

func TestEveryCutAndEveryAdditionIsRefused(t *testing.T) {
	codec := mustCodec(t, 1, 1)
	b := encode(t, codec, typical())
	var got Token
	for n := range b {
		if err := codec.Decode(b[:n], &got); err == nil {
			t.Errorf("the first %d bytes were accepted", n)
		}
	}
	if err := codec.Decode(append(b, 0), &got); !errors.Is(err, ErrForged) {
		t.Errorf("with a byte more: %v", err)
	}
}

func TestErrorsTellTheCauses(t *testing.T) {
	codec, other := mustCodec(t, 1, 1, 2), mustCodec(t, 9, 9)
	good := encode(t, codec, typical())
	body := appendBody(nil, typical())
	nextVersion := bytes.Clone(good)
	nextVersion[0]++
	impostor := testKey(1)
	impostor.Secret[0]++
	for _, c := range []struct {
		name  string
		token []byte
		want  error
	}{
		{"as issued", good, nil},
		{"by the second key", encode(t, mustCodec(t, 2, 2), typical()), nil},
		{"empty", nil, ErrMalformed},
		{"another version", nextVersion, ErrMalformed},
		{"too long", seal(testKey(1), make([]byte, MaxSize)), ErrMalformed},
		{"a key id over 32 bits", append([]byte{version, 0xff, 0xff, 0xff, 0xff, 0x1f}, make([]byte, 40)...), ErrMalformed},
		{"a key id without end", append([]byte{version}, bytes.Repeat([]byte{0xff}, 40)...), ErrMalformed},
		{"a key not here", encode(t, other, typical()), ErrUnknownKey},
		{"another's secret", seal(impostor, body), ErrForged},
		{"a MAC of zeros", append(bytes.Clone(good[:len(good)-macSize]), make([]byte, macSize)...), ErrForged},
		{"text", []byte(strings.Repeat("x", 100)), ErrMalformed},
		{"sealed but empty", seal(testKey(1), nil), ErrMalformed},
		{"sealed with a rest", seal(testKey(1), append(bytes.Clone(body), 0)), ErrMalformed},
		{"sealed but cut", seal(testKey(1), body[:len(body)-1]), ErrMalformed},
	} {
		var got Token
		if err := codec.Decode(c.token, &got); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// What an authentic token of another build could say, and must not.
func TestSealedNonsenseIsMalformed(t *testing.T) {
	prefix := appendBody(nil, &Token{})
	prefix = prefix[:len(prefix)-2] // Without the counts of labels and slots.
	join := func(parts ...[]byte) (b []byte) {
		for _, part := range parts {
			b = append(b, part...)
		}
		return b
	}
	huge := binary.AppendUvarint(nil, math.MaxUint64)
	wallet := []byte{0, 1, KindWallet} // No labels, one slot.
	for name, rest := range map[string][]byte{
		"too many labels":      join([]byte{maxLabels + 1}, make([]byte, 2*(maxLabels+1)), []byte{0}),
		"endless labels":       huge,
		"too many slots":       join([]byte{0}, binary.AppendUvarint(nil, MaxSlots+1), bytes.Repeat([]byte{KindWallet, 0}, MaxSlots+1)),
		"kind 0":               {0, 1, 0, 0},
		"kind 4":               {0, 1, 4, 0},
		"an unknown flag":      {0, 1, 0x40 | KindWallet, 0},
		"too many parts":       join(wallet, []byte{MaxParts + 1}, make([]byte, 2*(MaxParts+1))),
		"a negative allotment": join(wallet, []byte{1}, binary.AppendVarint(nil, -1), []byte{0}),
		"allotment of 33 bits": join(wallet, []byte{1}, binary.AppendVarint(nil, 1<<32), []byte{0}),
		"an allotment wraps":   join(wallet, []byte{2, 2, 0}, binary.AppendVarint(nil, math.MaxInt64), []byte{0}),
		"amount over int64":    join(wallet, []byte{1, 0}, huge),
		"a string beyond":      join([]byte{1}, huge),
	} {
		var got Token
		if err := mustCodec(t, 1, 1).Decode(seal(testKey(1), join(prefix, rest)), &got); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var got Token
	if err := mustCodec(t, 1, 1).Decode(seal(testKey(1), join(prefix, []byte{0, 0})), &got); err != nil {
		t.Errorf("the prefix itself is no body: %v", err)
	}
}

func TestAppendRefusesWhatDecodeWould(t *testing.T) {
	codec := mustCodec(t, 1, 1)
	for name, c := range map[string]struct {
		token Token
		says  string
	}{
		"labels":          {Token{Labels: make(label.Set, maxLabels+1)}, "17 labels, at most 16"},
		"slots":           {Token{Slots: make([]Slot, MaxSlots+1)}, "129 slots, at most 128"},
		"parts":           {Token{Slots: []Slot{{Kind: KindWallet, Parts: make([]Part, MaxParts+1)}}}, "65 parts, at most 64"},
		"no kind":         {Token{Slots: []Slot{{}}}, "slot 0: there is no kind 0"},
		"kind 4":          {Token{Slots: []Slot{{Kind: 4}}}, "no kind 4"},
		"continues none":  {Token{Slots: []Slot{{Kind: KindBudget, Continues: true}}}, "slot 0: it continues no limit"},
		"another kind":    {Token{Slots: []Slot{{Kind: KindQuota}, {Kind: KindBudget, Continues: true}}}, "slot 1: it continues no limit"},
		"another unit":    {Token{Slots: []Slot{{Kind: KindQuota}, {Kind: KindQuota, Unit: "m", Continues: true}}}, "slot 1: it continues no limit"},
		"two wallets":     {Token{Slots: []Slot{{Kind: KindWallet}, {Kind: KindWallet, Continues: true}}}, "slot 1: it continues no limit"},
		"negative amount": {Token{Slots: []Slot{{Kind: KindWallet, Parts: []Part{{Amount: -1}}}}}, "negative amount"},
		"size":            {Token{Account: strings.Repeat("a", MaxSize)}, "at most 2048"},
	} {
		dst := []byte("as it was")
		out, err := codec.Append(dst, &c.token)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error that says %q", name, err, c.says)
		}
		if string(out) != "as it was" {
			t.Errorf("%s: dst became %q", name, out)
		}
	}
}

func TestMaxSizeIsReached(t *testing.T) {
	codec := mustCodec(t, 1, 1)
	token := &Token{Account: strings.Repeat("a", 1000), Payer: strings.Repeat("p", 900)}
	token.Feature = strings.Repeat("f", MaxSize-len(encode(t, codec, token)))
	if n := len(encode(t, codec, token)); n != MaxSize {
		t.Fatalf("the test made %d bytes", n)
	}
	var got Token
	if err := codec.Decode(encode(t, codec, token), &got); err != nil {
		t.Errorf("decode: %v", err)
	}
}

func TestNewCodecRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		keys    []Key
		signing uint32
	}{
		"no keys":        {nil, 1},
		"too many keys":  {make([]Key, maxKeys+1), 0},
		"twice":          {[]Key{testKey(1), testKey(1)}, 1},
		"zero secret":    {[]Key{{ID: 1}}, 1},
		"foreign signer": {[]Key{testKey(1)}, 2},
	} {
		if _, err := NewCodec(c.keys, c.signing); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestRotation(t *testing.T) {
	before, during, after := mustCodec(t, 1, 1), mustCodec(t, 2, 1, 2), mustCodec(t, 2, 2)
	old, young := encode(t, before, typical()), encode(t, during, typical())
	var got Token
	for name, c := range map[string]struct {
		codec *Codec
		token []byte
		want  error
	}{
		"old at old":     {before, old, nil},
		"old at both":    {during, old, nil},
		"old at new":     {after, old, ErrUnknownKey},
		"young at old":   {before, young, ErrUnknownKey},
		"young at both":  {during, young, nil},
		"young at young": {after, young, nil},
	} {
		if err := c.codec.Decode(c.token, &got); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestCodecIsSafeForConcurrentUse(t *testing.T) {
	codec := mustCodec(t, 1, 1)
	want := encode(t, codec, typical())
	done := make(chan error)
	const workers = 4
	for range workers {
		go func() {
			var got Token
			for range 500 {
				b, err := codec.Append(nil, typical())
				if err == nil {
					err = codec.Decode(b, &got)
				}
				if err == nil && !bytes.Equal(b, want) {
					err = errors.New("encoded differently")
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestReservationID(t *testing.T) {
	if got, want := ReservationID(1, 2, 3), "AAAAAAAAAAEAAAAAAAAAAgAAAAAAAAAD"; got != want {
		t.Errorf("the form changed: %q, want %q", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		lane, sequence, nonce := rapid.Int64().Draw(t, "lane"), rapid.Uint64().Draw(t, "sequence"), rapid.Uint64().Draw(t, "nonce")
		id := ReservationID(lane, sequence, nonce)
		l, s, n, err := ParseReservationID(id)
		if err != nil || l != lane || s != sequence || n != nonce {
			t.Fatalf("%q was read as %d, %d, %d, %v", id, l, s, n, err)
		}
		if len(id) != 32 || lane >= 0 && id[0] == '-' {
			t.Fatalf("%q is not of the fixed form", id)
		}
	})
	good := ReservationID(1, 2, 3)
	for _, bad := range []string{"", good + "A", good[1:], good[:31] + "+", good[:31] + "=", good[:31] + "\n", "\n\n\n\n" + good[4:]} {
		if _, _, _, err := ParseReservationID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzDecode(f *testing.F) {
	codec := mustCodec(f, 1, 1)
	good := encode(f, codec, typical())
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte{version, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var token Token
		if err := codec.Decode(b, &token); err == nil && !bytes.Equal(encode(t, codec, &token), b) {
			t.Fatalf("%x was accepted, and never issued", b)
		}
	})
}

// FuzzBody goes behind the MAC, where only a bug or another build could put such bytes.
func FuzzBody(f *testing.F) {
	codec := mustCodec(f, 1, 1)
	f.Add(appendBody(nil, typical()))
	f.Add(appendBody(nil, &Token{}))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, body []byte) {
		var token, again Token
		if err := codec.Decode(seal(testKey(1), body), &token); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("a sealed body is %v", err)
			}
			return
		}
		if err := codec.Decode(encode(t, codec, &token), &again); err != nil || !same(&token, &again) {
			t.Fatalf("%+v came back as %+v, %v", token, again, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	codec, token, buffer := mustCodec(b, 1, 1), typical(), make([]byte, 0, MaxSize)
	b.ReportAllocs()
	for b.Loop() {
		buffer, _ = codec.Append(buffer[:0], token)
	}
	b.ReportMetric(float64(len(buffer)), "B/token")
}

func BenchmarkDecode(b *testing.B) {
	codec, token := mustCodec(b, 1, 1), &Token{}
	encoded := encode(b, codec, typical())
	b.ReportAllocs()
	for b.Loop() {
		if err := codec.Decode(encoded, token); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReservationID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ReservationID(1, 2, 3)
	}
}
