package interceptor

import (
	"context"
	"time"

	"google.golang.org/grpc"
)

// Deadline ends the handler's context a little before the caller's, so that the answer
// "I could not" still reaches a caller that would otherwise only see its own timeout. A call
// without a deadline gets one of limit(method), for nothing may wait for ever.
//
// The subtraction needs no clock: a deadline that is over already ends the context at once.
func Deadline(shave time.Duration, limit func(method string) time.Duration) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		var cancel context.CancelFunc
		if at, ok := ctx.Deadline(); ok {
			ctx, cancel = context.WithDeadline(ctx, at.Add(-shave))
		} else {
			ctx, cancel = context.WithTimeout(ctx, limit(info.FullMethod))
		}
		defer cancel()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
}
