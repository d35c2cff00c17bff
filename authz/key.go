package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"github.com/purser-io/purser/quota/label"
)

// Key is an API key as it is kept: its secret only as a hash. The secret has 256 random
// bits, so a plain SHA-256 is enough; slow password hashes are for secrets people choose.
type Key struct {
	ID         string // public prefix, shown in lists
	Hash       [32]byte
	Role       Role
	Principal  string
	Account    string
	Labels     label.Set
	CreateTime int64 // unix ns
	ExpireTime int64 // unix ns; Never = none
	RevokeTime int64 // unix ns; 0 = not revoked
	Revision   int64
}

// Never is the time of what does not happen.
const Never = int64(1<<63 - 1)

// keyPrefix lets secret scanners recognise a leaked key.
const keyPrefix = "pk_"

// NewKeySecret draws a key's public id and its secret (`pk_<id>_<secret>`) from random.
func NewKeySecret(random io.Reader) (id, secret string, err error) {
	var b [41]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return "", "", fmt.Errorf("draw key: %w", err)
	}
	id = fmt.Sprintf("%x", b[:9])[:16]
	return id, keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(b[9:]), nil
}

// HashSecret is what is stored of a secret.
func HashSecret(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

// KeyID reads the public id out of a secret; ok is false if it has not the form of one.
func KeyID(secret string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(secret, keyPrefix)
	if !ok {
		return "", false
	}
	id, tail, ok := strings.Cut(rest, "_")
	return id, ok && len(id) == 16 && len(tail) == 43
}

// Valid reports whether secret opens the key at now (unix ns).
func (k *Key) Valid(secret string, now int64) bool {
	h := HashSecret(secret)
	return subtle.ConstantTimeCompare(h[:], k.Hash[:]) == 1 && k.Usable(now)
}

// Usable reports whether the key is neither revoked nor expired at now (unix ns).
func (k *Key) Usable(now int64) bool { return k.RevokeTime == 0 && now < k.ExpireTime }

// PrincipalOf is the caller that a valid key stands for.
func (k *Key) PrincipalOf() *Principal {
	return &Principal{Name: k.Principal, Role: k.Role, Account: k.Account, Labels: k.Labels, KeyID: k.ID}
}

// KeyStore is what authentication needs from storage.
type KeyStore interface {
	// FindKey returns the key with the public id, or reason KEY_NOT_FOUND. One read.
	FindKey(ctx context.Context, id string) (Key, error)
}
