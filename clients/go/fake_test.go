package purser

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

const testKey = "pk_0123456789abcdef_secret"

// fake is an authority that misbehaves by a script: it is for the rules of retrying only. All
// nodes of a test share one, so that it sees the order of calls over all of them.
type fake struct {
	mu    sync.Mutex
	calls []fakeCall
	next  func(c fakeCall) error // nil error = answer well
	// extend answers an extension; nil = everything is granted.
	extend func(r *purserv1.ExtendRequest) *purserv1.ExtendResponse
	// silent tells which reserves and commits are never answered; nil = none.
	silent   func(node int, op, account string) bool
	sessions bool                                                                    // clients use sessions
	stream   func(n *fakeNode, stream purserv1.AuthorityService_SessionServer) error // serves one; nil = well
	old      bool                                                                    // it knows no interim commits
	numbered bool                                                                    // tokens have the number of the reserve in them
	more     chan struct{}                                                           // closed and replaced with every call; nil until somebody waits
}

// fakeCall is one call as it arrived.
type fakeCall struct {
	Node  int
	Op    string
	Token string // or idempotency key
	Key   string // authorization
	Usage int    // meters committed
	Said  string // the amounts, such as "output_tokens=7", with a minimum "output_tokens=7/5"
}

type fakeNode struct {
	purserv1.UnimplementedAuthorityServiceServer
	fake *fake
	node int
}

func (f *fake) arrived(ctx context.Context, c fakeCall) error {
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get("authorization")) == 1 {
		c.Key = md.Get("authorization")[0]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, c)
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
	if f.next == nil {
		return nil
	}
	return f.next(c)
}

func (f *fake) seen() []fakeCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]fakeCall(nil), f.calls...)
}

// await waits until n calls of op have arrived, and returns the last of them.
func (f *fake) await(t *testing.T, op string, n int) fakeCall {
	t.Helper()
	for {
		f.mu.Lock()
		seen := 0
		for _, c := range f.calls {
			if c.Op == op {
				if seen++; seen == n {
					f.mu.Unlock()
					return c
				}
			}
		}
		if f.more == nil {
			f.more = make(chan struct{})
		}
		more := f.more
		f.mu.Unlock()
		select {
		case <-more:
		case <-time.After(20 * time.Second):
			t.Fatalf("%d calls of %s: not within 20 s; calls: %+v", n, op, f.seen())
		}
	}
}

// script answers calls of op in turn with errs, then well.
func (f *fake) script(op string, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = func(c fakeCall) error {
		if c.Op != op || len(errs) == 0 {
			return nil
		}
		err := errs[0]
		errs = errs[1:]
		return err
	}
}

func (f *fake) always(op string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = func(c fakeCall) error {
		if c.Op == op {
			return err
		}
		return nil
	}
}

func (n *fakeNode) CheckAndReserve(ctx context.Context, r *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	if err := n.fake.arrived(ctx, fakeCall{Node: n.node, Op: "reserve", Token: r.GetIdempotencyKey(), Said: estimates(r.GetEstimates())}); err != nil {
		return nil, err
	}
	if err := n.silence(ctx, "reserve", r.GetAccount()); err != nil {
		return nil, err
	}
	if r.GetAccount() == "poor" {
		return &purserv1.CheckAndReserveResponse{Decision: purserv1.Decision_DECISION_DENIED, Denial: &purserv1.Denial{
			Reason: purserv1.DenialReason_DENIAL_REASON_CREDITS, Kind: purserv1.DenialKind_DENIAL_KIND_TRANSIENT,
			RetryAfter: durationpb.New(250 * time.Millisecond), Message: "the wallet is empty",
			Affordable: []*purserv1.MeterQuantity{{Meter: "output_tokens", Quantity: 7}},
		}}, nil
	}
	reservation := &purserv1.Reservation{Token: []byte(n.token(r.GetAccount())), ReservationId: "id of " + r.GetAccount(),
		Feature: r.GetCandidates()[0]}
	for _, e := range r.GetEstimates() {
		reservation.Granted = append(reservation.Granted, &purserv1.MeterQuantity{Meter: e.GetMeter(), Quantity: e.GetQuantity()})
	}
	return &purserv1.CheckAndReserveResponse{Decision: purserv1.Decision_DECISION_ALLOWED, Reservation: reservation}, nil
}

