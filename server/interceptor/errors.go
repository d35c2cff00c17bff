package interceptor

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// ErrorCounter is told the reason of every failed call ("" if it has none). It must not block.
type ErrorCounter interface {
	Failed(reason quota.Reason, code codes.Code)
}

// Failures maps errors of the domain to what callers are told, counts them, and gives them a
// line in the log: every fault (the mapper does that), and a sample of the rest, for a caller
// that sends nonsense a thousand times a second must not fill the disk. That a read finds
// nothing, or that a caller leaves, is no failure to tell an operator of.
type Failures struct {
	Logger *slog.Logger
	Errs   *grpcerr.Mapper
	Count  ErrorCounter
	Sample *Sampler
}

// Interceptors map what calls fail with, on the way out.
func (f *Failures) Interceptors() (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	out := func(ctx context.Context, method string, err error) error {
		if err == nil {
			return nil
		}
		f.note(ctx, method, err)
		return f.Errs.Status(ctx, method, err)
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

// Operation maps what an operation of a session failed with.
func (f *Failures) Operation(ctx context.Context, method string, err error) *purserv1.OperationStatus {
	f.note(ctx, method, err)
	return f.Errs.Operation(ctx, method, err)
}

func (f *Failures) note(ctx context.Context, method string, err error) {
	reason, code := grpcerr.ReasonOf(err), grpcerr.CodeOf(err)
	f.Count.Failed(reason, code)
	if code == codes.Internal {
		return
	}
	// Apply asks before it makes anything, and whoever follows a stream leaves some time.
	if code == codes.NotFound && reads(method) || code == codes.Canceled && ctx.Err() != nil {
		f.Logger.DebugContext(ctx, "call failed", "method", method, "code", code.String(), "reason", string(reason), "error", err)
		return
	}
	if seen, ok := f.Sample.Take(); ok {
		f.Logger.WarnContext(ctx, "call failed", "method", method, "code", code.String(), "reason", string(reason),
			"error", err, "failed_so_far", seen)
	}
}
