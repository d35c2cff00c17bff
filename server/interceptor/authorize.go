package interceptor

import (
	"context"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/caller"
)

// Authorize refuses calls that the policy does not allow the caller's role, a method without
// a row included. It stands behind authentication.
func Authorize(policy *authz.Policy) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	check := func(ctx context.Context, method string) error {
		if policy.Open(method) {
			return nil
		}
		p, ok := caller.From(ctx)
		if !ok {
			p = &authz.Principal{}
		}
		if policy.Allows(p.Role, method) {
			return nil
		}
		return &quota.Error{Reason: quota.ReasonCallerNotAllowed, NotApplied: true,
			Message: "a key with the role " + p.Role.String() + " may not call " + method,
			Meta:    map[string]string{"role": p.Role.String(), "method": method}}
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := check(ctx, info.FullMethod); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if err := check(ss.Context(), info.FullMethod); err != nil {
			return err
		}
		return handler(srv, ss)
	}
	return unary, stream
}
