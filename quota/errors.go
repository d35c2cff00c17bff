package quota

import "time"

// Reason is the stable, machine-readable cause of an [Error]: the name of the wire enum
// purser.v1.ErrorReason without its prefix. It is itself an error, so that
// errors.Is(err, quota.ReasonFenced) works through any wrapping.
type Reason string

// Error implements error; a bare Reason says no more than its name.
func (r Reason) Error() string { return string(r) }

// Reasons. The server's table maps each of them to a gRPC code.
const (
	ReasonRequestInvalid   Reason = "REQUEST_INVALID"
	ReasonAmountInvalid    Reason = "AMOUNT_INVALID"
	ReasonUnitUnknown      Reason = "UNIT_UNKNOWN"
	ReasonTTLOutOfRange    Reason = "TTL_OUT_OF_RANGE"
	ReasonTokenInvalid     Reason = "TOKEN_INVALID"
	ReasonCallerNotAllowed Reason = "CALLER_NOT_ALLOWED"

	ReasonCredentialsMissing Reason = "CREDENTIALS_MISSING"
	ReasonCredentialsInvalid Reason = "CREDENTIALS_INVALID"

	ReasonAccountNotFound  Reason = "ACCOUNT_NOT_FOUND"
	ReasonFeatureNotFound  Reason = "FEATURE_NOT_FOUND"
	ReasonPlanNotFound     Reason = "PLAN_NOT_FOUND"
	ReasonRateCardNotFound Reason = "RATE_CARD_NOT_FOUND"
	ReasonGrantNotFound    Reason = "GRANT_NOT_FOUND"
	ReasonBudgetNotFound   Reason = "BUDGET_NOT_FOUND"
	ReasonKeyNotFound      Reason = "KEY_NOT_FOUND"

	ReasonResourceExists       Reason = "RESOURCE_EXISTS"
	ReasonResourceInUse        Reason = "RESOURCE_IN_USE"
	ReasonIdempotencyKeyReused Reason = "IDEMPOTENCY_KEY_REUSED"
	ReasonETagMismatch         Reason = "ETAG_MISMATCH"
	ReasonContention           Reason = "CONTENTION"

	ReasonReservationCommitted Reason = "RESERVATION_COMMITTED"
	ReasonReservationReleased  Reason = "RESERVATION_RELEASED"
	ReasonReservationExpired   Reason = "RESERVATION_EXPIRED"
	ReasonTokenTooOld          Reason = "TOKEN_TOO_OLD"
	ReasonExtendElsewhere      Reason = "EXTEND_ELSEWHERE"

	ReasonCallerRateLimited Reason = "CALLER_RATE_LIMITED"
	ReasonServerOverloaded  Reason = "SERVER_OVERLOADED"
	ReasonStoreFull         Reason = "STORE_FULL"

	ReasonStoreUnavailable Reason = "STORE_UNAVAILABLE"
	ReasonOutcomeUnknown   Reason = "OUTCOME_UNKNOWN"
	ReasonShuttingDown     Reason = "SHUTTING_DOWN"

	ReasonInternal          Reason = "INTERNAL"
	ReasonInvariantViolated Reason = "INVARIANT_VIOLATED"
	ReasonFeatureDisabled   Reason = "FEATURE_DISABLED"
)

// Reasons that stay between the engine and its stores; a server that meets one on its way
// out reports INTERNAL.
const (
	// ReasonFenced says that the lane or incarnation named may no longer write.
	ReasonFenced Reason = "FENCED"
	// ReasonPolicyChanged says that an account's epoch is not the one the caller decided with:
	// load the account again and decide anew.
	ReasonPolicyChanged Reason = "POLICY_CHANGED"
	// ReasonSchema says that the store's schema is missing, older or newer than this program's.
	ReasonSchema Reason = "SCHEMA"
	// ReasonStoreLocked says that another process owns the embedded store (R29).
	ReasonStoreLocked Reason = "STORE_LOCKED"
	// ReasonStoreDamaged says that the embedded store's file is not readable as a database.
	ReasonStoreDamaged Reason = "STORE_DAMAGED"
)

// Error is a failure the caller can act on. Anything else is INTERNAL on the wire.
type Error struct {
	Reason     Reason
	Message    string            // safe for the caller: what is wrong and what to do
	Meta       map[string]string // safe for the caller; units in the key
	RetryAfter time.Duration     // 0 = no advice
	NotApplied bool              // the outcome is definite: nothing was changed and nothing will be (R52)
	Err        error             // cause: logged, never sent
}

// Errorf is the short way to an [Error] without a cause.
func Errorf(reason Reason, message string) *Error {
	return &Error{Reason: reason, Message: message}
}

// Wrap is the short way to an [Error] with a cause.
func Wrap(reason Reason, message string, cause error) *Error {
	return &Error{Reason: reason, Message: message, Err: cause}
}

// Error implements error. It includes the cause, and so is for logs; the server sends Message.
func (e *Error) Error() string {
	s := string(e.Reason)
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap yields the reason and the cause, so that errors.Is finds either.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Reason}
	}
	return []error{e.Reason, e.Err}
}
