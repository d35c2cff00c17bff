package interceptor

import (
	"context"
	"fmt"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/wire"
)

// Size refuses messages above bound(method) bytes. gRPC itself knows one bound for all
// methods, which has to be that of the largest; the data plane's is far below it.
func Size(bound func(method string) int) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		m, ok := req.(proto.Message)
		if !ok {
			return handler(ctx, req)
		}
		most := bound(info.FullMethod)
		if size := wire.Size(m, most); size > most {
			return nil, &quota.Error{Reason: quota.ReasonRequestInvalid, NotApplied: true,
				Message: fmt.Sprintf("the message has %d bytes; %s takes at most %d", size, info.FullMethod, most),
				Meta:    map[string]string{"size_bytes": strconv.Itoa(size), "max_bytes": strconv.Itoa(most)}}
		}
		return handler(ctx, req)
	}
}
