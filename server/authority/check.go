package authority

import (
	"fmt"
	"strconv"
	"time"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/amount"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/server/grpcerr"
)

// The checks in this file are those that the contract states as protovalidate rules, written
// out by hand because the data plane has no time for an interpreter. TestChecksAgree holds
// the two together.

// ttlMax is the longest hold the contract allows; a server may be set to less (M0).
const ttlMax = 60 * time.Second

// refuse says which field is wrong, how, and what its bound is.
func refuse(reason quota.Reason, field, format string, args ...any) error {
	return grpcerr.Invalid(reason, grpcerr.Violation{Field: field, Description: fmt.Sprintf(format, args...)})
}

// shown is a value as an error sends it back: quoted, and cut if it is long.
func shown(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%.*q... (%d bytes)", most, s, len(s))
	}
	return strconv.Quote(s)
}

// checkAccount wants what ids of accounts and principals are made of.
func checkAccount(field, id string) error {
	if validAccount(id) {
		return nil
	}
	if id == "" {
		return refuse(quota.ReasonRequestInvalid, field, "it is missing; name the account")
	}
	return refuse(quota.ReasonRequestInvalid, field,
		"%s is no account id: 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':', '@', '-', the first a letter or digit", shown(id))
}

func validAccount(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == ':' || c == '@' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// checkName wants what names of features and meters are made of.
func checkName(field, what, name string) error {
	if validName(name) {
		return nil
	}
	return refuse(quota.ReasonRequestInvalid, field,
		"%s is no %s: 1 to 63 of a-z, 0-9, '.', '_', '-', the first a letter or digit", shown(name), what)
}

func validName(name string) bool {
	if name == "" || len(name) > 63 {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// checkAmount bounds a quantity; sums and prices are checked where they are made.
func checkAmount(field string, n int64) error {
	if n < 0 || n > amount.Max {
		return refuse(quota.ReasonAmountInvalid, field, "%d is out of range: it must be 0 to %d", n, int64(amount.Max))
	}
	return nil
}

// checkInterim: an interim commit is of a reservation that is live.
func checkInterim(req *purserv1.CommitRequest) error {
	if interim(req) && req.GetUsageDelivered() {
		return refuse(quota.ReasonRequestInvalid, "usage_delivered", "it is of a commit that settles: not with final = false")
	}
	return nil
}

func checkKey(key string) error {
	if len(key) > quota.MaxKeyBytes {
		return refuse(quota.ReasonRequestInvalid, "idempotency_key", "it has %d bytes, at most %d are allowed", len(key), quota.MaxKeyBytes)
	}
	return nil
}

func checkCandidates(candidates []string) error {
	if n := len(candidates); n == 0 || n > quota.MaxCandidates {
		return refuse(quota.ReasonRequestInvalid, "candidates", "there are %d, it must be 1 to %d", n, quota.MaxCandidates)
	}
	for i, c := range candidates {
		if err := checkName(index("candidates", i, ""), "feature id", c); err != nil {
			return err
		}
		for j := range i { // At most 8: no set needed.
			if candidates[j] == c {
				return refuse(quota.ReasonRequestInvalid, index("candidates", i, ""), "%s is listed twice", shown(c))
			}
		}
	}
	return nil
}

func checkEstimates(estimates []*purserv1.Estimate) error {
	if n := len(estimates); n > quota.MaxMeters {
		return refuse(quota.ReasonRequestInvalid, "estimates", "there are %d, at most %d are allowed", n, quota.MaxMeters)
	}
	for i, e := range estimates {
		if err := checkEstimate(i, e); err != nil {
			return err
		}
		for j := range i {
			if estimates[j].GetMeter() == e.GetMeter() {
				return refuse(quota.ReasonRequestInvalid, index("estimates", i, ".meter"), "%s is listed twice", shown(e.GetMeter()))
			}
		}
	}
	return nil
}

func checkEstimate(i int, e *purserv1.Estimate) error {
	if !validName(e.GetMeter()) {
		return checkName(index("estimates", i, ".meter"), "meter", e.GetMeter())
	}
	if n := e.GetQuantity(); n < 0 || n > amount.Max {
		return checkAmount(index("estimates", i, ".quantity"), n)
	}
	if n := e.GetMinQuantity(); n < 0 || n > amount.Max {
		return checkAmount(index("estimates", i, ".min_quantity"), n)
	}
	if e.GetMinQuantity() > e.GetQuantity() {
		return refuse(quota.ReasonAmountInvalid, index("estimates", i, ".min_quantity"),
			"%d is above the quantity, %d", e.GetMinQuantity(), e.GetQuantity())
	}
	return nil
}

func checkUsage(usage []*purserv1.MeterQuantity) error {
	if n := len(usage); n > quota.MaxMeters {
		return refuse(quota.ReasonRequestInvalid, "usage", "there are %d, at most %d are allowed", n, quota.MaxMeters)
	}
	for i, u := range usage {
		if !validName(u.GetMeter()) {
			return checkName(index("usage", i, ".meter"), "meter", u.GetMeter())
		}
		if n := u.GetQuantity(); n < 0 || n > amount.Max {
			return checkAmount(index("usage", i, ".quantity"), n)
		}
		for j := range i {
			if usage[j].GetMeter() == u.GetMeter() {
				return refuse(quota.ReasonRequestInvalid, index("usage", i, ".meter"), "%s is listed twice", shown(u.GetMeter()))
			}
		}
	}
	return nil
}

func checkTTL(ttl time.Duration) error {
	if ttl >= quota.MinTTL && ttl <= ttlMax {
		return nil
	}
	cause := grpcerr.Violation{Field: "ttl", Description: fmt.Sprintf("%v is out of range: it must be %v to %v", ttl, quota.MinTTL, ttlMax)}
	return &grpcerr.InvalidError{
		Cause: &quota.Error{Reason: quota.ReasonTTLOutOfRange, Message: "ttl: " + cause.Description, NotApplied: true,
			Meta: map[string]string{
				"ttl_min_seconds": strconv.Itoa(int(quota.MinTTL.Seconds())),
				"ttl_max_seconds": strconv.Itoa(int(ttlMax.Seconds())),
			}},
		Violations: []grpcerr.Violation{cause},
	}
}

// checkLabels resolves labels as sent; the authority merges those of the key over them.
func checkLabels(sent map[string]string) (label.Set, error) {
	set, err := label.New(sent)
	if err != nil {
		return nil, refuse(quota.ReasonRequestInvalid, "labels", "%v", err)
	}
	return set, nil
}

func checkToken(t []byte) error {
	switch n := len(t); {
	case n == 0:
		return refuse(quota.ReasonRequestInvalid, "token", "it is missing; send the token of the reservation")
	case n > token.MaxSize:
		return refuse(quota.ReasonRequestInvalid, "token", "it has %d bytes, at most %d are allowed", n, token.MaxSize)
	}
	return nil
}

func checkOutcome(o purserv1.Outcome) error {
	if _, ok := purserv1.Outcome_name[int32(o)]; !ok {
		return refuse(quota.ReasonRequestInvalid, "outcome", "%d is no value of the enum", o)
	}
	return nil
}

func index(list string, i int, rest string) string { return list + "[" + strconv.Itoa(i) + "]" + rest }
