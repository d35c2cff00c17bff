// Program gategrpc is a gRPC server gated by Purser. Its service is one that comes with gRPC, and
// stands for yours: it streams messages, each of which counts as a token.
//
//	PURSER=127.0.0.1:7411 PURSER_KEY=$(cat gateway.key) LISTEN=127.0.0.1:8081 go run ./examples/gategrpc
package main

import (
	"context"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gategrpc"
)

func main() {
	client, err := purser.Dial(context.Background(), purser.Config{Addresses: []string{os.Getenv("PURSER")}, Key: os.Getenv("PURSER_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	gate := gategrpc.New(client, func(ctx context.Context, _ string, _ any) (*purser.Request, error) {
		account := metadata.ValueFromIncomingContext(ctx, "account")
		if len(account) != 1 {
			return nil, status.Error(codes.Unauthenticated, "say with account who calls")
		}
		return &purser.Request{Account: account[0], Features: []string{"chat.gpt-large"},
			Estimates: []purser.Estimate{purser.Want("output_tokens", 50, 1).UpTo(200)}}, nil
	}, gategrpc.WithUsage(func(any) []purser.Quantity { return []purser.Quantity{purser.Used("output_tokens", 1)} }))

	server := grpc.NewServer(grpc.UnaryInterceptor(gate.Unary), grpc.StreamInterceptor(gate.Stream))
	testpb.RegisterTestServiceServer(server, &service{})
	l, err := net.Listen("tcp", os.Getenv("LISTEN"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(l))
}

type service struct {
	testpb.UnimplementedTestServiceServer
}

// StreamingOutputCall stands for a model that streams.
func (*service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	for handle := purser.FromContext(stream.Context()); handle.More(); {
		if err := stream.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
	return nil
}
