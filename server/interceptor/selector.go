package interceptor

import (
	"context"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// include selects the services ("package.Service") for which want is true. It goes by service
// because a call's full name would have to be put together anew for every call.
func include(want func(service string) bool) selector.Matcher {
	return selector.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool { return want(c.Service) })
}

// exclude selects the services for which not is false.
func exclude(not func(service string) bool) selector.Matcher {
	return include(func(s string) bool { return !not(s) })
}

func selectUnary(i grpc.UnaryServerInterceptor, m selector.Matcher) grpc.UnaryServerInterceptor {
	return selector.UnaryServerInterceptor(i, m)
}

func selectStream(i grpc.StreamServerInterceptor, m selector.Matcher) grpc.StreamServerInterceptor {
	return selector.StreamServerInterceptor(i, m)
}
