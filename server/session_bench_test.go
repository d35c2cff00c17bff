package server_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/storage/sqlite"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

const (
	perMessage    = 64
	benchStreams  = 4
	benchInFlight = 4 // messages of a stream
)

// BenchmarkSession compares reservations over sessions with a handler that does nothing but
// answer the same messages with the same answers. Both run in this process, over loopback; an
// operation is one reservation. Divide the two.
func BenchmarkSession(b *testing.B) {
	w := &world{t: b}
	w.benchServer(b)
	answer := w.sample(b)
	noop := grpc.NewServer()
	purserv1.RegisterAuthorityServiceServer(noop, noopSession{answer: answer})
	idle := listenAndDial(b, noop)
	for round := range 3 {
		b.Run(fmt.Sprintf("noop/%d", round), func(b *testing.B) { drive(b, b.Context(), idle) })
		b.Run(fmt.Sprintf("reserve/%d", round), func(b *testing.B) { drive(b, w.admin, w.conn) })
	}
}

// BenchmarkReserve compares single calls in the same way: the echo has the server's
// interceptors, and its settings.
func BenchmarkReserve(b *testing.B) {
	w := &world{t: b}
	w.benchServer(b)
	answer, err := purserv1.NewAuthorityServiceClient(w.conn).CheckAndReserve(w.admin, benchReserve())
	if err != nil {
		b.Fatal(err)
	}
	echo := grpc.NewServer(w.server.Options().All()...)
	purserv1.RegisterAuthorityServiceServer(echo, noopReserve{answer: answer})
	idle := listenAndDial(b, echo)
	for round := range 3 {
		b.Run(fmt.Sprintf("echo/%d", round), func(b *testing.B) { call(b, w.admin, idle) })
		b.Run(fmt.Sprintf("reserve/%d", round), func(b *testing.B) { call(b, w.admin, w.conn) })
	}
}

func benchReserve() *purserv1.CheckAndReserveRequest {
	return benchRequest(1).GetOperations()[0].GetCheckAndReserve()
}

// noopReserve answers every call with the same answer.
type noopReserve struct {
	purserv1.UnimplementedAuthorityServiceServer
	answer *purserv1.CheckAndReserveResponse
}

func (n noopReserve) CheckAndReserve(context.Context, *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	return n.answer, nil
}

// call makes b.N calls, some at a time.
func call(b *testing.B, ctx context.Context, conn *grpc.ClientConn) {
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(p *testing.PB) {
		api, request := purserv1.NewAuthorityServiceClient(conn), benchReserve()
		for p.Next() {
			if a, err := api.CheckAndReserve(ctx, request); err != nil || a.GetReservation() == nil {
				b.Error(a, err)
				return
			}
		}
	})
}

// noopSession answers every message with the same answers.
type noopSession struct {
	purserv1.UnimplementedAuthorityServiceServer
	answer *purserv1.SessionResponse
}

func (n noopSession) Session(stream purserv1.AuthorityService_SessionServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return nil
		}
		if err := stream.Send(n.answer); err != nil {
			return err
		}
	}
}

// benchRequest is a message of reservations; their ids begin at first.
func benchRequest(first uint64) *purserv1.SessionRequest {
	m := &purserv1.SessionRequest{}
	for i := range perMessage {
		r := ask(100, 100)
		r.Labels = map[string]string{"user": "ann", "team": "search", "agent": "crawler"}
		m.Operations = append(m.Operations, &purserv1.Operation{Id: first + uint64(i), Call: &purserv1.Operation_CheckAndReserve{CheckAndReserve: r}})
	}
	return m
}

// drive sends b.N operations over some streams, several messages ahead of their answers.
func drive(b *testing.B, ctx context.Context, conn *grpc.ClientConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages := max(b.N/perMessage/benchStreams, 1)
	b.ReportAllocs()
	var all sync.WaitGroup
	for range benchStreams {
		all.Go(func() {
			stream, err := purserv1.NewAuthorityServiceClient(conn).Session(ctx)
			if err != nil {
				b.Error(err)
				return
			}
			if err := exchange(stream, messages); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(messages*perMessage*benchStreams)/b.Elapsed().Seconds(), "operations/s")
}

func exchange(stream purserv1.AuthorityService_SessionClient, messages int) error {
	room := make(chan struct{}, benchInFlight*perMessage)
	sent := make(chan error, 1)
	go func() {
		request := benchRequest(1)
		for range messages {
			for _, o := range request.Operations {
				room <- struct{}{}
				o.Id += perMessage
			}
			if err := stream.Send(request); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for left := messages * perMessage; left > 0; {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, r := range m.GetResults() {
			if r.GetCheckAndReserve().GetReservation() == nil {
				return fmt.Errorf("no reservation: %v", r)
			}
			<-room
			left--
		}
	}
	return <-sent
}

// benchServer is a server as it runs in production, over loopback, with an account that never
// runs dry.
func (w *world) benchServer(b *testing.B) {
	var err error
	w.store, err = sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "purser.db"), Clock: func() int64 { return time.Now().UnixNano() }})
	if err != nil {
		b.Fatal(err)
	}
	c := authority.DefaultConfig()
	c.Embedded, c.DrainFor, c.MaxReservations, c.MaxPerPrincipal = true, 0, 1<<26, 1<<26
	if w.authority, err = authority.New(c, authority.Deps{Store: w.store, Clock: clock{}, Random: rand.Reader, Logger: slog.New(slog.DiscardHandler)}); err == nil {
		err = w.authority.Start(b.Context())
	}
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.authority.Run(ctx) }()
	if w.server, err = server.New(server.Deps{Authority: w.authority, Store: w.store, Logger: slog.New(slog.DiscardHandler), Now: time.Now}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stop()
		<-ended
		_ = w.store.Close()
	})
	w.conn = listenAndDial(b, w.server)
	w.accounts, w.catalog = purserv1.NewAccountServiceClient(w.conn), purserv1.NewCatalogServiceClient(w.conn)
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err == nil {
		_, err = w.store.CreateKey(b.Context(), quota.Mutation{Principal: "test", Now: time.Now().UnixNano()},
			authz.Key{ID: id, Hash: authz.HashSecret(secret), Role: authz.RoleAdmin, Principal: "root", ExpireTime: authz.Never})
	}
	if err != nil {
		b.Fatal(err)
	}
	w.admin = metadata.AppendToOutgoingContext(b.Context(), "authorization", "Bearer "+secret)
	w.chat(1_000_000_000)
}

// sample is the answer to a message, for who answers without deciding.
func (w *world) sample(b *testing.B) *purserv1.SessionResponse {
	ctx, cancel := context.WithCancel(w.admin)
	defer cancel()
	stream, err := purserv1.NewAuthorityServiceClient(w.conn).Session(ctx)
	if err == nil {
		err = stream.Send(benchRequest(1))
	}
	all := &purserv1.SessionResponse{}
	for err == nil && len(all.Results) < perMessage {
		var m *purserv1.SessionResponse
		if m, err = stream.Recv(); err == nil {
			all.Results = append(all.Results, m.GetResults()...)
		}
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("a request has %d bytes, an answer %d", proto.Size(benchRequest(1))/perMessage, proto.Size(all)/perMessage)
	return all
}

func listenAndDial(b *testing.B, s interface{ Serve(net.Listener) error }) *grpc.ClientConn {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = conn.Close()
		switch s := s.(type) {
		case *grpc.Server:
			s.Stop()
		case *server.Server:
			s.GracefulStop(context.Background())
		}
	})
	return conn
}
