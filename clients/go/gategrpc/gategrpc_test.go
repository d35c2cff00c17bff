package gategrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gategrpc"
	"github.com/purser-io/purser/internal/testnode"
)

// dial connects to a node that runs for the test.
func dial(t *testing.T) *purser.Client {
	t.Helper()
	n, err := testnode.Start(t.Context(), t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{n.Address}, Key: n.Key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(context.Background()), n.Close()); err != nil {
			t.Error(err)
		}
	})
	return c
}

// perCall asks for what the metadata says.
func perCall(ctx context.Context, method string, message any) (*purser.Request, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if len(md.Get("account")) == 0 {
		return nil, status.Error(codes.Unauthenticated, "say who you are")
	}
	account := md.Get("account")[0]
	if account == "nobody" {
		return nil, nil
	}
	return &purser.Request{Account: account, Features: []string{testnode.Feature}, Labels: map[string]string{"method": method[1:5]},
		Estimates: []purser.Estimate{purser.Need("input_tokens", 100), purser.Want("output_tokens", 1000, 900)}}, nil
}

// service does what a test says.
type service struct {
	testpb.UnimplementedTestServiceServer
	unary  func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	stream func(s testpb.TestService_StreamingOutputCallServer) error
	duplex func(s testpb.TestService_FullDuplexCallServer) error
}

func (s *service) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return s.unary(ctx, r)
}

func (s *service) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, stream testpb.TestService_StreamingOutputCallServer) error {
	return s.stream(stream)
}

func (s *service) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	return s.duplex(stream)
}

// recovered answers a panic as servers do, and lets the gate see it first.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = status.Error(codes.Internal, "panic")
	}
}

// serve runs the service behind a gate.
func serve(t *testing.T, client *purser.Client, s *service, options ...gategrpc.Option) testpb.TestServiceClient {
	t.Helper()
	gate := gategrpc.New(client, perCall, options...)
	server := grpc.NewServer(
		grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
			defer recovered(&err)
			return next(ctx, r)
		}, gate.Unary),
		grpc.ChainStreamInterceptor(func(v any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer recovered(&err)
			return next(v, stream)
		}, gate.Stream))
	testpb.RegisterTestServiceServer(server, s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
	})
	return testpb.NewTestServiceClient(conn)
}

func as(t *testing.T, account string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "account", account)
}

// settlements are what a gate said of its calls.
type settlements chan purser.Receipt

func (s settlements) hook() gategrpc.Option {
	return gategrpc.WithOnSettled(func(_ context.Context, _ string, _ *purser.Handle, r purser.Receipt) { s <- r })
}

// TestUnary is the rule of settling, one way for a method to end to a line. 100 input tokens
// cost 100 000 micros, an output token 3 000.
func TestUnary(t *testing.T) {
	client := dial(t)
	work := func(ctx context.Context, tokens int64) {
		purser.FromContext(ctx).Add("output_tokens", tokens)
	}
	for name, c := range map[string]struct {
		method  func(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
		options []gategrpc.Option
		code    codes.Code
		charged int64
	}{
		"nothing reported": {func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{}, nil
		}, nil, codes.OK, 100_000},
		"reported inside": {func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			work(ctx, 10)
			return &testpb.SimpleResponse{}, nil
		}, nil, codes.OK, 130_000},
		"from the reply": {func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{Username: "seven"}, nil
		}, []gategrpc.Option{gategrpc.WithUsage(func(m any) []purser.Quantity {
			return []purser.Quantity{purser.Used("output_tokens", int64(len(m.(*testpb.SimpleResponse).GetUsername())))}
		})}, codes.OK, 115_000},
		"error before work": {func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return nil, status.Error(codes.NotFound, "no such model")
		}, nil, codes.NotFound, 0},
		"error behind work": {func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			work(ctx, 10)
			return nil, status.Error(codes.Internal, "the model crashed")
		}, nil, codes.Internal, 130_000},
		"panic before work": {func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			panic("early")
		}, nil, codes.Internal, 0},
		"panic behind work": {func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			work(ctx, 10)
			panic("late")
		}, nil, codes.Internal, 130_000},
		"settled inside": {func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			_, err := purser.FromContext(ctx).Release(ctx)
			return &testpb.SimpleResponse{}, err
		}, nil, codes.OK, 0},
	} {
		t.Run(name, func(t *testing.T) {
			done := make(settlements, 1)
			api := serve(t, client, &service{unary: c.method}, append(c.options, done.hook())...)
			if _, err := api.UnaryCall(as(t, testnode.Rich), &testpb.SimpleRequest{}); status.Code(err) != c.code {
				t.Errorf("answered %v, want %s", err, c.code)
			}
			if got := <-done; got.Charged != c.charged {
				t.Errorf("charged %d micros, want %d", got.Charged, c.charged)
			}
		})
	}
}

