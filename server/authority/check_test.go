package authority

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// The generators below make values at and around the bounds far more often than chance would.

var accountIDs = rapid.OneOf(
	rapid.SampledFrom([]string{"acme", "a", "", "-a", "a-", "A.b_c:d@e-f", ".a", "a b", "ä", "acme\n", strings.Repeat("a", 128), strings.Repeat("a", 129)}),
	rapid.String(),
)

var names = rapid.OneOf(
	rapid.SampledFrom([]string{"output_tokens", "input_tokens", "requests", "a", "0", "", "_a", "A", "a:b", "a\n", "é", strings.Repeat("n", 63), strings.Repeat("n", 64)}),
	rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,8}`),
	rapid.String(),
)

var goodNames = rapid.StringMatching(`[a-c]`)

var amounts = rapid.OneOf(
	rapid.SampledFrom([]int64{0, 1, -1, 1 << 53, 1<<53 + 1, 1<<63 - 1, -1 << 63}),
	rapid.Int64Range(0, 100),
	rapid.Int64(),
)

var ttls = rapid.Custom(func(t *rapid.T) *durationpb.Duration {
	switch rapid.IntRange(0, 3).Draw(t, "ttl") {
	case 0:
		return nil
	case 1:
		return rapid.SampledFrom([]*durationpb.Duration{
			{Seconds: 1}, {Seconds: 60}, {Nanos: 999_999_999}, {Seconds: 60, Nanos: 1}, {}, {Seconds: -1}, {Seconds: -1, Nanos: -1},
			{Seconds: 315_576_000_000}, {Seconds: -315_576_000_000},
		}).Draw(t, "bound")
	}
	return &durationpb.Duration{Seconds: rapid.Int64Range(0, 62).Draw(t, "s"), Nanos: rapid.Int32Range(0, 999_999_999).Draw(t, "ns")}
})

var labelKeys = rapid.OneOf(
	rapid.SampledFrom([]string{"team", "user", "", "Team", "1a", "a-b.c_d", "a\n", strings.Repeat("k", 63), strings.Repeat("k", 64)}),
	rapid.StringMatching(`[a-z][a-z0-9_.-]{0,20}`),
)

var labelValues = rapid.OneOf(
	rapid.SampledFrom([]string{"", "search", "a\x00", "\u0085", "日本", "a\nb", strings.Repeat("v", 128), strings.Repeat("v", 129), strings.Repeat("é", 65)}),
	rapid.StringMatching(`[ -~]{0,40}`),
	rapid.String(),
)

var labels = rapid.OneOf(
	rapid.MapOfN(labelKeys, labelValues, 0, 4),
	rapid.MapOfN(rapid.StringMatching(`[a-z]{1,3}`), rapid.StringMatching(`[a-z]{0,40}`), 0, 18),
)

var estimates = rapid.Custom(func(t *rapid.T) []*purserv1.Estimate {
	meters := rapid.SampledFrom([]*rapid.Generator[string]{names, goodNames, rapid.StringMatching(`[a-z]{6}`)}).Draw(t, "meters")
	quantities := amounts
	if rapid.Bool().Draw(t, "good") {
		quantities = rapid.Int64Range(0, 100)
	}
	out := make([]*purserv1.Estimate, rapid.SampledFrom([]int{0, 1, 2, 3, 16, 17}).Draw(t, "n"))
	for i := range out {
		out[i] = &purserv1.Estimate{Meter: meters.Draw(t, "meter"), Quantity: quantities.Draw(t, "quantity")}
		if rapid.Bool().Draw(t, "flexible") {
			out[i].MinQuantity = proto.Int64(quantities.Draw(t, "min"))
		}
	}
	return out
})

var candidates = rapid.OneOf(
	rapid.SliceOfN(rapid.StringMatching(`[a-z]{5}`), 0, 10),
	rapid.SliceOfN(goodNames, 0, 4),
	rapid.SliceOfN(names, 1, 3),
)

var outcomes = rapid.OneOf(rapid.Int32Range(-1, 6), rapid.Int32())

var usages = rapid.Custom(func(t *rapid.T) []*purserv1.MeterQuantity {
	es := estimates.Draw(t, "usage")
	out := make([]*purserv1.MeterQuantity, len(es))
	for i, e := range es {
		out[i] = &purserv1.MeterQuantity{Meter: e.GetMeter(), Quantity: e.GetQuantity()}
	}
	return out
})

var tokens = rapid.Custom(func(t *rapid.T) []byte {
	return make([]byte, rapid.SampledFrom([]int{0, 1, 200, 2048, 2049}).Draw(t, "token"))
})

// agreement counts what a run has seen, for a test whose messages are all refused, or all
// taken, shows nothing.
type agreement struct{ taken, refused int }

func (a *agreement) check(t *rapid.T, v protovalidate.Validator, m proto.Message, byHand error) {
	byRule := v.Validate(m)
	var invalid *protovalidate.ValidationError
	if byRule != nil && !errors.As(byRule, &invalid) {
		t.Fatalf("the rules do not run: %v", byRule)
	}
	if (byHand == nil) != (byRule == nil) {
		t.Fatalf("by hand: %v\nby rule: %v\nmessage: %v", byHand, byRule, m)
	}
	if byHand == nil {
		a.taken++
		return
	}
	a.refused++
	var said *grpcerr.InvalidError
	if !errors.As(byHand, &said) || len(said.Violations) == 0 || said.Violations[0].Field == "" {
		t.Fatalf("%v names no field", byHand)
	}
	for _, r := range []quota.Reason{quota.ReasonRequestInvalid, quota.ReasonAmountInvalid, quota.ReasonTTLOutOfRange} {
		if errors.Is(byHand, r) {
			return
		}
	}
	t.Fatalf("%v has another reason", byHand)
}

func (a *agreement) sawBoth(t *testing.T) {
	t.Helper()
	if a.taken == 0 || a.refused == 0 {
		t.Errorf("%d messages were taken and %d refused: the generators are too one-sided", a.taken, a.refused)
	}
}

func TestChecksAgree(t *testing.T) {
	v, err := protovalidate.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("CheckAndReserve", func(t *testing.T) {
		var a agreement
		many(t, func(t *rapid.T) {
			m := checkAndReserve(t)
			err := checkAccount("account", m.Account)
			if err == nil {
				_, err = fromAPICheckAndReserve(m.Account, m)
			}
			a.check(t, v, m, err)
		})
		a.sawBoth(t)
	})
	t.Run("Check", func(t *testing.T) {
		var a agreement
		many(t, func(t *rapid.T) {
			r := checkAndReserve(t)
			m := &purserv1.CheckRequest{Account: r.Account, Candidates: r.Candidates, Estimates: r.Estimates, Labels: r.Labels}
			err := checkAccount("account", m.Account)
			if err == nil {
				_, err = fromAPICheck(m.Account, m)
			}
			a.check(t, v, m, err)
		})
		a.sawBoth(t)
	})
	t.Run("Commit", func(t *testing.T) {
		var a agreement
		many(t, func(t *rapid.T) {
			m := &purserv1.CommitRequest{Token: []byte{1}, UsageDelivered: rapid.Bool().Draw(t, "delivered")}
			somewhere(t, func() { m.Token = tokens.Draw(t, "token") }, func() { m.Usage = usages.Draw(t, "usage") },
				func() { m.Outcome = purserv1.Outcome(outcomes.Draw(t, "outcome")) }, func() { m.Labels = labels.Draw(t, "labels") },
				func() { m.Final = new(rapid.Bool().Draw(t, "final")) })
			_, err := fromAPICommit(m)
			a.check(t, v, m, err)
		})
		a.sawBoth(t)
	})
	t.Run("Release", func(t *testing.T) {
		var a agreement
		many(t, func(t *rapid.T) {
			m := &purserv1.ReleaseRequest{Token: tokens.Draw(t, "token"), Outcome: purserv1.Outcome(outcomes.Draw(t, "outcome"))}
			_, err := fromAPIRelease(m)
			a.check(t, v, m, err)
		})
		a.sawBoth(t)
	})
	t.Run("GetBalance", func(t *testing.T) {
		var a agreement
		many(t, func(t *rapid.T) {
			m := &purserv1.GetBalanceRequest{Account: accountIDs.Draw(t, "account")}
			a.check(t, v, m, checkAccount("account", m.Account))
		})
		a.sawBoth(t)
	})
}

// checkAndReserve starts from a good message and spoils one or two places, for in a message
// that is wrong everywhere no single check would be seen.
func checkAndReserve(t *rapid.T) *purserv1.CheckAndReserveRequest {
	m := &purserv1.CheckAndReserveRequest{Account: "acme", Candidates: []string{"chat"}, Estimates: []*purserv1.Estimate{{Meter: "output_tokens", Quantity: 5}}}
	somewhere(t,
		func() { m.Account = accountIDs.Draw(t, "account") },
		func() {
			m.IdempotencyKey = strings.Repeat(rapid.SampledFrom([]string{"k", "é"}).Draw(t, "char"), rapid.SampledFrom([]int{0, 1, 64, 65, 128, 129}).Draw(t, "key"))
		},
		func() { m.Candidates = candidates.Draw(t, "candidates") },
		func() { m.Estimates = estimates.Draw(t, "estimates") },
		func() { m.Ttl = ttls.Draw(t, "ttl") },
		func() { m.Labels = labels.Draw(t, "labels") },
	)
	return m
}

// many draws several thousand messages: 100, rapid's default, would miss bounds.
func many(t *testing.T, prop func(*rapid.T)) {
	for range 50 {
		rapid.Check(t, prop)
	}
}

func somewhere(t *rapid.T, spoil ...func()) {
	for range rapid.IntRange(1, 2).Draw(t, "places") {
		spoil[rapid.IntRange(0, len(spoil)-1).Draw(t, "place")]()
	}
}

func TestRefusalsAreExact(t *testing.T) {
	long := strings.Repeat("x", 200)
	cases := []struct {
		m    *purserv1.CheckAndReserveRequest
		want string
	}{
		{&purserv1.CheckAndReserveRequest{}, "REQUEST_INVALID: candidates: there are 0, it must be 1 to 8"},
		{&purserv1.CheckAndReserveRequest{IdempotencyKey: long}, "REQUEST_INVALID: idempotency_key: it has 200 bytes, at most 128 are allowed"},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a", "B"}},
			`REQUEST_INVALID: candidates[1]: "B" is no feature id: 1 to 63 of a-z, 0-9, '.', '_', '-', the first a letter or digit`},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a", "a"}}, `REQUEST_INVALID: candidates[1]: "a" is listed twice`},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a"}, Estimates: []*purserv1.Estimate{{Meter: "m", Quantity: -5}}},
			"AMOUNT_INVALID: estimates[0].quantity: -5 is out of range: it must be 0 to 9007199254740992"},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a"}, Estimates: []*purserv1.Estimate{{Meter: "m", Quantity: 5, MinQuantity: proto.Int64(6)}}},
			"AMOUNT_INVALID: estimates[0].min_quantity: 6 is above the quantity, 5"},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a"}, Ttl: durationpb.New(61 * time.Second)},
			"TTL_OUT_OF_RANGE: ttl: 1m1s is out of range: it must be 1s to 1m0s"},
		{&purserv1.CheckAndReserveRequest{Candidates: []string{"a"}, Labels: map[string]string{"team": long}},
			`REQUEST_INVALID: labels: label "team": the value has 200 bytes, at most 128 are allowed`},
	}
	for _, c := range cases {
		_, err := fromAPICheckAndReserve("acme", c.m)
		if err == nil || err.Error() != c.want {
			t.Errorf("%v\n got %v\nwant %s", c.m, err, c.want)
		}
	}
	if err := checkAccount("account", long); err == nil || !strings.Contains(err.Error(), "(200 bytes)") || strings.Contains(err.Error(), long) {
		t.Errorf("a long id is sent back whole: %v", err)
	}
}

func TestEnumsAgree(t *testing.T) {
	for n, name := range purserv1.DenialReason_name {
		if want := strings.TrimPrefix(name, "DENIAL_REASON_"); n > 0 && quota.DenialReason(n).String() != want {
			t.Errorf("denial reason %d is %s here and %s on the wire", n, quota.DenialReason(n), want)
		}
	}
	if quota.DenialReason(len(purserv1.DenialReason_name)).String() != "" {
		t.Error("the domain has a denial reason that the contract lacks")
	}
	for n, name := range purserv1.Outcome_name {
		if want := strings.TrimPrefix(name, "OUTCOME_"); n > 0 && quota.Outcome(n).String() != want {
			t.Errorf("outcome %d is %s here and %s on the wire", n, quota.Outcome(n), want)
		}
	}
	for _, k := range []quota.SettleKind{quota.Committed, quota.Released, quota.Expired} {
		if got, want := toAPIState(k).String(), fmt.Sprintf("RESERVATION_STATE_%s", k); got != want {
			t.Errorf("%s became %s", want, got)
		}
	}
}
