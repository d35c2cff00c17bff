package token

import "testing"

// TestReservationReadsWhatDecodeWould: order is kept by what is read without the key.
func TestReservationReadsWhatDecodeWould(t *testing.T) {
	key := Key{ID: 1<<32 - 1, Secret: [32]byte{1}}
	c, err := NewCodec([]Key{key}, key.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []Token{{Lane: 1, Sequence: 1}, {Lane: 1<<63 - 1, Sequence: 1<<64 - 1}, {Lane: -1 << 63}} {
		b, err := c.Append(nil, &want)
		if err != nil {
			t.Fatal(err)
		}
		if lane, sequence, ok := Reservation(b); !ok || lane != want.Lane || sequence != want.Sequence {
			t.Errorf("%d, %d, %v of a token of %d, %d", lane, sequence, ok, want.Lane, want.Sequence)
		}
		for n := range minSize {
			if _, _, ok := Reservation(b[:n]); ok {
				t.Errorf("%d bytes are taken for a token", n)
			}
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 40), append([]byte{version}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)} {
		if _, _, ok := Reservation(b); ok {
			t.Errorf("%x is taken for a token", b)
		}
	}
}