// TestNotLetIn: denials are statuses that gRPC clients understand; unary and streamed alike.
func TestNotLetIn(t *testing.T) {
	client := dial(t)
	api := serve(t, client, &service{
		unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			return &testpb.SimpleResponse{}, nil
		},
		stream: func(s testpb.TestService_StreamingOutputCallServer) error {
			return s.Send(&testpb.StreamingOutputCallResponse{})
		},
		// A method that does not look at errors is held back all the same.
		duplex: func(s testpb.TestService_FullDuplexCallServer) error {
			_, _ = s.Recv()
			_ = s.Send(&testpb.StreamingOutputCallResponse{})
			return nil
		},
	})
	for account, want := range map[string]struct {
		code   codes.Code
		reason string
	}{
		testnode.Rich:      {codes.OK, ""},
		"nobody":           {codes.OK, ""},
		testnode.Poor:      {codes.ResourceExhausted, "CREDITS"},
		testnode.Suspended: {codes.PermissionDenied, "ACCOUNT_SUSPENDED"},
		"stranger":         {codes.PermissionDenied, "ACCOUNT_UNKNOWN"},
	} {
		ctx := as(t, account)
		_, unary := api.UnaryCall(ctx, &testpb.SimpleRequest{})
		streamed, err := api.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err == nil {
			_, err = streamed.Recv()
		}
		duplex, failed := api.FullDuplexCall(ctx)
		if failed == nil {
			failed = duplex.Send(&testpb.StreamingOutputCallRequest{})
		}
		if failed == nil {
			_, failed = duplex.Recv()
		}
		for how, err := range map[string]error{"unary": unary, "streamed": err, "both ways": failed} {
			if status.Code(err) != want.code || reasonOf(err) != want.reason {
				t.Errorf("%s, %s: %v, want %s %s", account, how, err, want.code, want.reason)
			}
		}
	}
	if _, err := api.UnaryCall(t.Context(), &testpb.SimpleRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("error = %v, want that of the request function", err)
	}
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetDomain() == gategrpc.Domain {
			return info.GetReason()
		}
	}
	return ""
}

// TestStreams counts each message, settles at the end, and when the client goes away.
func TestStreams(t *testing.T) {
	client := dial(t)
	perMessage := gategrpc.WithUsage(func(any) []purser.Quantity { return []purser.Quantity{purser.Used("output_tokens", 1)} })

	t.Run("to the end", func(t *testing.T) {
		done := make(settlements, 1)
		api := serve(t, client, &service{stream: func(s testpb.TestService_StreamingOutputCallServer) error {
			if purser.FromContext(s.Context()).Granted("output_tokens") != 1000 {
				return status.Error(codes.Internal, "the handle is not in the context")
			}
			for range 20 {
				if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
					return err
				}
			}
			return nil
		}}, perMessage, done.hook())
		stream, err := api.StreamingOutputCall(as(t, testnode.Rich), &testpb.StreamingOutputCallRequest{})
		n := 0
		for err == nil {
			if _, err = stream.Recv(); err == nil {
				n++
			}
		}
		if err != io.EOF || n != 20 {
			t.Errorf("%d messages, then %v", n, err)
		}
		if got := <-done; got.Charged != 160_000 {
			t.Errorf("charged %d micros, want 160000", got.Charged)
		}
	})
	t.Run("both ways", func(t *testing.T) {
		done := make(settlements, 1)
		api := serve(t, client, &service{duplex: func(s testpb.TestService_FullDuplexCallServer) error {
			for {
				if _, err := s.Recv(); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
					return err
				}
			}
		}}, perMessage, done.hook())
		stream, err := api.FullDuplexCall(as(t, testnode.Rich))
		for range 5 {
			err = errors.Join(err, stream.Send(&testpb.StreamingOutputCallRequest{}))
			_, received := stream.Recv()
			err = errors.Join(err, received)
		}
		if err = errors.Join(err, stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != io.EOF {
			t.Errorf("ended with %v", err)
		}
		if got := <-done; got.Charged != 115_000 {
			t.Errorf("charged %d micros, want 115000 for one request", got.Charged)
		}
	})
	t.Run("the client goes away", func(t *testing.T) {
		done := make(settlements, 1)
		api := serve(t, client, &service{stream: func(s testpb.TestService_StreamingOutputCallServer) error {
			if err := s.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
				return err
			}
			<-s.Context().Done()
			return s.Context().Err()
		}}, perMessage, done.hook())
		ctx, cancel := context.WithCancel(as(t, testnode.Rich))
		stream, err := api.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		if got := <-done; got.Charged != 103_000 {
			t.Errorf("charged %d micros, want 103000", got.Charged)
		}
	})
}

// TestAuthorityIsAway: closed unless the program says open.
func TestAuthorityIsAway(t *testing.T) {
	client, err := purser.Dial(t.Context(), purser.Config{Addresses: []string{"127.0.0.1:1"}, Key: "pk_x", NoWait: true, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	s := &service{unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		h := purser.FromContext(ctx)
		if !h.Add("output_tokens", 10) || h.Granted("output_tokens") != 1000 {
			return nil, status.Error(codes.Internal, "the ungated handle does not grant what was asked")
		}
		return &testpb.SimpleResponse{}, nil
	}}
	told := make(chan error, 10)
	hook := gategrpc.WithOnError(func(_ context.Context, _ string, err error) { told <- err })
	_, err = serve(t, client, s, hook).UnaryCall(as(t, testnode.Rich), &testpb.SimpleRequest{})
	if status.Code(err) != codes.Unavailable || reasonOf(err) != gategrpc.ReasonUnreachable {
		t.Errorf("closed: %v", err)
	}
	if _, err = serve(t, client, s, hook, gategrpc.WithFailOpen()).UnaryCall(as(t, testnode.Rich), &testpb.SimpleRequest{}); err != nil {
		t.Errorf("open: %v", err)
	}
	if len(told) != 2 {
		t.Errorf("told of %d failures, want 2", len(told))
	}
}
