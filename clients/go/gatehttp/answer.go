package gatehttp

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	purser "github.com/purser-io/purser/clients/go"
)

// Problem is the body of an answer to a request that was not let in, under the key "error".
type Problem struct {
	// Reason is that of the denial in the contract without DENIAL_REASON_, such as "CREDITS";
	// REQUEST_INVALID, AUTHORITY_UNREACHABLE or AUTHORITY_REFUSED if there was none.
	Reason  string `json:"reason"`
	Message string `json:"message"` // for people; its text may change
	Feature string `json:"feature,omitempty"`
	// RetryAfterMS is when asking again may help, in milliseconds; left out if nothing is known to
	// change. The header Retry-After has it in seconds, rounded up.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
	// Affordable is what would be allowed instead, by meter.
	Affordable map[string]int64 `json:"affordable,omitempty"`
}

// unreachableWait is advised when the authority does not answer.
const unreachableWait = time.Second

// refuse answers a request that was not let in: 403 if the account may not, 429 if what is
// missing comes back with time, else 402; 503 if the authority did not answer, 500 if it did not
// understand.
func refuse(w http.ResponseWriter, err error) {
	if d, ok := errors.AsType[*purser.Denied](err); ok {
		denied(w, d)
		return
	}
	failure, ok := errors.AsType[*purser.Error](err)
	if !ok || !failure.Unreachable() {
		answer(w, http.StatusInternalServerError, Problem{Reason: "AUTHORITY_REFUSED", Message: "the quota authority refused the question"})
		return
	}
	answer(w, http.StatusServiceUnavailable, Problem{Reason: "AUTHORITY_UNREACHABLE",
		Message: "the quota authority cannot be reached; try again", RetryAfterMS: unreachableWait.Milliseconds()})
}

func denied(w http.ResponseWriter, d *purser.Denied) {
	p := Problem{Reason: strings.TrimPrefix(d.Reason.String(), "DENIAL_REASON_"), Message: d.Denial.GetMessage(), Feature: d.Denial.GetFeature(),
		RetryAfterMS: (d.RetryAfter + time.Millisecond - 1).Milliseconds()}
	for _, q := range d.Affordable {
		if p.Affordable == nil {
			p.Affordable = make(map[string]int64, len(d.Affordable))
		}
		p.Affordable[q.Meter] = q.Quantity
	}
	code := http.StatusPaymentRequired
	switch {
	case d.Forbidden():
		code = http.StatusForbidden
	case d.RetryAfter > 0:
		code = http.StatusTooManyRequests
	}
	answer(w, code, p)
}

func answer(w http.ResponseWriter, code int, p Problem) {
	if p.RetryAfterMS > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt((p.RetryAfterMS+999)/1000, 10))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	// What cannot be written is not read either.
	_ = json.NewEncoder(w).Encode(map[string]Problem{"error": p})
}
