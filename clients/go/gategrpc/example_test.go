package gategrpc_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gategrpc"
	"github.com/purser-io/purser/internal/testnode"
)

// A service is gated by account; what it used is counted from its replies.
func ExampleNew() {
	client, end := connect()
	defer end()

	gate := gategrpc.New(client, func(ctx context.Context, _ string, _ any) (*purser.Request, error) {
		account := metadata.ValueFromIncomingContext(ctx, "account")[0]
		return &purser.Request{Account: account, Features: []string{"chat.gpt-large"}, Estimates: []purser.Estimate{purser.Want("output_tokens", 400, 1)}}, nil
	}, gategrpc.WithUsage(func(reply any) []purser.Quantity {
		return []purser.Quantity{purser.Used("output_tokens", int64(len(reply.(*testpb.SimpleResponse).GetUsername())))}
	}))
	server := grpc.NewServer(grpc.UnaryInterceptor(gate.Unary), grpc.StreamInterceptor(gate.Stream))
	testpb.RegisterTestServiceServer(server, &service{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return &testpb.SimpleResponse{Username: "a reply of some tokens"}, nil
	}})

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(l)
	defer server.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for _, account := range []string{"acme", "initech"} {
		ctx := metadata.AppendToOutgoingContext(context.Background(), "account", account)
		_, err := testpb.NewTestServiceClient(conn).UnaryCall(ctx, &testpb.SimpleRequest{})
		fmt.Println(account, status.Code(err))
	}
	// Output:
	// acme OK
	// initech PermissionDenied
}

// connect runs an authority for an example.
func connect() (*purser.Client, func()) {
	dir, err := os.MkdirTemp("", "purser-example-")
	if err != nil {
		log.Fatal(err)
	}
	node, err := testnode.Start(context.Background(), dir, time.Now)
	if err != nil {
		log.Fatal(err)
	}
	client, err := purser.Dial(context.Background(), purser.Config{Addresses: []string{node.Address}, Key: node.Key})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		client.Close(context.Background())
		node.Close()
		os.RemoveAll(dir)
	}
}
