package token

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
)

// reservationIDSize is the size in bytes of an id before it is written in base64.
const reservationIDSize = 24

// ReservationID writes the id of a reservation as text for people, logs and URLs: always 32
// characters of A-Z, a-z, 0-9, - and _. It does not begin with a minus for a lane that is
// not negative. It authorises nothing; the token does.
func ReservationID(lane int64, sequence, nonce uint64) string {
	var id [reservationIDSize]byte
	binary.BigEndian.PutUint64(id[0:], uint64(lane))
	binary.BigEndian.PutUint64(id[8:], sequence)
	binary.BigEndian.PutUint64(id[16:], nonce)
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// ParseReservationID is the inverse of [ReservationID].
func ParseReservationID(s string) (lane int64, sequence, nonce uint64, err error) {
	var id [reservationIDSize]byte
	if want := base64.RawURLEncoding.EncodedLen(len(id)); len(s) != want {
		return 0, 0, 0, fmt.Errorf("parse reservation id: it has %d characters, want %d", len(s), want)
	}
	// The decoder passes over line breaks, so the count has to be looked at as well.
	n, err := base64.RawURLEncoding.Decode(id[:], []byte(s))
	if err != nil || n != len(id) {
		return 0, 0, 0, fmt.Errorf("parse reservation id %q: want letters, digits, - and _ only", s)
	}
	return int64(binary.BigEndian.Uint64(id[0:])),
		binary.BigEndian.Uint64(id[8:]),
		binary.BigEndian.Uint64(id[16:]), nil
}
