package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"sync"
)

const (
	version = 1
	macSize = 16 // 128 bits: a forger has no way to test guesses but asking a node.
	maxKeys = 64 // Bounds the linear search for a key.
	minSize = 2 + macSize
)

// Key is a MAC key. Its secret is used for tokens only.
type Key struct {
	ID     uint32
	Secret [32]byte
}

// Codec encodes and decodes tokens with a fixed set of keys. It is immutable and safe for
// concurrent use; to rotate keys, replace it whole.
type Codec struct {
	keys    []*macKey
	signing *macKey
}

// NewCodec makes a Codec that verifies with all keys and signs with the one whose id is
// signing. During a rotation a key is to verify everywhere before it signs anywhere.
// Refused are: no keys or more than 64, an id that comes twice, a secret that is all
// zeros, and a signing key that is not among the keys.
func NewCodec(keys []Key, signing uint32) (*Codec, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("new token codec: there are %d keys, want 1 to %d", len(keys), maxKeys)
	}
	c := &Codec{}
	for _, key := range keys {
		if key.Secret == [32]byte{} {
			return nil, fmt.Errorf("new token codec: the secret of key %d is all zeros", key.ID)
		}
		if c.find(key.ID) != nil {
			return nil, fmt.Errorf("new token codec: key id %d comes twice", key.ID)
		}
		c.keys = append(c.keys, newMACKey(key))
	}
	if c.signing = c.find(signing); c.signing == nil {
		return nil, fmt.Errorf("new token codec: signing key %d is not among the keys", signing)
	}
	return c, nil
}

func (c *Codec) find(id uint32) *macKey {
	for _, key := range c.keys {
		if key.id == id {
			return key
		}
	}
	return nil
}

// usualSize is enough for one pot and three labels.
const usualSize = 224

// Append encodes t, signs it, appends it to dst and returns the extended slice, like the
// built-in append. It allocates nothing if dst has room. The error names the bound that t
// breaks; dst is then returned as it was.
func (c *Codec) Append(dst []byte, t *Token) ([]byte, error) {
	if err := check(t); err != nil {
		return dst, fmt.Errorf("encode token: %w", err)
	}
	if cap(dst) == 0 {
		dst = make([]byte, 0, usualSize) // rather than to grow it five times
	}
	start := len(dst)
	out := append(dst, version)
	out = binary.AppendUvarint(out, uint64(c.signing.id))
	out = appendBody(out, t)
	if size := len(out) - start + macSize; size > MaxSize {
		return dst, fmt.Errorf("encode token: it has %d bytes, at most %d are allowed", size, MaxSize)
	}
	return c.signing.appendMAC(out, out[start:]), nil
}

// Decode verifies b and fills t with its content. It returns ErrMalformed, ErrUnknownKey
// or ErrForged, and t is then not to be used. The strings of t share one copy of b, which
// is the one allocation.
func (c *Codec) Decode(b []byte, t *Token) error {
	if len(b) < minSize || len(b) > MaxSize || b[0] != version {
		return ErrMalformed
	}
	signed, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	id, n := binary.Uvarint(signed[1:])
	if n <= 0 || id > 1<<32-1 {
		return ErrMalformed
	}
	key := c.find(uint32(id))
	if key == nil {
		return ErrUnknownKey
	}
	if !key.verify(signed, mac) {
		return ErrForged
	}
	t.KeyID = uint32(id)
	return readBody(signed[1+n:], t)
}

// macKey is a Key with spare MAC states, so that neither the key's schedule nor memory is
// paid for per token.
type macKey struct {
	id   uint32
	idle sync.Pool
}

// macState has room for the sum beside the state: as a local variable it would be moved to
// the heap, for it passes through an interface.
type macState struct {
	hash.Hash
	sum [sha256.Size]byte
}

func newMACKey(key Key) *macKey {
	secret := key.Secret
	return &macKey{id: key.ID, idle: sync.Pool{New: func() any {
		return &macState{Hash: hmac.New(sha256.New, secret[:])}
	}}}
}

// appendMAC appends the MAC of signed to dst, which may be the same memory.
func (k *macKey) appendMAC(dst, signed []byte) []byte {
	s := k.idle.Get().(*macState)
	dst = append(dst, s.mac(signed)...)
	k.idle.Put(s)
	return dst
}

func (k *macKey) verify(signed, mac []byte) bool {
	s := k.idle.Get().(*macState)
	equal := hmac.Equal(s.mac(signed), mac) // In constant time.
	k.idle.Put(s)
	return equal
}

// mac returns the truncated MAC, valid until the next call.
func (s *macState) mac(signed []byte) []byte {
	s.Reset()
	s.Write(signed) // A hash.Hash never returns an error.
	return s.Sum(s.sum[:0])[:macSize]
}

// check holds t to the bounds that Decode relies on.
func check(t *Token) error {
	switch {
	case len(t.Labels) > maxLabels:
		return fmt.Errorf("it has %d labels, at most %d are allowed", len(t.Labels), maxLabels)
	case len(t.Slots) > MaxSlots:
		return fmt.Errorf("it has %d slots, at most %d are allowed", len(t.Slots), MaxSlots)
	}
	for i := range t.Slots {
		if err := checkSlot(&t.Slots[i]); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
	}
	return checkOrder(t.Slots)
}

// checkOrder finds a slot that continues none: the first, or one of another kind or unit than
// the one before it.
func checkOrder(slots []Slot) error {
	for i := range slots {
		if !slots[i].Continues {
			continue
		}
		if i == 0 || slots[i].Kind == KindWallet || slots[i].Kind != slots[i-1].Kind || slots[i].Unit != slots[i-1].Unit {
			return fmt.Errorf("slot %d: it continues no limit", i)
		}
	}
	return nil
}

func checkSlot(slot *Slot) error {
	if slot.Kind < KindWallet || slot.Kind > KindQuota {
		return fmt.Errorf("there is no kind %d", slot.Kind)
	}
	if len(slot.Parts) > MaxParts {
		return fmt.Errorf("it has %d parts, at most %d are allowed", len(slot.Parts), MaxParts)
	}
	for _, part := range slot.Parts {
		if part.Amount < 0 {
			return errors.New("a part has a negative amount")
		}
	}
	return nil
}
