package interceptor

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// ErrorCounter is told the reason of every failed call ("" if it has none). It must not block.
type ErrorCounter interface {
	Failed(reason quota.Reason, code codes.Code)
}

// Errors maps errors of the domain to statuses on the way out, counts them, and gives them a
// line in the log: every fault (the mapper does that), and a sample of the rest, for a caller
// that sends nonsense a thousand times a second must not fill the disk.
func Errors(logger *slog.Logger, errs *grpcerr.Mapper, count ErrorCounter, sample *Sampler) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	out := func(ctx context.Context, method string, err error) error {
		if err == nil {
			return nil
		}
		reason, code := grpcerr.ReasonOf(err), grpcerr.CodeOf(err)
		count.Failed(reason, code)
		if code != codes.Internal {
			if seen, ok := sample.Take(); ok {
				logger.WarnContext(ctx, "call failed", "method", method, "code", code.String(), "reason", string(reason),
					"error", err, "failed_so_far", seen)
			}
		}
		return errs.Status(ctx, method, err)
	}
	unary := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if err != nil {
			return nil, out(ctx, info.FullMethod, err)
		}
		return resp, nil
	}
	stream := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return out(ss.Context(), info.FullMethod, handler(srv, ss))
	}
	return unary, stream
}
