// Package gatehttp gates net/http handlers with Purser: a request is let in if its account may
// use the feature and can pay, and what it used is settled when the handler returns.
//
//	gate := gatehttp.Middleware(client, func(r *http.Request) (*purser.Request, error) {
//		return &purser.Request{Account: accountOf(r), Features: []string{"chat"},
//			Estimates: []purser.Estimate{purser.Want("output_tokens", 400, 1)}}, nil
//	})
//	http.ListenAndServe(":8080", gate(handler))
//
// Inside the handler, [purser.FromContext] of the request's context is the handle: it says how
// much is granted, and takes reports of usage. How a request is settled is the rule of
// [purser.Handle.Finish]: one that is answered with a status below 400 is charged for, one that
// fails or panics only for what was reported before. A client that goes away does not stop the
// settlement.
package gatehttp

import (
	"context"
	"errors"
	"net/http"

	purser "github.com/purser-io/purser/clients/go"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// RequestFunc says what a request asks for: account, features, labels, estimates. A nil request
// lets it in ungated. An error is answered with 400 and its text. If it reads the body, it has
// to put another in its place.
type RequestFunc func(r *http.Request) (*purser.Request, error)

// Reply is how a handler answered.
type Reply struct {
	Request *http.Request
	Status  int
	Header  http.Header
	Bytes   int64 // of the body
}

// Option changes how a middleware works.
type Option func(*gate)

// WithUsage takes usage from the reply as a whole, when the handler has returned. Usage can be
// reported from inside the handler instead, or as well.
func WithUsage(usage func(Reply) []purser.Quantity) Option {
	return func(g *gate) { g.usage = usage }
}

// WithChunkUsage takes usage from each piece of the body as it is written; it adds up. The
// piece must not be changed or kept.
func WithChunkUsage(usage func(chunk []byte) []purser.Quantity) Option {
	return func(g *gate) { g.chunkUsage = usage }
}

// WithFailOpen lets requests in while the authority is unreachable, under an ungated handle: what
// they use is not charged. Without it they are answered with 503.
func WithFailOpen() Option { return func(g *gate) { g.failOpen = true } }

// WithOnError is told of each failure of the authority, at the gate and when settling, whatever
// becomes of the request. It must not block.
func WithOnError(told func(r *http.Request, err error)) Option {
	return func(g *gate) { g.onError = told }
}

// WithOnSettled is told what each request came to. It must not block.
func WithOnSettled(told func(r *http.Request, h *purser.Handle, receipt purser.Receipt)) Option {
	return func(g *gate) { g.onSettled = told }
}

// gate is the middleware.
type gate struct {
	client     *purser.Client
	request    RequestFunc
	usage      func(Reply) []purser.Quantity
	chunkUsage func([]byte) []purser.Quantity
	failOpen   bool
	onError    func(*http.Request, error)
	onSettled  func(*http.Request, *purser.Handle, purser.Receipt)
}

// Middleware gates the handlers it is put around.
func Middleware(client *purser.Client, request RequestFunc, options ...Option) func(http.Handler) http.Handler {
	g := &gate{client: client, request: request,
		usage:      func(Reply) []purser.Quantity { return nil },
		chunkUsage: func([]byte) []purser.Quantity { return nil },
		onError:    func(*http.Request, error) {},
		onSettled:  func(*http.Request, *purser.Handle, purser.Receipt) {}}
	for _, o := range options {
		o(g)
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, next) })
	}
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	request, err := g.request(r)
	if err != nil {
		answer(w, http.StatusBadRequest, Problem{Reason: "REQUEST_INVALID", Message: err.Error()})
		return
	}
	if request == nil {
		next.ServeHTTP(w, r)
		return
	}
	h, err := g.enter(r, *request)
	if err != nil {
		refuse(w, err)
		return
	}
	out := &writer{ResponseWriter: w, chunk: func(b []byte) { add(h, g.chunkUsage(b)) }}
	panicked := true
	defer func() { _ = h.Close() }() // if WithUsage panics, or anything else on the way out
	defer func() { g.leave(r, h, out, panicked) }()
	next.ServeHTTP(out, r.WithContext(purser.NewContext(r.Context(), h)))
	panicked = false
}

// enter asks; whether to go on without an answer is decided here.
func (g *gate) enter(r *http.Request, request purser.Request) (*purser.Handle, error) {
	h, err := g.client.Gate(r.Context(), request)
	if err == nil {
		return h, nil
	}
	if _, denied := errors.AsType[*purser.Denied](err); denied || r.Context().Err() != nil {
		return nil, err
	}
	g.onError(r, err)
	if failure, ok := errors.AsType[*purser.Error](err); ok && failure.Unreachable() && g.failOpen {
		return purser.Ungated(request), nil
	}
	return nil, err
}

// leave settles. A settlement whose outcome is unknown is kept by the client.
func (g *gate) leave(r *http.Request, h *purser.Handle, out *writer, panicked bool) {
	if !panicked {
		add(h, g.usage(Reply{Request: r, Status: out.code(), Header: out.Header(), Bytes: out.bytes}))
	}
	receipt, err := h.Finish(r.Context(), outcomeOf(r.Context(), h, out, panicked))
	if err != nil {
		g.onError(r, err)
		return
	}
	g.onSettled(r, h, receipt)
}

func add(h *purser.Handle, usage []purser.Quantity) {
	for _, q := range usage {
		h.Add(q.Meter, q.Quantity)
	}
}

// outcomeOf says what became of a request. A client that has gone takes nothing back: what was
// answered or reported has been done.
func outcomeOf(ctx context.Context, h *purser.Handle, out *writer, panicked bool) purserv1.Outcome {
	switch {
	case panicked, out.code() >= http.StatusBadRequest:
		return purserv1.Outcome_OUTCOME_ERROR
	case errors.Is(ctx.Err(), context.Canceled) && (out.status == 0 || len(h.Reported()) > 0):
		return purserv1.Outcome_OUTCOME_USER_CANCELLED
	}
	return purserv1.Outcome_OUTCOME_SUCCESS
}
