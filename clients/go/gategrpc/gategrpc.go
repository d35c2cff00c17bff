// Package gategrpc gates the methods of a gRPC server with Purser: a call is let in if its
// account may use the feature and can pay, and what it used is settled when it ends.
//
//	gate := gategrpc.New(client, func(ctx context.Context, method string, message any) (*purser.Request, error) {
//		return &purser.Request{Account: accountOf(ctx), Features: []string{"chat"},
//			Estimates: []purser.Estimate{purser.Want("output_tokens", 400, 1)}}, nil
//	}, gategrpc.WithUsage(func(m any) []purser.Quantity { ... }))
//	grpc.NewServer(grpc.UnaryInterceptor(gate.Unary), grpc.StreamInterceptor(gate.Stream))
//
// Inside the method, [purser.FromContext] is the handle: it says how much is granted, and takes
// reports of usage. How a call is settled is the rule of [purser.Handle.Finish]: a method that
// returns without an error is charged for, one that fails or panics only for what was reported
// before. A client that goes away does not stop the settlement.
package gategrpc

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	purser "github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// RequestFunc says what a call asks for: account, features, labels, estimates. A nil request
// lets the call in ungated. An error is the answer to the call. message is the request of a
// unary call, of a stream the first message received, or nil if the method answers first.
type RequestFunc func(ctx context.Context, method string, message any) (*purser.Request, error)

// Option changes how a Gate works.
type Option func(*Gate)

// WithUsage takes usage from the reply of a unary call, and from each message sent on a stream;
// it adds up. Usage can be reported from inside the method instead, or as well.
func WithUsage(usage func(message any) []purser.Quantity) Option {
	return func(g *Gate) { g.usage = usage }
}

// WithFailOpen lets calls in while the authority is unreachable, under an ungated handle: what
// they use is not charged. Without it such calls fail with UNAVAILABLE.
func WithFailOpen() Option { return func(g *Gate) { g.failOpen = true } }

// WithOnError is told of each failure of the authority, at the gate and when settling, whatever
// becomes of the call. It must not block.
func WithOnError(told func(ctx context.Context, method string, err error)) Option {
	return func(g *Gate) { g.onError = told }
}

// WithOnSettled is told what each call came to. It must not block.
func WithOnSettled(told func(ctx context.Context, method string, h *purser.Handle, r purser.Receipt)) Option {
	return func(g *Gate) { g.onSettled = told }
}

// Gate is made of interceptors. It is safe for concurrent use.
type Gate struct {
	client    *purser.Client
	request   RequestFunc
	usage     func(any) []purser.Quantity
	failOpen  bool
	onError   func(context.Context, string, error)
	onSettled func(context.Context, string, *purser.Handle, purser.Receipt)
}

// New makes a gate that asks client for what request says.
func New(client *purser.Client, request RequestFunc, options ...Option) *Gate {
	g := &Gate{client: client, request: request,
		usage:     func(any) []purser.Quantity { return nil },
		onError:   func(context.Context, string, error) {},
		onSettled: func(context.Context, string, *purser.Handle, purser.Receipt) {}}
	for _, o := range options {
		o(g)
	}
	return g
}

// UnaryServerInterceptor is [Gate.Unary] of a gate made for it.
func UnaryServerInterceptor(client *purser.Client, request RequestFunc, options ...Option) grpc.UnaryServerInterceptor {
	return New(client, request, options...).Unary
}

// StreamServerInterceptor is [Gate.Stream] of a gate made for it.
func StreamServerInterceptor(client *purser.Client, request RequestFunc, options ...Option) grpc.StreamServerInterceptor {
	return New(client, request, options...).Stream
}

// Unary is a grpc.UnaryServerInterceptor. The reply is sent when the call is settled.
func (g *Gate) Unary(ctx context.Context, message any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (reply any, err error) {
	h, err := g.enter(ctx, info.FullMethod, message)
	if err != nil {
		return nil, err
	}
	if h == nil {
		return next(ctx, message)
	}
	panicked := true
	defer func() { g.leave(ctx, info.FullMethod, h, outcomeOf(ctx, panicked, err)) }()
	reply, err = next(purser.NewContext(ctx, h), message)
	panicked = false
	if err == nil {
		g.count(h, reply)
	}
	return reply, err
}

// enter asks. Without an error and without a handle the call is not gated.
func (g *Gate) enter(ctx context.Context, method string, message any) (*purser.Handle, error) {
	request, err := g.request(ctx, method, message)
	if err != nil || request == nil {
		return nil, err
	}
	h, err := g.client.Gate(ctx, *request)
	if err == nil {
		return h, nil
	}
	if denied, ok := errors.AsType[*purser.Denied](err); ok {
		return nil, denial(denied)
	}
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	g.onError(ctx, method, err)
	failure, ok := errors.AsType[*purser.Error](err)
	switch {
	case !ok || !failure.Unreachable():
		return nil, status.Error(codes.Internal, "the quota authority refused the question")
	case g.failOpen:
		return purser.Ungated(*request), nil
	}
	return nil, withDetails(status.New(codes.Unavailable, "the quota authority cannot be reached; try again"),
		&errdetails.ErrorInfo{Domain: Domain, Reason: ReasonUnreachable, Metadata: map[string]string{"not_applied": "true"}}, unreachableWait)
}

// leave settles. A settlement whose outcome is unknown is kept by the client.
func (g *Gate) leave(ctx context.Context, method string, h *purser.Handle, outcome purserv1.Outcome) {
	receipt, err := h.Finish(ctx, outcome)
	if err != nil {
		g.onError(ctx, method, err)
		return
	}
	g.onSettled(ctx, method, h, receipt)
}

func (g *Gate) count(h *purser.Handle, message any) {
	for _, q := range g.usage(message) {
		h.Add(q.Meter, q.Quantity)
	}
}

func outcomeOf(ctx context.Context, panicked bool, err error) purserv1.Outcome {
	switch {
	case panicked:
		return purserv1.Outcome_OUTCOME_ERROR
	case err == nil:
		return purserv1.Outcome_OUTCOME_SUCCESS
	case errors.Is(ctx.Err(), context.Canceled):
		return purserv1.Outcome_OUTCOME_USER_CANCELLED
	}
	return purserv1.Outcome_OUTCOME_ERROR
}

const (
	// Domain is that of the google.rpc.ErrorInfo sent with a denial.
	Domain = "purser"
	// ReasonUnreachable is the reason of calls that failed because the authority did not answer. The
	// reason of a denial is its name in the contract without DENIAL_REASON_.
	ReasonUnreachable = "AUTHORITY_UNREACHABLE"

	unreachableWait = time.Second
)

// denial is the status of a call that was not let in: PERMISSION_DENIED if the account may not,
// else RESOURCE_EXHAUSTED.
func denial(d *purser.Denied) error {
	code := codes.ResourceExhausted
	if d.Forbidden() {
		code = codes.PermissionDenied
	}
	return withDetails(status.New(code, d.Denial.GetMessage()), &errdetails.ErrorInfo{Domain: Domain,
		Reason: strings.TrimPrefix(d.Reason.String(), "DENIAL_REASON_"),
		Metadata: map[string]string{"kind": strings.TrimPrefix(d.Kind.String(), "DENIAL_KIND_"),
			"feature": d.Denial.GetFeature()}}, d.RetryAfter)
}

func withDetails(s *status.Status, info *errdetails.ErrorInfo, wait time.Duration) error {
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}
	if wait > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}))
	}
	full, err := s.WithDetails(details...)
	if err != nil { // only for code OK, which none of these has
		return s.Err()
	}
	return full.Err()
}
