package interceptor

import (
	"context"
	"log/slog"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"google.golang.org/grpc"

	"github.com/purser-io/purser/server/caller"
	"github.com/purser-io/purser/server/grpcerr"
)

// Log gives every call of the services wanted one line when it ends: who called what, how it
// went, how long it took. Never what was in it. It stands behind authentication.
func Log(logger *slog.Logger, wanted func(service string) bool) grpc.UnaryServerInterceptor {
	lines := logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		logger.Log(ctx, slog.Level(level), msg, fields...)
	})
	return selectUnary(logging.UnaryServerInterceptor(lines,
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithCodes(grpcerr.CodeOf),
		logging.WithDurationField(logging.DurationToDurationField),
		logging.WithFieldsFromContext(callerFields),
		logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey, logging.MethodTypeFieldKey),
	), include(wanted))
}

func callerFields(ctx context.Context) logging.Fields {
	p, ok := caller.From(ctx)
	if !ok {
		return nil
	}
	return logging.Fields{"principal", p.Name, "role", p.Role.String(), "key", p.KeyID}
}
