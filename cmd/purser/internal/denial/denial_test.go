package denial

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func TestWrite(t *testing.T) {
	var b strings.Builder
	Write(&b, false, &purserv1.Denial{
		Reason: purserv1.DenialReason_DENIAL_REASON_BUDGET, Kind: purserv1.DenialKind_DENIAL_KIND_FIRM, Feature: "chat",
		Level:     &purserv1.Level{Kind: purserv1.LevelKind_LEVEL_KIND_BUDGET, Account: "acme", Limit: "daily", LabelKey: "team", LabelValue: "x"},
		Shortfall: 1_250_000, RetryAfter: durationpb.New(90 * time.Minute), Message: "used up",
		Affordable: []*purserv1.MeterQuantity{{Meter: "output_tokens", Quantity: 812}},
	})
	want := `denied: used up (BUDGET)
  feature      chat
  level        budget daily of acme, for team=x
  short by     1.25 credits
  affordable   output_tokens=812 would be allowed
  try again    in 1h30m0s, when its next window starts
`
	if b.String() != want {
		t.Errorf("denial:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestLevel(t *testing.T) {
	for want, l := range map[string]*purserv1.Level{
		"":                {},
		"account a":       {Account: "a"},
		"the wallet of a": {Kind: purserv1.LevelKind_LEVEL_KIND_WALLET, Account: "a"},
		"quota q of a":    {Kind: purserv1.LevelKind_LEVEL_KIND_QUOTA, Account: "a", Limit: "q"},
	} {
		if got := Level(l); got != want {
			t.Errorf("%v is %q, want %q", l, got, want)
		}
	}
}

func TestAgain(t *testing.T) {
	soon := durationpb.New(250 * time.Millisecond)
	for _, c := range []struct {
		d    *purserv1.Denial
		want string
	}{
		{&purserv1.Denial{}, "nothing is known to change by itself"},
		{&purserv1.Denial{Kind: purserv1.DenialKind_DENIAL_KIND_TRANSIENT, RetryAfter: soon}, "in 250ms: what is missing is in use"},
		{&purserv1.Denial{Kind: purserv1.DenialKind_DENIAL_KIND_FIRM, RetryAfter: soon}, "in 250ms"},
	} {
		if got := again(c.d); !strings.Contains(got, c.want) {
			t.Errorf("%v: %q, want %q in it", c.d, got, c.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	var b strings.Builder
	WriteWarnings(&b, false, []*purserv1.Warning{
		{Reason: purserv1.WarningReason_WARNING_REASON_OVER_CAP, Unit: "tokens", Cap: 10, Taken: 11,
			Level: &purserv1.Level{Kind: purserv1.LevelKind_LEVEL_KIND_BUDGET, Account: "a", Limit: "b"}}})
	if want := "warning: budget b of a is over its cap: 11 of 10 tokens\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
