package interceptor

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/caller"
)

// Clock tells the time; keys expire by it.
type Clock interface{ Now() time.Time }

// Authenticator finds out who calls, by API key.
type Authenticator struct {
	keys  authz.KeyStore
	clock Clock
	// decoy stands in for a key that does not exist, so that an unknown id costs a caller as
	// much time as a wrong secret.
	decoy authz.Key
}

// NewAuthenticator makes an Authenticator over keys.
func NewAuthenticator(keys authz.KeyStore, clock Clock) *Authenticator {
	return &Authenticator{keys: keys, clock: clock}
}

// Authenticate leaves the principal of the call's API key in the context. Reasons:
// CREDENTIALS_MISSING; CREDENTIALS_INVALID, the same for malformed, unknown, wrong, expired
// and revoked, so that nobody learns which ids exist; those of the key lookup.
func (a *Authenticator) Authenticate(ctx context.Context) (context.Context, error) {
	secret, err := bearer(ctx)
	if err != nil {
		return ctx, err
	}
	id, formed := authz.KeyID(secret)
	if !formed {
		return ctx, invalid()
	}
	key, err := a.keys.FindKey(ctx, id)
	known := err == nil
	switch {
	case errors.Is(err, quota.ReasonKeyNotFound):
		key = a.decoy
	case err != nil:
		return ctx, undecided(err)
	}
	if valid := key.Valid(secret, a.clock.Now().UnixNano()); !valid || !known {
		return ctx, invalid()
	}
	return caller.NewContext(ctx, key.PrincipalOf()), nil
}

// bearer reads the key out of "authorization: Bearer pk_...".
func bearer(ctx context.Context) (string, error) {
	const scheme = "bearer "
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	switch {
	case len(values) == 0:
		return "", &quota.Error{Reason: quota.ReasonCredentialsMissing, NotApplied: true,
			Message: `the call has no API key; send it as "authorization: Bearer pk_..."`}
	case len(values) > 1 || len(values[0]) <= len(scheme) || !strings.EqualFold(values[0][:len(scheme)], scheme):
		return "", invalid()
	}
	return values[0][len(scheme):], nil
}

func invalid() error {
	return &quota.Error{Reason: quota.ReasonCredentialsInvalid, NotApplied: true,
		Message: "the API key is not valid: it is malformed, unknown, expired or revoked"}
}

// undecided marks the failure of a lookup as definite: the call has not begun.
func undecided(err error) error {
	var e *quota.Error
	if !errors.As(err, &e) {
		return err
	}
	early := *e
	early.NotApplied, early.Err = true, err
	if early.Reason == quota.ReasonOutcomeUnknown {
		early.Reason = quota.ReasonStoreUnavailable
	}
	return &early
}

// Interceptors authenticate every call but those of the services open to all.
func (a *Authenticator) Interceptors(policy *authz.Policy) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	closed := exclude(policy.OpenService)
	return selectUnary(auth.UnaryServerInterceptor(a.Authenticate), closed),
		selectStream(auth.StreamServerInterceptor(a.Authenticate), closed)
}
