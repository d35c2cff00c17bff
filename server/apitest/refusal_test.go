package apitest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// refusal is a call that must fail, and how.
type refusal struct {
	name   string
	call   func(w *world) error
	code   codes.Code
	reason string
	field  string // the first that BadRequest names; "" = none has to be named
	says   string // what the message tells the caller
}

// check makes the call and compares the error, which must be definite: all of these are
// refused before anything is done.
func (r *refusal) check(t *testing.T, w *world) {
	t.Helper()
	err := r.call(w)
	if err == nil {
		t.Fatalf("%s: it was not refused", r.name)
	}
	info, _, bad := details(err)
	st := status.Convert(err)
	if st.Code() != r.code || info.GetReason() != r.reason || info.GetDomain() != "purser" {
		t.Errorf("%s: %s %s; want %s %s: %v", r.name, st.Code(), info.GetReason(), r.code, r.reason, err)
	}
	if info.GetMetadata()["not_applied"] != "true" {
		t.Errorf("%s: the error does not say that nothing was done: %v", r.name, info)
	}
	if !strings.Contains(st.Message(), r.says) {
		t.Errorf("%s: message %q does not say %q", r.name, st.Message(), r.says)
	}
	if v := bad.GetFieldViolations(); r.field != "" && (len(v) == 0 || v[0].GetField() != r.field) {
		t.Errorf("%s: fields %v; want %s", r.name, v, r.field)
	}
}

// on makes a refusal's call of a method of a generated client.
func on[Q, R any](who string, m func(*world) func(context.Context, Q) (R, error), req Q) func(*world) error {
	return func(w *world) error {
		_, err := m(w)(w.as(who), req)
		return err
	}
}

func reserving(w *world) func(context.Context, *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	return func(ctx context.Context, r *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
		return w.authority.CheckAndReserve(ctx, r)
	}
}

func granting(w *world) func(context.Context, *purserv1.CreateGrantRequest) (*purserv1.CreateGrantResponse, error) {
	return func(ctx context.Context, r *purserv1.CreateGrantRequest) (*purserv1.CreateGrantResponse, error) {
		return w.accounts.CreateGrant(ctx, r)
	}
}

// asked is a reservation with something wrong in it.
func asked(change func(*purserv1.CheckAndReserveRequest)) func(*world) error {
	r := atLeast(work("acme", "large", 1000), 10)
	change(r)
	return on(asGate, reserving, r)
}

// manyLabels has n labels with values of size bytes.
func manyLabels(n, size int) map[string]string {
	m := make(map[string]string, n)
	for i := range n {
		m[fmt.Sprintf("k%02d", i)] = strings.Repeat("v", size)
	}
	return m
}