// silence lasts until the caller gives up, if there is to be any.
func (n *fakeNode) silence(ctx context.Context, op, account string) error {
	n.fake.mu.Lock()
	silent := n.fake.silent
	n.fake.mu.Unlock()
	if silent == nil || !silent(n.node, op, account) {
		return nil
	}
	<-ctx.Done()
	return status.FromContextError(ctx.Err()).Err()
}

func (n *fakeNode) Commit(ctx context.Context, r *purserv1.CommitRequest) (*purserv1.CommitResponse, error) {
	c := fakeCall{Node: n.node, Op: "commit", Token: string(r.GetToken()), Usage: len(r.GetUsage()), Said: usage(r.GetUsage())}
	interim := r.Final != nil && !r.GetFinal() && !n.fake.old
	if interim {
		c.Op = "interim"
	}
	if err := n.fake.arrived(ctx, c); err != nil {
		return nil, err
	}
	if err := n.silence(ctx, c.Op, ""); err != nil {
		return nil, err
	}
	if interim {
		return &purserv1.CommitResponse{State: purserv1.ReservationState_RESERVATION_STATE_HELD}, nil
	}
	return &purserv1.CommitResponse{ChargedMicros: 42, CoveredMicros: 40, OverageMicros: 2, UncoveredMicros: 2,
		State: purserv1.ReservationState_RESERVATION_STATE_COMMITTED}, nil
}

func (n *fakeNode) Release(ctx context.Context, r *purserv1.ReleaseRequest) (*purserv1.ReleaseResponse, error) {
	if err := n.fake.arrived(ctx, fakeCall{Node: n.node, Op: "release", Token: string(r.GetToken())}); err != nil {
		return nil, err
	}
	return &purserv1.ReleaseResponse{State: purserv1.ReservationState_RESERVATION_STATE_RELEASED}, nil
}

func (n *fakeNode) Extend(ctx context.Context, r *purserv1.ExtendRequest) (*purserv1.ExtendResponse, error) {
	if err := n.fake.arrived(ctx, fakeCall{Node: n.node, Op: "extend", Token: string(r.GetToken()), Said: estimates(r.GetEstimates())}); err != nil {
		return nil, err
	}
	n.fake.mu.Lock()
	extend := n.fake.extend
	n.fake.mu.Unlock()
	if extend != nil {
		return extend(r), nil
	}
	return granted(r, false), nil
}

// Session does one message after the other with the single calls.
func (n *fakeNode) Session(stream purserv1.AuthorityService_SessionServer) error {
	if n.fake.stream != nil {
		return n.fake.stream(n, stream)
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil
		}
		if err := stream.Send(n.answers(stream.Context(), m)); err != nil {
			return err
		}
	}
}

func (n *fakeNode) answers(ctx context.Context, m *purserv1.SessionRequest) *purserv1.SessionResponse {
	out := &purserv1.SessionResponse{}
	for _, o := range m.GetOperations() {
		result := &purserv1.OperationResult{Id: o.GetId()}
		var err error
		switch call := o.GetCall().(type) {
		case *purserv1.Operation_CheckAndReserve:
			var r *purserv1.CheckAndReserveResponse
			r, err = n.CheckAndReserve(ctx, call.CheckAndReserve)
			result.Result = &purserv1.OperationResult_CheckAndReserve{CheckAndReserve: r}
		case *purserv1.Operation_Commit:
			var r *purserv1.CommitResponse
			r, err = n.Commit(ctx, call.Commit)
			result.Result = &purserv1.OperationResult_Commit{Commit: r}
		case *purserv1.Operation_Release:
			var r *purserv1.ReleaseResponse
			r, err = n.Release(ctx, call.Release)
			result.Result = &purserv1.OperationResult_Release{Release: r}
		case *purserv1.Operation_Extend:
			var r *purserv1.ExtendResponse
			r, err = n.Extend(ctx, call.Extend)
			result.Result = &purserv1.OperationResult_Extend{Extend: r}
		}
		if err != nil {
			e := classify("", err)
			result.Result = &purserv1.OperationResult_Error{Error: &purserv1.OperationStatus{Code: int32(e.Code), Message: e.Message, Metadata: e.Metadata,
				Reason: purserv1.ErrorReason(purserv1.ErrorReason_value["ERROR_REASON_"+e.Reason])}}
		}
		out.Results = append(out.Results, result)
	}
	return out
}

