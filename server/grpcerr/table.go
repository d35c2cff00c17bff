package grpcerr

import (
	"google.golang.org/grpc/codes"

	"github.com/purser-io/purser/quota"
)

// Row is how a reason goes over the wire.
type Row struct {
	Code codes.Code
	// Retryable says that the same call may succeed later without anybody changing anything
	// else. Such errors carry a RetryInfo whenever a wait is known.
	Retryable bool
	// Definite says that the reason by its nature means "not applied" (R52), whoever raised it;
	// others are definite only if the error says so.
	Definite bool
}

// Lookup finds the row of a reason. ok is false for the reasons that stay between the
// engine and its stores: they are INTERNAL on the wire.
func Lookup(r quota.Reason) (row Row, ok bool) {
	const definite, again = true, true
	switch r {
	case quota.ReasonRequestInvalid, quota.ReasonAmountInvalid, quota.ReasonUnitUnknown, quota.ReasonTTLOutOfRange:
		return Row{codes.InvalidArgument, false, definite}, true
	case quota.ReasonCredentialsMissing, quota.ReasonCredentialsInvalid:
		return Row{codes.Unauthenticated, false, definite}, true
	case quota.ReasonCallerNotAllowed, quota.ReasonTokenInvalid:
		return Row{codes.PermissionDenied, false, definite}, true
	case quota.ReasonAccountNotFound, quota.ReasonFeatureNotFound, quota.ReasonPlanNotFound, quota.ReasonRateCardNotFound,
		quota.ReasonGrantNotFound, quota.ReasonBudgetNotFound, quota.ReasonKeyNotFound:
		return Row{codes.NotFound, false, definite}, true
	case quota.ReasonResourceExists, quota.ReasonIdempotencyKeyReused:
		return Row{codes.AlreadyExists, false, definite}, true
	case quota.ReasonReservationCommitted, quota.ReasonReservationReleased, quota.ReasonReservationExpired,
		quota.ReasonTokenTooOld, quota.ReasonExtendElsewhere, quota.ReasonResourceInUse:
		return Row{codes.FailedPrecondition, false, definite}, true
	case quota.ReasonContention, quota.ReasonETagMismatch:
		// A generic client retries UNAVAILABLE by itself; a hot account must not meet that storm.
		return Row{codes.Aborted, r == quota.ReasonContention, definite}, true
	case quota.ReasonCallerRateLimited, quota.ReasonServerOverloaded:
		return Row{codes.ResourceExhausted, again, definite}, true
	case quota.ReasonStoreFull:
		// Whether a full store had taken the write is for whoever saw the failure to say.
		return Row{codes.ResourceExhausted, again, false}, true
	case quota.ReasonStoreUnavailable, quota.ReasonOutcomeUnknown, quota.ReasonShuttingDown:
		return Row{codes.Unavailable, again, false}, true
	case quota.ReasonInternal, quota.ReasonInvariantViolated:
		return Row{codes.Internal, false, false}, true
	case quota.ReasonFeatureDisabled:
		return Row{codes.Unimplemented, false, definite}, true
	}
	return Row{codes.Internal, false, false}, false
}
