package apitest

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

const credit = int64(1_000_000)

// shop sets up, without writing it down, what most sequences sell: a large chat model at 1
// credit per 1000 input tokens and 3 per 1000 output tokens, a small one at a tenth, one with
// two requests for ever, one that has no price, and one that the plan does not have.
func (w *world) shop() {
	w.t.Helper()
	for _, id := range []string{"large", "small", "counted", "unpriced", "forbidden"} {
		must(w, asAdmin, w.catalog.CreateFeature, metered(id))
	}
	must(w, asAdmin, w.catalog.PublishRateCard, card(1))
	must(w, asAdmin, w.catalog.PublishPlanVersion, plan(2))
}

func metered(id string) *purserv1.CreateFeatureRequest {
	return &purserv1.CreateFeatureRequest{Id: id, Kind: purserv1.FeatureKind_FEATURE_KIND_METERED,
		Meters: []string{"input_tokens", "output_tokens"}}
}

// card is the rate card with all prices times factor.
func card(factor int64) *purserv1.PublishRateCardRequest {
	r := &purserv1.PublishRateCardRequest{Id: "standard"}
	for _, p := range []struct {
		feature   string
		input     int64
		perOutput int64
	}{{"large", credit, 3 * credit}, {"small", credit / 10, 3 * credit / 10}, {"counted", 0, 0}} {
		r.Prices = append(r.Prices,
			&purserv1.Price{Feature: p.feature, Meter: "input_tokens", PriceMicros: p.input * factor, Per: 1000},
			&purserv1.Price{Feature: p.feature, Meter: "output_tokens", PriceMicros: p.perOutput * factor, Per: 1000})
	}
	return r
}

// plan is a version of the plan, with requests of counted for ever.
func plan(requests int64) *purserv1.PublishPlanVersionRequest {
	return &purserv1.PublishPlanVersionRequest{Plan: "pro", RateCard: "standard", Fallback: []string{"large", "small"},
		Entitlements: []*purserv1.Entitlement{{Feature: "large"}, {Feature: "small"}, {Feature: "unpriced"},
			{Feature: "counted", Quotas: []*purserv1.Quota{{Id: "trial", Meter: "requests", Limit: requests,
				Window: purserv1.Window_WINDOW_LIFETIME}}}}}
}

// account makes an account on the plan, with credits if it pays itself.
func (w *world) account(id, parent string, micros int64) {
	w.t.Helper()
	must(w, asAdmin, w.accounts.CreateAccount, &purserv1.CreateAccountRequest{Id: id, Parent: parent})
	must(w, asAdmin, w.accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: id, Plan: "pro"})
	if micros > 0 {
		must(w, asAdmin, w.accounts.CreateGrant, grant(id, "first", micros))
	}
}

func grant(account, id string, micros int64) *purserv1.CreateGrantRequest {
	return &purserv1.CreateGrantRequest{Account: account, Grant: id, AmountMicros: micros, Kind: purserv1.GrantKind_GRANT_KIND_PURCHASED,
		EffectiveTime: &timestamppb.Timestamp{Seconds: 1_700_000_000}}
}

func budget(account, id string, limit int64) *purserv1.PutBudgetRequest {
	return &purserv1.PutBudgetRequest{Account: account, Id: id, Cap: limit,
		Window: purserv1.Window_WINDOW_LIFETIME, Enforcement: purserv1.Enforcement_ENFORCEMENT_HARD}
}

// work asks for 1000 input tokens and out output tokens of feature: all of them.
func work(account, feature string, out int64) *purserv1.CheckAndReserveRequest {
	return &purserv1.CheckAndReserveRequest{Account: account, Candidates: []string{feature}, Estimates: []*purserv1.Estimate{
		{Meter: "input_tokens", Quantity: 1000}, {Meter: "output_tokens", Quantity: out}}}
}

// atLeast makes the last meter flexible.
func atLeast(r *purserv1.CheckAndReserveRequest, least int64) *purserv1.CheckAndReserveRequest {
	r.Estimates[len(r.Estimates)-1].MinQuantity = proto.Int64(least)
	return r
}

func labelled(r *purserv1.CheckAndReserveRequest, key, value string) *purserv1.CheckAndReserveRequest {
	r.Labels = map[string]string{key: value}
	return r
}

func holdFor(r *purserv1.CheckAndReserveRequest, ttl time.Duration) *purserv1.CheckAndReserveRequest {
	r.Ttl = durationpb.New(ttl)
	return r
}

// used reports usage for a token.
func used(token []byte, in, out int64) *purserv1.CommitRequest {
	return &purserv1.CommitRequest{Token: token, Usage: []*purserv1.MeterQuantity{
		{Meter: "input_tokens", Quantity: in}, {Meter: "output_tokens", Quantity: out}}}
}

// reserve reserves, writes it down, and returns the token; it fails the test on a denial.
func (c *conversation) reserve(r *purserv1.CheckAndReserveRequest) []byte {
	c.t.Helper()
	token := call(c, asGate, c.authority.CheckAndReserve, r).GetReservation().GetToken()
	if len(token) == 0 {
		c.t.Fatalf("no reservation:\n%s", c.lines[len(c.lines)-1])
	}
	return token
}

// commit commits and writes it down.
func (c *conversation) commit(token []byte, in, out int64) {
	c.t.Helper()
	call(c, asGate, c.authority.Commit, used(token, in, out))
}
