package interceptor

import (
	"context"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// include selects the methods (full names) for which want is true.
func include(want func(method string) bool) selector.Matcher {
	return selector.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool { return want(c.FullMethod()) })
}

// exclude selects the methods for which not is false.
func exclude(not func(method string) bool) selector.Matcher {
	return include(func(m string) bool { return !not(m) })
}

func selectUnary(i grpc.UnaryServerInterceptor, m selector.Matcher) grpc.UnaryServerInterceptor {
	return selector.UnaryServerInterceptor(i, m)
}

func selectStream(i grpc.StreamServerInterceptor, m selector.Matcher) grpc.StreamServerInterceptor {
	return selector.StreamServerInterceptor(i, m)
}
