package purser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// notApplied is the metadata key by which the server says that an error is definite (R52).
const notApplied = "not_applied"

// Error is a call that got no answer to work with. A denial is not an Error but [Denied].
type Error struct {
	Op       string            // "reserve", "commit", "release"
	Code     codes.Code        // of the last try
	Reason   string            // ErrorInfo reason such as "SERVER_OVERLOADED"; "" if none was sent
	Message  string            // for people
	Metadata map[string]string // of the ErrorInfo
	// Definite says that the call had no effect and will have none. If false, the outcome is
	// unknown: it may have been applied, or may yet be.
	Definite bool
	// Kept says that a settlement is kept and sent again in the background until its outcome
	// is known; [Config.OnSettled] is told.
	Kept bool

	retryable  bool // the same call may do better
	elsewhere  bool // but not on the same node
	retryAfter time.Duration
	err        error
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s", e.Op, e.Code)
	if e.Reason != "" {
		s += " " + e.Reason
	}
	s += ": " + e.Message
	switch {
	case e.Kept:
		s += " (outcome unknown; kept and sent again)"
	case !e.Definite:
		s += " (outcome unknown)"
	}
	return s
}

// Unwrap yields the gRPC error of the last try, or the context's.
func (e *Error) Unwrap() error { return e.err }

// IsUnknown reports whether err leaves open whether the call was applied.
func IsUnknown(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && !e.Definite
}

// classify sorts the error of one try: does it settle the matter, and is it worth another try.
func classify(op string, err error) *Error {
	st := status.Convert(err)
	e := &Error{Op: op, Code: st.Code(), Message: st.Message(), err: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Code = codes.DeadlineExceeded
	}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
		case *errdetails.RetryInfo:
			e.retryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	refused := e.Metadata[notApplied] == "true"
	switch e.Code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		e.Definite, e.retryable, e.elsewhere = refused, true, refused
	case codes.Unknown, codes.Internal, codes.DataLoss:
		e.Definite, e.retryable = refused, !refused
	case codes.ResourceExhausted, codes.Aborted:
		// Overload and contention pass. A message over its bound has no ErrorInfo: it is the
		// transport's refusal, and comes again with every try.
		e.Definite, e.retryable = true, e.Reason != ""
	default:
		e.Definite = true
	}
	return e
}

// answered reports an error that the node itself gave, and not the way to it.
func (e *Error) answered() bool {
	return e.Reason != "" || e.Code != codes.Unavailable && e.Code != codes.DeadlineExceeded && e.Code != codes.Canceled
}

// ofState reports an answer about what a call is about, such as a reservation that was settled
// before.
func (e *Error) ofState() bool {
	return e.Code == codes.FailedPrecondition || e.Code == codes.AlreadyExists
}

// open reports whether the same call sent again may settle the matter.
func (e *Error) open() bool { return e.retryable || !e.Definite }