// granted grants all that was asked for.
func granted(r *purserv1.ExtendRequest, exhausted bool) *purserv1.ExtendResponse {
	reservation := &purserv1.Reservation{Token: append(r.GetToken(), '+'), Feature: "chat", Exhausted: exhausted}
	for _, e := range r.GetEstimates() {
		reservation.Granted = append(reservation.Granted, &purserv1.MeterQuantity{Meter: e.GetMeter(), Quantity: e.GetQuantity()})
	}
	return &purserv1.ExtendResponse{Decision: purserv1.Decision_DECISION_ALLOWED, Reservation: reservation}
}

// token names the account, and if asked to which call this is.
func (n *fakeNode) token(account string) string {
	if !n.fake.numbered {
		return "token of " + account
	}
	reserved := 0
	for _, c := range n.fake.seen() {
		if c.Op == "reserve" {
			reserved++
		}
	}
	return fmt.Sprintf("token %d of %s", reserved, account)
}

func estimates(list []*purserv1.Estimate) string {
	var out []string
	for _, e := range list {
		one := fmt.Sprintf("%s=%d", e.GetMeter(), e.GetQuantity())
		if e.MinQuantity != nil {
			one += fmt.Sprintf("/%d", e.GetMinQuantity())
		}
		out = append(out, one)
	}
	return strings.Join(out, " ")
}

func usage(list []*purserv1.MeterQuantity) string {
	var out []string
	for _, q := range list {
		out = append(out, fmt.Sprintf("%s=%d", q.GetMeter(), q.GetQuantity()))
	}
	return strings.Join(out, " ")
}

// start serves nodes on loopback and dials them. change may alter the configuration.
func (f *fake) start(t *testing.T, nodes int, change func(*Config)) *Client {
	t.Helper()
	cfg := Config{Key: testKey, BackoffMin: time.Microsecond, BackoffMax: time.Millisecond}
	for i := range nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		purserv1.RegisterAuthorityServiceServer(s, &fakeNode{fake: f, node: i})
		go s.Serve(l)
		t.Cleanup(s.Stop)
		cfg.Addresses = append(cfg.Addresses, l.Addr().String())
	}
	cfg.Session = f.sessions
	if change != nil {
		change(&cfg)
	}
	c, err := Dial(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // what a test left open on purpose is not waited for
		c.Close(ctx)
	})
	return c
}

// lost is an error that leaves the outcome open.
func lost(code codes.Code) error { return status.Error(code, "the connection broke") }

// refusal is an error with an ErrorInfo.
func refusal(code codes.Code, reason string, definite bool) error {
	if definite {
		return refusalWith(code, reason, map[string]string{notApplied: "true"})
	}
	return refusalWith(code, reason, nil)
}

func refusalWith(code codes.Code, reason string, metadata map[string]string) error {
	info := &errdetails.ErrorInfo{Domain: "purser", Reason: reason, Metadata: metadata}
	st, err := status.New(code, "refused").WithDetails(protoadapt.MessageV1Of(info))
	if err != nil {
		panic(fmt.Sprint("error details: ", err))
	}
	return st.Err()
}
