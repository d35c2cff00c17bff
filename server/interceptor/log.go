package interceptor

import (
	"context"
	"log/slog"
	"strings"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/server/caller"
	"github.com/purser-io/purser/server/grpcerr"
)

// Log gives every call of the services wanted one line when it ends: who called what, how it
// went, how long it took. Never what was in it. It stands behind authentication. Who changed
// something is for everyday logs; who only looked, and what was not there, is debugging.
func Log(logger *slog.Logger, wanted func(service string) bool) grpc.UnaryServerInterceptor {
	lines := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		logger.Log(ctx, slog.Level(level), msg, fields...)
	})
	line := func(level logging.CodeToLevel) grpc.UnaryServerInterceptor {
		return logging.UnaryServerInterceptor(lines,
			logging.WithLogOnEvents(logging.FinishCall),
			logging.WithCodes(grpcerr.CodeOf),
			logging.WithLevels(level),
			logging.WithDurationField(logging.DurationToDurationField),
			logging.WithFieldsFromContext(callerFields),
			logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey, logging.MethodTypeFieldKey),
		)
	}
	changes, looks := line(logging.DefaultServerCodeToLevel), line(readLevel)
	return selectUnary(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if reads(info.FullMethod) {
			return looks(ctx, req, info, handler)
		}
		return changes(ctx, req, info, handler)
	}, include(wanted))
}

// readLevel is the level of a call that changes nothing.
func readLevel(code codes.Code) logging.Level {
	if code == codes.OK || code == codes.NotFound {
		return logging.LevelDebug
	}
	return logging.DefaultServerCodeToLevel(code)
}

// reads tells the methods (full names) that change nothing, by what the contract calls them.
func reads(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	return strings.HasPrefix(name, "Get") || strings.HasPrefix(name, "List")
}

func callerFields(ctx context.Context) logging.Fields {
	p, ok := caller.From(ctx)
	if !ok {
		return nil
	}
	return logging.Fields{"principal", p.Name, "role", p.Role.String(), "key", p.KeyID}
}
