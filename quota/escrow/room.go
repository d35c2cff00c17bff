package escrow

import "sync/atomic"

// Room bounds what the shards of a node keep together (R53): one account may need all of it,
// and it lives in one shard. Shards under different locks look before they add, so a bound may be
// passed by as many as there are shards.
type Room struct {
	maxHolds, maxKeys int64
	holds, keys       atomic.Int64
}

// NewRoom makes room for live reservations, and for the idempotency keys of twice as many: keys
// outlive their reservations.
func NewRoom(reservations int) *Room {
	return &Room{maxHolds: int64(reservations), maxKeys: 2 * int64(reservations)}
}

// full reports whether a request finds no room.
func (r *Room) full(keyed bool) bool {
	return r.holds.Load() >= r.maxHolds || keyed && r.keys.Load() >= r.maxKeys
}
