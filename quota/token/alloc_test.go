//go:build !race

// The race detector makes a sync.Pool drop things on purpose, so allocations are counted
// without it only.

package token

import "testing"

func TestAppendAllocatesNothing(t *testing.T) {
	codec, token, buffer := mustCodec(t, 1, 1), typical(), make([]byte, 0, MaxSize)
	n := testing.AllocsPerRun(1000, func() {
		if _, err := codec.Append(buffer, token); err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("Append allocates %v times", n)
	}
}

func TestDecodeAllocatesOnce(t *testing.T) {
	codec, token := mustCodec(t, 1, 1), &Token{}
	encoded := encode(t, codec, typical())
	n := testing.AllocsPerRun(1000, func() {
		if err := codec.Decode(encoded, token); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 {
		t.Errorf("Decode into a used token allocates %v times", n)
	}
}