func badReservations() []refusal {
	type R = *purserv1.CheckAndReserveRequest
	invalid, wrong, amount := codes.InvalidArgument, "REQUEST_INVALID", "AMOUNT_INVALID"
	long := strings.Repeat("x", 200)
	return []refusal{
		{"negative quantity", asked(func(r R) { r.Estimates[0].Quantity = -1 }), invalid, amount, "estimates[0].quantity", "must be 0 to 9007199254740992"},
		{"quantity beyond 2^53", asked(func(r R) { r.Estimates[0].Quantity = 1<<53 + 1 }), invalid, amount, "estimates[0].quantity", "must be 0 to"},
		{"quantity of 2^63-1", asked(func(r R) { r.Estimates[0].Quantity = math.MaxInt64 }), invalid, amount, "estimates[0].quantity", "must be 0 to"},
		{"quantity of -2^63", asked(func(r R) { r.Estimates[0].Quantity = math.MinInt64 }), invalid, amount, "estimates[0].quantity", "must be 0 to"},
		{"minimum above the quantity", asked(func(r R) { *r.Estimates[1].MinQuantity = 1001 }), invalid, amount, "estimates[1].min_quantity", "is above the quantity"},
		{"negative minimum", asked(func(r R) { *r.Estimates[1].MinQuantity = -1 }), invalid, amount, "estimates[1].min_quantity", "must be 0 to"},
		{"no account", asked(func(r R) { r.Account = "" }), invalid, wrong, "account", "name the account"},
		{"malformed account", asked(func(r R) { r.Account = "acme/search" }), invalid, wrong, "account", "1 to 128 of"},
		{"account too long", asked(func(r R) { r.Account = long }), invalid, wrong, "account", "1 to 128 of"},
		{"no candidate", asked(func(r R) { r.Candidates = nil }), invalid, wrong, "candidates", "must be 1 to 8"},
		{"nine candidates", asked(func(r R) { r.Candidates = strings.Split("a,b,c,d,e,f,g,h,i", ",") }), invalid, wrong, "candidates", "must be 1 to 8"},
		{"a candidate twice", asked(func(r R) { r.Candidates = []string{"large", "small", "large"} }), invalid, wrong, "candidates[2]", "listed twice"},
		{"malformed candidate", asked(func(r R) { r.Candidates = []string{"GPT 4"} }), invalid, wrong, "candidates[0]", "1 to 63 of"},
		{"unknown meter", asked(func(r R) { r.Estimates[1].Meter = "output_tokns" }), invalid, "UNIT_UNKNOWN", "", `"output_tokns"`},
		{"a meter twice", asked(func(r R) { r.Estimates[1].Meter = "input_tokens" }), invalid, wrong, "estimates[1].meter", "listed twice"},
		{"malformed meter", asked(func(r R) { r.Estimates[1].Meter = "" }), invalid, wrong, "estimates[1].meter", "1 to 63 of"},
		{"too many meters", asked(func(r R) { r.Estimates = make([]*purserv1.Estimate, 17) }), invalid, wrong, "estimates", "at most 16"},
		{"key too long", asked(func(r R) { r.IdempotencyKey = long }), invalid, wrong, "idempotency_key", "at most 128"},
		{"too many labels", asked(func(r R) { r.Labels = manyLabels(17, 1) }), invalid, wrong, "labels", "at most 16"},
		{"labels too long together", asked(func(r R) { r.Labels = manyLabels(16, 100) }), invalid, wrong, "labels", "512"},
		{"label value too long", asked(func(r R) { r.Labels = manyLabels(1, 129) }), invalid, wrong, "labels", "128"},
		{"bad label key", asked(func(r R) { r.Labels = map[string]string{"Team": "x"} }), invalid, wrong, "labels", "Team"},
		{"control character in a label", asked(func(r R) { r.Labels = map[string]string{"team": "a\nb"} }), invalid, wrong, "labels", "control"},
		{"ttl too short", asked(func(r R) { r.Ttl = durationpb.New(time.Second - 1) }), invalid, "TTL_OUT_OF_RANGE", "ttl", "must be 1s to 1m0s"},
		{"ttl of nothing", asked(func(r R) { r.Ttl = &durationpb.Duration{} }), invalid, "TTL_OUT_OF_RANGE", "ttl", "must be 1s to 1m0s"},
		{"negative ttl", asked(func(r R) { r.Ttl = durationpb.New(-time.Hour) }), invalid, "TTL_OUT_OF_RANGE", "ttl", "must be 1s to 1m0s"},
		{"ttl too long", asked(func(r R) { r.Ttl = durationpb.New(time.Minute + 1) }), invalid, "TTL_OUT_OF_RANGE", "ttl", "must be 1s to 1m0s"},
		{"absurd ttl", asked(func(r R) { r.Ttl = &durationpb.Duration{Seconds: math.MaxInt64, Nanos: -5} }), invalid, "TTL_OUT_OF_RANGE", "ttl", "must be 1s to 1m0s"},
		{"message over its bound", asked(func(r R) { r.IdempotencyKey = strings.Repeat("x", 64<<10) }), invalid, wrong, "", "takes at most 65536"},
	}
}

func badSettlements() []refusal {
	invalid, denied, wrong, amount := codes.InvalidArgument, codes.PermissionDenied, "REQUEST_INVALID", "AMOUNT_INVALID"
	// Each gets a fresh reservation of its own, so that nothing but what is named is wrong.
	commit := func(change func(*purserv1.CommitRequest)) func(*world) error {
		return func(w *world) error {
			token := must(w, asGate, w.authority.CheckAndReserve, work("acme", "large", 10)).GetReservation().GetToken()
			req := used(token, 1000, 10)
			change(req)
			_, err := w.authority.Commit(w.as(asGate), req)
			must(w, asGate, w.authority.Release, &purserv1.ReleaseRequest{Token: token})
			return err
		}
	}
	type C = *purserv1.CommitRequest
	return []refusal{
		{"negative usage", commit(func(r C) { r.Usage[1].Quantity = -5 }), invalid, amount, "usage[1].quantity", "must be 0 to"},
		{"usage beyond 2^53", commit(func(r C) { r.Usage[1].Quantity = 1<<53 + 1 }), invalid, amount, "usage[1].quantity", "must be 0 to"},
		{"usage that costs more than an amount can be", commit(func(r C) { r.Usage[1].Quantity = 1 << 53 }), invalid, amount, "", "costs more"},
		{"usage that costs more than 2^53", commit(func(r C) { r.Usage[1].Quantity = 4_000_000_000_000 }), invalid, amount, "", "costs more"},
		{"usage of an unknown meter", commit(func(r C) { r.Usage[1].Meter = "images" }), invalid, "UNIT_UNKNOWN", "", `"images"`},
		{"usage of a meter twice", commit(func(r C) { r.Usage[1].Meter = "input_tokens" }), invalid, wrong, "usage[1].meter", "listed twice"},
		{"usage of too many meters", commit(func(r C) { r.Usage = make([]*purserv1.MeterQuantity, 17) }), invalid, wrong, "usage", "at most 16"},
		{"unknown outcome", commit(func(r C) { r.Outcome = 77 }), invalid, wrong, "outcome", "no value of the enum"},
		{"too many labels", commit(func(r C) { r.Labels = manyLabels(17, 1) }), invalid, wrong, "labels", "at most 16"},
		{"no token", commit(func(r C) { r.Token = nil }), invalid, wrong, "token", "send the token"},
		{"token too long", commit(func(r C) { r.Token = make([]byte, 2049) }), invalid, wrong, "token", "at most 2048"},
		{"malformed token", commit(func(r C) { r.Token = []byte("let me in") }), denied, "TOKEN_INVALID", "", "exactly as CheckAndReserve returned it"},
		{"empty token", commit(func(r C) { r.Token = make([]byte, 200) }), denied, "TOKEN_INVALID", "", "exactly as CheckAndReserve returned it"},
		{"commit message over its bound", commit(func(r C) { r.Labels = manyLabels(1, 64<<10) }), invalid, wrong, "", "takes at most 65536"},
	}
}

