package authority

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/server/admin"
)

// Enums of the contract and of the domain have the same numbers; TestEnumsAgree holds them
// together.

func fromAPICheckAndReserve(account string, req *purserv1.CheckAndReserveRequest) (*quota.Request, error) {
	if err := checkKey(req.GetIdempotencyKey()); err != nil {
		return nil, err
	}
	r, err := fromAPIWork(account, req.GetCandidates(), req.GetEstimates(), req.GetLabels())
	if err != nil {
		return nil, err
	}
	r.Key = req.GetIdempotencyKey()
	if t := req.GetTtl(); t != nil {
		r.TTL = t.AsDuration()
		if err := checkTTL(r.TTL); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func fromAPICheck(account string, req *purserv1.CheckRequest) (*quota.Request, error) {
	r, err := fromAPIWork(account, req.GetCandidates(), req.GetEstimates(), req.GetLabels())
	if err != nil {
		return nil, err
	}
	return r, nil
}

func fromAPIWork(account string, candidates []string, estimates []*purserv1.Estimate, sent map[string]string) (*quota.Request, error) {
	if err := checkCandidates(candidates); err != nil {
		return nil, err
	}
	if err := checkEstimates(estimates); err != nil {
		return nil, err
	}
	labels, err := checkLabels(sent)
	if err != nil {
		return nil, err
	}
	return &quota.Request{Account: account, Candidates: candidates, Labels: labels, Estimates: fromAPIEstimates(estimates)}, nil
}

func fromAPICommit(req *purserv1.CommitRequest) (*quota.Settle, error) {
	if err := checkToken(req.GetToken()); err != nil {
		return nil, err
	}
	if err := checkUsage(req.GetUsage()); err != nil {
		return nil, err
	}
	if err := checkOutcome(req.GetOutcome()); err != nil {
		return nil, err
	}
	labels, err := checkLabels(req.GetLabels())
	if err != nil {
		return nil, err
	}
	if err := checkInterim(req); err != nil {
		return nil, err
	}
	s := &quota.Settle{Token: req.GetToken(), Outcome: quota.Outcome(req.GetOutcome()), Labels: labels, Delivered: req.GetUsageDelivered()}
	s.Usage = make([]quota.Quantity, len(req.GetUsage()))
	for i, u := range req.GetUsage() {
		s.Usage[i] = quota.Quantity{Meter: u.GetMeter(), Quantity: u.GetQuantity()}
	}
	return s, nil
}

func fromAPIRelease(req *purserv1.ReleaseRequest) (*quota.Settle, error) {
	if err := checkToken(req.GetToken()); err != nil {
		return nil, err
	}
	if err := checkOutcome(req.GetOutcome()); err != nil {
		return nil, err
	}
	return &quota.Settle{Token: req.GetToken(), Outcome: quota.Outcome(req.GetOutcome())}, nil
}

func fromAPIExtend(req *purserv1.ExtendRequest) (*quota.Extension, error) {
	if err := checkToken(req.GetToken()); err != nil {
		return nil, err
	}
	if err := checkEstimates(req.GetEstimates()); err != nil {
		return nil, err
	}
	x := &quota.Extension{Token: req.GetToken(), Estimates: fromAPIEstimates(req.GetEstimates())}
	if t := req.GetTtl(); t != nil {
		x.TTL = t.AsDuration()
		if err := checkTTL(x.TTL); err != nil {
			return nil, err
		}
	}
	return x, nil
}

func fromAPIEstimates(estimates []*purserv1.Estimate) []quota.Estimate {
	out := make([]quota.Estimate, len(estimates))
	for i, e := range estimates {
		// Presence of the minimum, not its value, makes a meter flexible: 0 is a minimum (R42).
		out[i] = quota.Estimate{Meter: e.GetMeter(), Quantity: e.GetQuantity(), Min: e.GetMinQuantity(), Flexible: e.MinQuantity != nil}
	}
	return out
}

func toAPICheckAndReserve(r *quota.Request, d *quota.Decision) *purserv1.CheckAndReserveResponse {
	out := &purserv1.CheckAndReserveResponse{
		Decision: toAPIDecision(d.Allowed), Warnings: toAPIWarnings(d.Warnings), Replayed: d.Replayed,
	}
	if !d.Allowed {
		out.Denial = DenialToAPI(r, &d.Denial)
		return out
	}
	out.Reservation = toAPIReservation(d)
	return out
}

func toAPIExtend(r *quota.Request, d *quota.Decision) *purserv1.ExtendResponse {
	out := &purserv1.ExtendResponse{
		Decision: toAPIDecision(d.Allowed), Warnings: toAPIWarnings(d.Warnings), Replayed: d.Replayed,
	}
	if !d.Allowed {
		out.Denial = DenialToAPI(r, &d.Denial)
		return out
	}
	out.Reservation = toAPIReservation(d)
	return out
}

func toAPIReservation(d *quota.Decision) *purserv1.Reservation {
	return &purserv1.Reservation{
		Token:         d.Token,
		ReservationId: token.ReservationID(int64(d.Lane), d.Sequence, d.Nonce),
		Feature:       d.Feature,
		Granted:       QuantitiesToAPI(d.Granted),
		HeldMicros:    d.Held,
		ExpireTime:    admin.Time(d.ExpiresAt),
		PriceVersion:  d.PriceVersion,
		Exhausted:     d.Exhausted,
		Partial:       d.Partial,
		Remaining:     toAPIRemaining(d.Remaining),
	}
}

func toAPICheck(r *quota.Request, d *quota.Decision) *purserv1.CheckResponse {
	out := &purserv1.CheckResponse{
		Decision: toAPIDecision(d.Allowed), Warnings: toAPIWarnings(d.Warnings), AsOf: admin.Time(d.AsOf),
	}
	if !d.Allowed {
		out.Denial = DenialToAPI(r, &d.Denial)
		return out
	}
	out.Feature, out.Granted, out.HeldMicros = d.Feature, QuantitiesToAPI(d.Granted), d.Held
	out.PriceVersion, out.Exhausted, out.Partial = d.PriceVersion, d.Exhausted, d.Partial
	out.Remaining = toAPIRemaining(d.Remaining)
	return out
}

func toAPICommit(r *quota.Receipt) *purserv1.CommitResponse {
	return &purserv1.CommitResponse{
		ChargedMicros:   r.Charged,
		CoveredMicros:   r.Covered,
		OverageMicros:   r.Overage,
		UncoveredMicros: r.Uncovered,
		Late:            r.Late,
		Replayed:        r.Replayed,
		State:           toAPIState(r.State),
	}
}

func toAPIRelease(r *quota.Receipt) *purserv1.ReleaseResponse {
	return &purserv1.ReleaseResponse{State: toAPIState(r.State), Replayed: r.Replayed}
}

func toAPIDecision(allowed bool) purserv1.Decision {
	if allowed {
		return purserv1.Decision_DECISION_ALLOWED
	}
	return purserv1.Decision_DECISION_DENIED
}

func toAPIState(k quota.SettleKind) purserv1.ReservationState {
	switch k {
	case quota.Committed:
		return purserv1.ReservationState_RESERVATION_STATE_COMMITTED
	case quota.Released:
		return purserv1.ReservationState_RESERVATION_STATE_RELEASED
	case quota.Expired:
		return purserv1.ReservationState_RESERVATION_STATE_EXPIRED
	}
	return purserv1.ReservationState_RESERVATION_STATE_UNSPECIFIED
}

// QuantitiesToAPI converts quantities of meters.
func QuantitiesToAPI(qs []quota.Quantity) []*purserv1.MeterQuantity {
	out := make([]*purserv1.MeterQuantity, len(qs))
	for i, q := range qs {
		out[i] = &purserv1.MeterQuantity{Meter: q.Meter, Quantity: q.Quantity}
	}
	return out
}

// DenialToAPI converts a denial of r.
func DenialToAPI(r *quota.Request, d *quota.Denial) *purserv1.Denial {
	out := &purserv1.Denial{
		Reason:     purserv1.DenialReason(d.Reason),
		Kind:       purserv1.DenialKind_DENIAL_KIND_FIRM,
		Feature:    r.Candidates[0],
		Level:      toAPILevel(&d.Level),
		Shortfall:  d.Shortfall,
		Unit:       d.Level.Unit,
		Affordable: QuantitiesToAPI(d.Affordable),
	}
	switch d.Reason {
	case quota.DeniedAccountUnknown:
		out.Feature, out.Level.Account = "", r.Account
	case quota.DeniedAccountSuspended:
		out.Feature = ""
		if d.Subject != "" {
			out.Level.Account = d.Subject
		}
	case quota.DeniedFeatureUnknown, quota.DeniedNotEntitled:
		if d.Subject != "" {
			out.Feature = d.Subject
		}
	case quota.DeniedNoPrice:
		if d.Subject != "" {
			out.Unit = d.Subject
		}
	case quota.DeniedRate:
		out.Level.Kind = purserv1.LevelKind_LEVEL_KIND_RATE
	case quota.DeniedConcurrency:
		out.Level.Kind = purserv1.LevelKind_LEVEL_KIND_CONCURRENCY
	}
	if out.Level.Account == "" {
		out.Level.Account = r.Account
	}
	if d.Transient {
		out.Kind = purserv1.DenialKind_DENIAL_KIND_TRANSIENT
	}
	if d.RetryIn > 0 {
		out.RetryAfter = durationpb.New(d.RetryIn)
	}
	out.Message = words(out)
	if d.Detail != "" {
		out.Message += ": " + d.Detail
	}
	return out
}

// toAPILevel: the kinds of pots have the same numbers.
func toAPILevel(l *quota.Level) *purserv1.Level {
	return &purserv1.Level{Kind: purserv1.LevelKind(l.Kind), Account: l.Account, Limit: l.Limit,
		LabelKey: l.LabelKey, LabelValue: l.Selector}
}

// words says a denial in a sentence for people.
func words(d *purserv1.Denial) string {
	said := ""
	account, limit, unit := d.GetLevel().GetAccount(), d.GetLevel().GetLimit(), d.GetUnit()
	switch quota.DenialReason(d.GetReason()) {
	case quota.DeniedAccountUnknown:
		said = fmt.Sprintf("account %s does not exist", account)
	case quota.DeniedAccountSuspended:
		said = fmt.Sprintf("account %s is suspended", account)
	case quota.DeniedFeatureUnknown:
		said = fmt.Sprintf("feature %s does not exist", d.GetFeature())
	case quota.DeniedNotEntitled:
		said = fmt.Sprintf("the plan of account %s does not include feature %s", account, d.GetFeature())
	case quota.DeniedNoPrice:
		said = fmt.Sprintf("meter %s of feature %s has no price", unit, d.GetFeature())
	case quota.DeniedRate:
		said = fmt.Sprintf("rate limit %s of account %s is reached", limit, account)
		if d.GetKind() == purserv1.DenialKind_DENIAL_KIND_FIRM {
			said = fmt.Sprintf("the request asks for more %s than rate limit %s of account %s lets through at once", unit, limit, account)
		}
	case quota.DeniedConcurrency:
		said = fmt.Sprintf("account %s has as many live reservations as limit %s allows", account, limit)
	case quota.DeniedQuota:
		said = fmt.Sprintf("quota %s of account %s is used up", limit, account)
	case quota.DeniedBudget:
		said = fmt.Sprintf("budget %s of account %s is used up", limit, account)
	case quota.DeniedCredits:
		said = fmt.Sprintf("account %s has not enough credits", account)
	}
	if wait := d.GetRetryAfter().AsDuration(); wait > 0 {
		said += fmt.Sprintf("; try again in %v", wait.Round(time.Millisecond))
	}
	return said
}

func toAPIWarnings(ws []quota.Warning) []*purserv1.Warning {
	if len(ws) == 0 {
		return nil
	}
	out := make([]*purserv1.Warning, len(ws))
	for i := range ws {
		w := &ws[i]
		out[i] = &purserv1.Warning{
			Reason: purserv1.WarningReason_WARNING_REASON_NEAR_CAP,
			Level:  toAPILevel(&w.Level),
			Unit:   w.Level.Unit,
			Cap:    w.Cap,
			Taken:  w.Used,
		}
		if w.Used > w.Cap {
			out[i].Reason = purserv1.WarningReason_WARNING_REASON_OVER_CAP
		}
	}
	return out
}

func toAPIRemaining(rs []quota.Remaining) []*purserv1.Remaining {
	if len(rs) == 0 {
		return nil
	}
	out := make([]*purserv1.Remaining, len(rs))
	for i := range rs {
		r := &rs[i]
		out[i] = &purserv1.Remaining{Level: toAPILevel(&r.Level), Unit: r.Level.Unit, Amount: max(r.Amount, 0)}
	}
	return out
}
