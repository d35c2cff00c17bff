package interceptor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/escrow"
	"github.com/purser-io/purser/server/grpcerr"
)

// Recover turns a panic below it into INTERNAL, so that one bad request does not take the
// node and everybody's reservations with it. The panic and its stack go to the log. A broken
// invariant of the books is not recovered from: every further answer could spend what is not
// there, while a crash is a path the protocol is built for (docs/decisions).
func Recover(logger *slog.Logger, errs *grpcerr.Mapper) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	handle := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		return errs.Status(ctx, "", Panicked(logger)(ctx, p))
	})
	return recovery.UnaryServerInterceptor(handle), recovery.StreamServerInterceptor(handle)
}

// Panicked logs what was recovered from a panic and turns it into an error; a broken invariant
// panics again.
func Panicked(logger *slog.Logger) func(ctx context.Context, p any) error {
	return func(ctx context.Context, p any) error {
		logger.ErrorContext(ctx, "panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if violation, ok := p.(escrow.Violation); ok {
			panic(violation)
		}
		// Not definite: nobody knows how far it got.
		return quota.Wrap(quota.ReasonInternal, "", fmt.Errorf("panic: %v", p))
	}
}