func badCredentials() []refusal {
	denied := codes.Unauthenticated
	with := func(pairs ...string) func(*world) error {
		return func(w *world) error {
			ctx := metadata.AppendToOutgoingContext(w.t.Context(), pairs...)
			_, err := w.authority.CheckAndReserve(ctx, work("acme", "large", 10))
			return err
		}
	}
	altered := func(change func(secret string) string) func(*world) error {
		return func(w *world) error {
			_, err := w.authority.CheckAndReserve(withKey(w.t.Context(), change(w.secrets[asGate])), work("acme", "large", 10))
			return err
		}
	}
	invalid := "malformed, unknown, expired or revoked"
	return []refusal{
		{"no key", with(), denied, "CREDENTIALS_MISSING", "", "authorization: Bearer"},
		{"empty key", with("authorization", ""), denied, "CREDENTIALS_INVALID", "", invalid},
		{"another scheme", with("authorization", "Basic cGs6cGs="), denied, "CREDENTIALS_INVALID", "", invalid},
		{"malformed key", with("authorization", "Bearer let-me-in"), denied, "CREDENTIALS_INVALID", "", invalid},
		{"two keys", with("authorization", "Bearer a", "authorization", "Bearer b"), denied, "CREDENTIALS_INVALID", "", invalid},
		{"wrong secret", altered(func(s string) string { return s[:len(s)-3] + "xyz" }), denied, "CREDENTIALS_INVALID", "", invalid},
		{"unknown id", altered(func(s string) string { return "pk_" + strings.Repeat("0", 16) + s[19:] }), denied, "CREDENTIALS_INVALID", "", invalid},
		{"secret cut short", altered(func(s string) string { return s[:len(s)-1] }), denied, "CREDENTIALS_INVALID", "", invalid},
		{"revoked key", func(w *world) error {
			made := must(w, asAdmin, w.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "gate"})
			w.secrets["short-lived"] = made.GetSecret()
			must(w, "short-lived", w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "acme"})
			must(w, asAdmin, w.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: made.GetKey().GetId()})
			_, err := w.authority.CheckAndReserve(w.as("short-lived"), work("acme", "large", 10))
			return err
		}, denied, "CREDENTIALS_INVALID", "", invalid},
		{"expired key", func(w *world) error {
			w.secrets["an-hour"] = w.newKey(authz.Key{Role: authz.RoleGate, Principal: "gate", ExpireTime: w.clock.Now().Add(time.Hour).UnixNano()})
			must(w, "an-hour", w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "acme"})
			w.clock.ahead.Add(int64(time.Hour))
			defer w.clock.ahead.Add(-int64(time.Hour))
			_, err := w.authority.CheckAndReserve(w.as("an-hour"), work("acme", "large", 10))
			return err
		}, denied, "CREDENTIALS_INVALID", "", invalid},
	}
}

