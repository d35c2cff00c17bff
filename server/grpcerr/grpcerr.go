// Package grpcerr turns errors of the domain into gRPC statuses: one table from reason to
// code, with google.rpc.ErrorInfo, RetryInfo and BadRequest beside it.
//
// Denials are answers and never come here.
package grpcerr

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/quota"
)

// Domain is the domain of every google.rpc.ErrorInfo sent.
const Domain = "purser"

// Metadata keys that mean the same whatever the reason.
const (
	// MetaNotApplied, with the value "true", says that the outcome is definite: nothing was
	// changed by the call and nothing will be (R52).
	MetaNotApplied = "not_applied"
	// MetaField names the field of the request that is wrong; it becomes a BadRequest too.
	MetaField = "field"
	// MetaRequestID leads from a fault to its line in the log.
	MetaRequestID = "request_id"
)

// messageInternal is all that a caller learns of a fault: causes may hold secrets and SQL.
const messageInternal = "internal error; the log has the cause under the request_id"

// overloadWait is advised when something is over its bound and nobody said for how long.
const overloadWait = 100 * time.Millisecond

// Violation is one field that is wrong.
type Violation struct {
	Field       string // path in the request: "estimates[2].quantity"
	Description string // which value, which bound
}

// InvalidError is a refusal of a request with all the fields that are wrong with it.
type InvalidError struct {
	Cause      *quota.Error
	Violations []Violation
}

// Error implements error.
func (e *InvalidError) Error() string { return e.Cause.Error() }

// Unwrap yields the error of the domain.
func (e *InvalidError) Unwrap() error { return e.Cause }

// Invalid refuses a request for its fields; violations must not be empty.
func Invalid(reason quota.Reason, violations ...Violation) error {
	said := make([]string, len(violations))
	for i, v := range violations {
		said[i] = v.Description
		if v.Field != "" { // Empty if it is about how fields go together.
			said[i] = v.Field + ": " + v.Description
		}
	}
	return &InvalidError{
		Cause:      &quota.Error{Reason: reason, Message: strings.Join(said, "; "), NotApplied: true},
		Violations: violations,
	}
}

// Mapper turns errors into statuses and logs those that are faults. Safe for concurrent use.
type Mapper struct {
	logger *slog.Logger
}

// New makes a Mapper that logs to logger.
func New(logger *slog.Logger) *Mapper { return &Mapper{logger: logger} }

// ReasonOf is the reason an error goes out with; "" for what gRPC itself or a context said.
func ReasonOf(err error) quota.Reason {
	var e *quota.Error
	switch {
	case errors.As(err, &e):
		if _, ok := Lookup(e.Reason); ok {
			return e.Reason
		}
		return quota.ReasonInternal
	case isStatus(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return ""
	}
	return quota.ReasonInternal
}

// CodeOf is the code an error goes out with.
func CodeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if reason := ReasonOf(err); reason != "" {
		row, _ := Lookup(reason)
		return row.Code
	}
	return foreign(err).Code()
}

// Status is what the caller gets for err; nil for nil. Faults are logged with method, whole.
func (m *Mapper) Status(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if out := m.message(ctx, method, err); out != nil {
		return out.status()
	}
	return foreign(err).Err()
}

// message is what err says, with a fault logged; nil for what is not of the domain.
func (m *Mapper) message(ctx context.Context, method string, err error) *message {
	reason := ReasonOf(err)
	if reason == "" {
		return nil
	}
	var invalid *InvalidError
	errors.As(err, &invalid)
	var e *quota.Error
	if !errors.As(err, &e) || e.Reason != reason {
		e = &quota.Error{Reason: reason}
	}
	row, _ := Lookup(reason)
	out := &message{row: row, Error: e, meta: maps.Clone(e.Meta), text: e.Message}
	if out.meta == nil {
		out.meta = make(map[string]string, 1)
	}
	if invalid != nil {
		out.violations = invalid.Violations
	} else if field := e.Meta[MetaField]; field != "" && row.Code == codes.InvalidArgument {
		out.violations = []Violation{{field, e.Message}}
	}
	if row.Code == codes.Internal {
		m.fault(ctx, method, err, out)
	}
	// OUTCOME_UNKNOWN never claims to be definite, whoever said so: it would cost a charge.
	delete(out.meta, MetaNotApplied)
	if (row.Definite || e.NotApplied) && reason != quota.ReasonOutcomeUnknown {
		out.meta[MetaNotApplied] = "true"
	}
	if out.text == "" {
		out.text = string(reason)
	}
	return out
}

// fault keeps the cause here and gives the caller a way to it.
func (m *Mapper) fault(ctx context.Context, method string, err error, out *message) {
	id := rand.Text()
	out.meta[MetaRequestID] = id
	out.text = messageInternal
	m.logger.ErrorContext(ctx, "call failed", "method", method, "reason", string(out.Reason), MetaRequestID, id, "error", err)
}

// message is a status in the making.
type message struct {
	*quota.Error
	row        Row
	text       string // instead of the error's own Message
	meta       map[string]string
	violations []Violation
}

func (m *message) status() error {
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(&errdetails.ErrorInfo{
		Reason: string(m.Reason), Domain: Domain, Metadata: m.meta,
	})}
	if wait := m.wait(); wait > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)}))
	}
	if len(m.violations) > 0 {
		bad := &errdetails.BadRequest{}
		for _, v := range m.violations {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: v.Field, Description: v.Description})
		}
		details = append(details, protoadapt.MessageV1Of(bad))
	}
	st, err := status.New(m.row.Code, m.text).WithDetails(details...)
	if err != nil { // Only for code OK, which no row has.
		return status.Error(codes.Internal, messageInternal)
	}
	return st.Err()
}

// wait is what RetryInfo advises; 0 = no advice.
func (m *message) wait() time.Duration {
	switch {
	case !m.row.Retryable:
		return 0
	case m.RetryAfter == 0 && m.row.Code == codes.ResourceExhausted:
		return overloadWait
	}
	return m.RetryAfter
}

func isStatus(err error) bool {
	_, ok := err.(interface{ GRPCStatus() *status.Status })
	return ok
}

// foreign maps what is not of the domain: a context's end, or a status that gRPC made.
func foreign(err error) *status.Status {
	switch {
	case isStatus(err):
		return status.Convert(err)
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded,
			"the deadline passed; the outcome is unknown: repeat the call with the same token, idempotency key or request id")
	}
	return status.New(codes.Canceled,
		"the call was cancelled; the outcome is unknown: repeat the call with the same token, idempotency key or request id")
}
