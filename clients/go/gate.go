package purser

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Request asks whether an account may use a feature and can pay for it.
type Request struct {
	// Account who pays; may be empty if the API key is bound to one.
	Account string
	// Features in order of preference, 1 to 8: the first whose minimum is affordable is
	// granted.
	Features []string
	// Estimates, one for each meter, at most 16.
	Estimates []Estimate
	// TTL of the reservation, 1 s to 60 s; 0 = the server's default, 30 s.
	TTL time.Duration
	// Labels attribute the usage; at most 16, 512 bytes in all.
	Labels map[string]string
	// IdempotencyKey makes the same request again find the same reservation, at most 128
	// bytes. Left empty, a random one covers the tries of this call.
	IdempotencyKey string
}

// Estimate is what a request expects to use of a meter. Make one with [Need] or [Want].
type Estimate struct {
	Meter    string
	Quantity int64
	// Min, of a Flexible estimate, is the least that will do: near exhaustion less than
	// Quantity is granted, never less than this.
	Min      int64
	Flexible bool
	// Max, if it is above 0, is the total to which the client extends as the work goes on: see
	// [Estimate.UpTo].
	Max int64
}

// Need is an estimate of which all is needed.
func Need(meter string, quantity int64) Estimate { return Estimate{Meter: meter, Quantity: quantity} }

// Want is an estimate that may shrink to least.
func Want(meter string, quantity, least int64) Estimate {
	return Estimate{Meter: meter, Quantity: quantity, Min: least, Flexible: true}
}

// UpTo lets the client ask for more by itself while the work goes on, Quantity at a time, up to
// a total of most: a stream need not hold from the start all that it could ever use. The client
// learns of usage through [Handle.Report].
func (e Estimate) UpTo(most int64) Estimate {
	e.Max = most
	return e
}

// Quantity is an amount of a meter.
type Quantity struct {
	Meter    string
	Quantity int64
}

// Used is an amount of a meter, for Commit.
func Used(meter string, quantity int64) Quantity { return Quantity{meter, quantity} }

// Denied is the answer no. It is an error for the sake of Gate's callers, and a normal outcome.
type Denied struct {
	Reason purserv1.DenialReason
	// Kind is TRANSIENT if what is missing exists and may come back; then RetryAfter is set.
	Kind purserv1.DenialKind
	// RetryAfter is when asking again may help; 0 = nothing is known to change.
	RetryAfter time.Duration
	// Affordable is what would be allowed instead, of the first feature asked for.
	Affordable []Quantity
	// Denial is the whole answer.
	Denial *purserv1.Denial
	// Warnings tell of soft limits.
	Warnings []*purserv1.Warning
}

// Error implements error.
func (d *Denied) Error() string {
	return fmt.Sprintf("denied: %s: %s", d.Reason, d.Denial.GetMessage())
}

// Transient reports whether asking again after RetryAfter may help by itself.
func (d *Denied) Transient() bool { return d.Kind == purserv1.DenialKind_DENIAL_KIND_TRANSIENT }

// Gate reserves. It returns a handle to settle with, a [*Denied] if the answer is no, or an
// [*Error] if there is no answer; if that is unknown, an amount may stay held until its TTL.
// It blocks until the answer, the last try, or the end of ctx.
func (c *Client) Gate(ctx context.Context, r Request) (*Handle, error) {
	order := rank(c.cfg.Addresses, r.Account)
	response, i, err := c.reserve(ctx, order, r.toAPI())
	switch {
	case err != nil:
		return nil, err
	case response.GetReservation() == nil:
		return nil, fromDenial(response)
	}
	return c.newHandle(ctx, r, from(order, i), response), nil
}

// reserve asks for a reservation, and says which node answered. If there is none in the answer,
// there is a denial.
func (c *Client) reserve(ctx context.Context, order []int, r *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, int, *Error) {
	var response *purserv1.CheckAndReserveResponse
	i, err := c.call(ctx, "reserve", order, func(ctx context.Context, api purserv1.AuthorityServiceClient) (err error) {
		response, err = api.CheckAndReserve(ctx, r)
		if err == nil && response.GetReservation() == nil && response.GetDenial() == nil {
			err = status.Error(codes.Unimplemented, "the answer has neither a reservation nor a denial: client and server do not fit together")
		}
		return err
	})
	return response, i, err
}

func (r *Request) toAPI() *purserv1.CheckAndReserveRequest {
	out := &purserv1.CheckAndReserveRequest{
		Account: r.Account, IdempotencyKey: r.IdempotencyKey, Candidates: r.Features, Labels: r.Labels,
	}
	if out.IdempotencyKey == "" {
		out.IdempotencyKey = rand.Text()
	}
	if r.TTL != 0 {
		out.Ttl = durationpb.New(r.TTL)
	}
	for _, e := range r.Estimates {
		estimate := &purserv1.Estimate{Meter: e.Meter, Quantity: e.Quantity}
		if e.Flexible {
			estimate.MinQuantity = &e.Min
		}
		out.Estimates = append(out.Estimates, estimate)
	}
	return out
}

func fromDenial(r *purserv1.CheckAndReserveResponse) *Denied {
	d := r.GetDenial()
	out := &Denied{Reason: d.GetReason(), Kind: d.GetKind(), Denial: d, Warnings: r.GetWarnings()}
	if d.GetRetryAfter() != nil {
		out.RetryAfter = d.GetRetryAfter().AsDuration()
	}
	for _, q := range d.GetAffordable() {
		out.Affordable = append(out.Affordable, Quantity{q.GetMeter(), q.GetQuantity()})
	}
	return out
}