func badAdminCalls() []refusal {
	invalid, amount := codes.InvalidArgument, "AMOUNT_INVALID"
	create := func(micros int64) func(*world) error { return on(asAdmin, granting, grant("acme", "g", micros)) }
	return []refusal{
		{"grant of nothing", create(0), invalid, amount, "amount_micros", "greater than or equal to 1"},
		{"negative grant", create(-1), invalid, amount, "amount_micros", "greater than or equal to 1"},
		{"grant beyond 2^53", create(1<<53 + 1), invalid, amount, "amount_micros", "less than or equal to 9007199254740992"},
		{"grant to an unknown account", on(asAdmin, granting, grant("nowhere", "g", 1)), codes.NotFound, "ACCOUNT_NOT_FOUND", "", `"nowhere"`},
		{"balance of an unknown account", func(w *world) error {
			_, err := w.authority.GetBalance(w.as(asGate), &purserv1.GetBalanceRequest{Account: "nowhere"})
			return err
		}, codes.NotFound, "ACCOUNT_NOT_FOUND", "", `"nowhere"`},
		{"price of a unit of nothing", func(w *world) error {
			req := card(1)
			req.Prices[0].Per = 0
			_, err := w.catalog.PublishRateCard(w.as(asAdmin), req)
			return err
		}, invalid, amount, "prices[0].per", "greater than or equal to 1"},
		{"negative price", func(w *world) error {
			req := card(1)
			req.Prices[0].PriceMicros = -1
			_, err := w.catalog.PublishRateCard(w.as(asAdmin), req)
			return err
		}, invalid, amount, "prices[0].price_micros", "greater than or equal to 0"},
		{"a price twice", func(w *world) error {
			req := card(1)
			req.Prices[1] = req.Prices[0]
			_, err := w.catalog.PublishRateCard(w.as(asAdmin), req)
			return err
		}, invalid, "REQUEST_INVALID", "prices", "once"},
	}
}

// TestRefusals: each of these says what is wrong and what to do, and leaves the books as
// they were.
func TestRefusals(t *testing.T) {
	for _, b := range append(backends(t), overJSON()) {
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t, b)
			w.shop()
			w.account("acme", "", 10*credit)
			for _, group := range [][]refusal{badReservations(), badSettlements(), badCredentials(), badAdminCalls()} {
				for _, r := range group {
					if b.json && r.name == "absurd ttl" {
						continue // JSON has no word for it
					}
					r.check(t, w)
				}
			}
			w.untouched("acme", 10*credit)
		})
	}
}

// untouched wants an account that has all it was granted, with nothing held or charged.
func (w *world) untouched(account string, micros int64) {
	w.t.Helper()
	w.audited()
	got := must(w, asGate, w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: account})
	if got.GetTotalMicros() != micros || got.GetHeldMicros() != 0 || got.GetDebtMicros() != 0 {
		w.t.Errorf("balance of %s: %v; want %d, untouched", account, got, micros)
	}
	if events := must(w, asViewer, w.usage.ListUsageEvents, &purserv1.ListUsageEventsRequest{Account: account}).GetUsageEvents(); len(events) != 0 {
		w.t.Errorf("usage events %v; want none", events)
	}
}

// TestMessagesOverTheTransportsBound are refused by gRPC itself, before anybody has read them.
func TestMessagesOverTheTransportsBound(t *testing.T) {
	w := newWorld(t, onSQLite())
	_, err := w.accounts.SuspendAccount(w.as(asAdmin), &purserv1.SuspendAccountRequest{Account: "acme", Reason: strings.Repeat("x", 4<<20)})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("4 MiB and some: %v", err)
	}
	// A list of headers over its bound costs the call, not the server.
	_, err = w.accounts.ListAccounts(metadata.AppendToOutgoingContext(w.as(asAdmin), "x-long", strings.Repeat("x", 64<<10)), &purserv1.ListAccountsRequest{})
	if err == nil {
		t.Error("64 KiB of headers were taken")
	}
	must(w, asAdmin, w.accounts.ListAccounts, &purserv1.ListAccountsRequest{})
}

// TestEdgesAreAllowed: what stands on a bound is not refused.
func TestEdgesAreAllowed(t *testing.T) {
	w := newWorld(t, onSQLite())
	w.shop()
	w.account("acme", "", 1<<53)
	r := work("acme", "counted", 1<<53)
	r.Ttl, r.Labels, r.IdempotencyKey = durationpb.New(time.Minute), manyLabels(16, 29), strings.Repeat("k", 128)
	token := must(w, asGate, w.authority.CheckAndReserve, r).GetReservation().GetToken()
	req := used(token, 1<<53, 0)
	req.Labels = maps.Clone(r.Labels)
	if resp := must(w, asGate, w.authority.Commit, req); resp.GetChargedMicros() != 0 {
		t.Errorf("commit %v", resp)
	}
	hold := must(w, asGate, w.authority.CheckAndReserve, holdFor(&purserv1.CheckAndReserveRequest{Account: "acme",
		Candidates: []string{"large"}, Estimates: []*purserv1.Estimate{{Meter: "output_tokens", Quantity: 3_000_000_000_000}}}, time.Second))
	if hold.GetReservation().GetHeldMicros() != 9_000_000_000_000_000 {
		t.Errorf("reservation %v", hold)
	}
	must(w, asGate, w.authority.Release, &purserv1.ReleaseRequest{Token: hold.GetReservation().GetToken()})
	w.audited()
}
