package token

import "encoding/binary"

// Reservation says which reservation b claims to be the token of, without verifying it: good
// for keeping operations on one reservation in order, for nothing else. ok is false if b has
// not the form of a token.
func Reservation(b []byte) (lane int64, sequence uint64, ok bool) {
	if len(b) < minSize || b[0] != version {
		return 0, 0, false
	}
	rest := b[1:]
	_, n := binary.Uvarint(rest) // the MAC key's id
	if n <= 0 {
		return 0, 0, false
	}
	rest = rest[n:]
	lane, n = binary.Varint(rest)
	if n <= 0 {
		return 0, 0, false
	}
	sequence, n = binary.Uvarint(rest[n:])
	return lane, sequence, n > 0
}
