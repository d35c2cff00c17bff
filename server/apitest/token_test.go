package apitest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/token"
)

// settling commits and releases with a token, which must both be refused alike.
func (w *world) settling(t *testing.T, who string, r refusal, raw []byte) {
	t.Helper()
	r.call = func(w *world) error {
		_, err := w.authority.Commit(w.as(who), used(raw, 1000, 10))
		return err
	}
	r.check(t, w)
	r.call = func(w *world) error {
		_, err := w.authority.Release(w.as(who), &purserv1.ReleaseRequest{Token: raw})
		return err
	}
	r.check(t, w)
}

// TestTokens: nobody settles with a token that is not exactly one that was issued here, to
// them, and is still known.
func TestTokens(t *testing.T) {
	forged := refusal{name: "forged", code: codes.PermissionDenied, reason: "TOKEN_INVALID", says: "exactly as CheckAndReserve returned it"}
	others := refusal{name: "another's", code: codes.PermissionDenied, reason: "CALLER_NOT_ALLOWED", says: "another principal"}
	ancient := refusal{name: "ancient", code: codes.FailedPrecondition, reason: "TOKEN_TOO_OLD", says: "nothing was charged"}
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t, b)
			w.shop()
			w.account("acme", "", 10*credit)
			w.account("other", "", 10*credit)
			raw := must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 1000)).GetReservation().GetToken()
			for i := range raw {
				altered := bytes.Clone(raw)
				altered[i] ^= 1 << (i % 8)
				w.settling(t, asGate, forged, altered)
			}
			for _, altered := range [][]byte{raw[:len(raw)-1], raw[1:], append(bytes.Clone(raw), 0), append(bytes.Clone(raw), raw...)} {
				w.settling(t, asGate, forged, altered)
			}
			w.settling(t, asGate, forged, foreignToken(t))
			w.settling(t, asAdmin, others, raw)
			w.secrets["bound"] = w.newKey(authz.Key{Role: authz.RoleGate, Principal: asGate, Account: "other", ExpireTime: authz.Never})
			w.settling(t, "bound", others, raw)
			w.settling(t, asGate, ancient, w.ancientToken(t, raw))

			// The reservation is as it was: it can be committed, whole.
			resp := must(w, asGate, w.authority.Commit, used(raw, 1000, 1000))
			if resp.GetChargedMicros() != 4*credit || resp.GetCoveredMicros() != 4*credit || resp.GetReplayed() || resp.GetLate() {
				t.Errorf("commit %v", resp)
			}
			w.audited()
			got := must(w, asGate, w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "acme"})
			if got.GetTotalMicros() != 6*credit || got.GetHeldMicros() != 0 {
				t.Errorf("balance %v; want 6 credits, nothing held", got)
			}
			w.untouched("other", 10*credit)
		})
	}
}

// foreignToken is one that another authority issued, to a principal and for an account of the
// same names.
func foreignToken(t *testing.T) []byte {
	t.Helper()
	w := newWorld(t, onSQLite())
	w.shop()
	w.account("acme", "", 10*credit)
	return must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 1000)).GetReservation().GetToken()
}

// ancientToken is one that was rightly issued, so long ago that its lane is gone from the
// store.
func (w *world) ancientToken(t *testing.T, raw []byte) []byte {
	t.Helper()
	stored, err := w.store.MACKeys(context.WithoutCancel(t.Context()), [32]byte{1}, time.Now().UnixNano())
	if err != nil {
		t.Fatal(err)
	}
	codec, err := token.NewCodec([]token.Key{{ID: stored[0].ID, Secret: stored[0].Secret}}, stored[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	var old token.Token
	if err := codec.Decode(raw, &old); err != nil {
		t.Fatal(err)
	}
	old.Lane += 1 << 32
	old.IssuedAt = time.Date(2020, time.March, 4, 5, 6, 7, 0, time.UTC).UnixNano()
	old.Expires = old.IssuedAt + int64(30*time.Second)
	out, err := codec.Append(nil, &old)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
