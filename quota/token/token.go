// Package token encodes reservations as tokens: short binary strings, protected by a MAC,
// that say all that any node needs to settle a reservation (R37).
//
// A token is integrity protected and not secret: its holder can read it. It proves that
// a holder of the key issued it, and nothing more: whether the reservation was settled,
// has expired, or belongs to the caller (R38) is for others to decide.
//
// The form is: a version byte, the MAC key's id, the fields in varints, and HMAC-SHA256
// over all of that, truncated to 128 bits. Nothing but the key id is looked at before the
// MAC was found right.
package token

import (
	"errors"

	"github.com/purser-io/purser/quota/label"
)

// Bounds of a token. They hold for encoding and decoding alike.
const (
	// MaxSize is the largest size of an encoded token in bytes.
	MaxSize = 2048
	// MaxSlots is the largest number of slots: one wallet, and budgets and quotas at all
	// levels of the account's parent chain.
	MaxSlots = 128
	// MaxParts is the largest number of parts in a slot (R24).
	MaxParts = 64
)

// Errors of [Codec.Decode]. None of them says that the reservation does not exist.
var (
	// ErrMalformed means that the bytes are no token of a version and form known here.
	ErrMalformed = errors.New("token: malformed")
	// ErrUnknownKey means that the token names a MAC key this node does not have; a node
	// with newer or older keys may have it.
	ErrUnknownKey = errors.New("token: unknown MAC key")
	// ErrForged means that the MAC is wrong: the token was altered, or never issued.
	ErrForged = errors.New("token: forged")
)

// Kinds of slots. Their numbers stand in tokens: they never change their meaning.
const (
	KindWallet uint8 = 1
	KindBudget uint8 = 2
	KindQuota  uint8 = 3
)

// Part is an amount held on an allotment. A hold's parts are in burn order (R24).
type Part struct {
	// Allotment is the allotment's number within the token's lane.
	Allotment uint32
	// Amount is at least 0: micros of a credit if the slot's unit is credits, else a count
	// of its meter.
	Amount int64
}

// Slot is what a reservation holds for one pot kind: the wallet, one budget, or one quota; or
// for one window of a budget or quota, if the reservation was extended after another had ended.
type Slot struct {
	// Kind is KindWallet, KindBudget or KindQuota.
	Kind uint8
	// Unit is the meter that the slot counts; empty means credits.
	Unit string
	// PotID names the pot when the slot has no parts that would lead to it, so that an
	// uncovered rest can be charged to it (R25). Empty otherwise.
	PotID string
	// Continues says that the slot is about a later window of the limit that the slot before it
	// is about: what the usage asks of the limit fills that one first (R34).
	Continues bool
	// Parts is empty or up to MaxParts.
	Parts []Part
}

// Token is the content of an encoded token. Times are Unix nanoseconds.
//
// A Token that is decoded into owns its slices: they are reused, so they must not be
// shared with another Token or a cached label.Set.
type Token struct {
	// KeyID is the MAC key that signed the token: set by Decode, ignored by Append.
	KeyID uint32
	// Lane, Sequence and Nonce are the reservation's id.
	Lane     int64
	Sequence uint64
	Nonce    uint64
	// Generation counts the extensions of the reservation.
	Generation uint8
	// Expires is the promised time (e): until then a commit up to the hold is accepted.
	Expires int64
	// IssuedAt is when the reservation was made: the same in every generation.
	IssuedAt int64
	// Account is who used, Payer the root of its parent chain, Principal who called.
	Account   string
	Payer     string
	Principal string
	Feature   string
	// PriceVersion is frozen for the reservation's whole life.
	PriceVersion int64
	// Labels are those resolved when the reservation was made.
	Labels label.Set
	Slots  []Slot
}
