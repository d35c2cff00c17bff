// Package caller carries who calls from authentication to the handlers, in the context.
package caller

import (
	"context"

	"github.com/purser-io/purser/authz"
)

type key struct{}

// NewContext returns a context that carries p.
func NewContext(ctx context.Context, p *authz.Principal) context.Context {
	return context.WithValue(ctx, key{}, p)
}

// From returns the principal that authentication left in ctx. ok is false on methods that
// need no key.
func From(ctx context.Context) (p *authz.Principal, ok bool) {
	p, ok = ctx.Value(key{}).(*authz.Principal)
	return p, ok
}
