package purserv1_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// A rule that does not compile is found by protovalidate only when the message is first used.
func TestRulesOfEveryMessageCompile(t *testing.T) {
	var messages int
	protoregistry.GlobalTypes.RangeMessages(func(mt protoreflect.MessageType) bool {
		if mt.Descriptor().ParentFile().Package() != "purser.v1" || mt.Descriptor().IsMapEntry() {
			return true
		}
		messages++
		if _, err := protovalidate.New(protovalidate.WithMessageDescriptors(mt.Descriptor()),
			protovalidate.WithDisableLazy()); err != nil {
			t.Errorf("%s: %v", mt.Descriptor().FullName(), err)
		}
		return true
	})
	if messages < 100 {
		t.Fatalf("only %d messages of purser.v1 are registered", messages)
	}
}

func reserve(change func(*purserv1.CheckAndReserveRequest)) *purserv1.CheckAndReserveRequest {
	r := &purserv1.CheckAndReserveRequest{
		Account:    "acme",
		Candidates: []string{"chat.gpt-large", "chat.gpt-small"},
		Estimates:  []*purserv1.Estimate{{Meter: "output_tokens", Quantity: 1000, MinQuantity: proto.Int64(100)}},
		Ttl:        durationpb.New(30e9),
		Labels:     map[string]string{"team": "search", "user": "zoë"},
	}
	if change != nil {
		change(r)
	}
	return r
}

func numbered(n int) map[string]string {
	m := map[string]string{}
	for i := range n {
		m[fmt.Sprintf("k%02d", i)] = "v"
	}
	return m
}

func TestRules(t *testing.T) {
	type request = purserv1.CheckAndReserveRequest
	tests := []struct {
		name string
		msg  proto.Message
		rule string // id of the rule broken; "" = valid
	}{
		{"reserve", reserve(nil), ""},
		{"no account", reserve(func(r *request) { r.Account = "" }), "string.pattern"},
		{"account with a line end", reserve(func(r *request) { r.Account = "acme\n" }), "string.pattern"},
		{"long key", reserve(func(r *request) { r.IdempotencyKey = strings.Repeat("é", 65) }), "string.max_bytes"},
		{"longest key", reserve(func(r *request) { r.IdempotencyKey = strings.Repeat("é", 64) }), ""},
		{"no candidate", reserve(func(r *request) { r.Candidates = nil }), "repeated.min_items"},
		{"same candidate twice", reserve(func(r *request) { r.Candidates[1] = r.Candidates[0] }), "repeated.unique"},
		{"negative", reserve(func(r *request) { r.Estimates[0].Quantity = -1; r.Estimates[0].MinQuantity = nil }), "int64.gte_lte"},
		{"2^53", reserve(func(r *request) { r.Estimates[0].Quantity = 1 << 53 }), ""},
		{"2^53+1", reserve(func(r *request) { r.Estimates[0].Quantity = 1<<53 + 1 }), "int64.gte_lte"},
		{"minimum above", reserve(func(r *request) { r.Estimates[0].MinQuantity = proto.Int64(1001) }), "estimate.min_quantity"},
		{"meter twice", reserve(func(r *request) { r.Estimates = append(r.Estimates, r.Estimates[0]) }), "estimates.meter_unique"},
		{"no ttl", reserve(func(r *request) { r.Ttl = nil }), ""},
		{"short ttl", reserve(func(r *request) { r.Ttl = durationpb.New(1e9 - 1) }), "duration.gte_lte"},
		{"long ttl", reserve(func(r *request) { r.Ttl = durationpb.New(60e9 + 1) }), "duration.gte_lte"},
		{"16 labels", reserve(func(r *request) { r.Labels = numbered(16) }), ""},
		{"17 labels", reserve(func(r *request) { r.Labels = numbered(17) }), "map.max_pairs"},
		{"label key", reserve(func(r *request) { r.Labels = map[string]string{"Team": "a"} }), "string.pattern"},
		{"control character", reserve(func(r *request) { r.Labels = map[string]string{"team": "a\u0085b"} }), "string.pattern"},
		{"512 bytes of labels", reserve(func(r *request) {
			v := strings.Repeat("v", 127)
			r.Labels = map[string]string{"a": v, "b": v, "c": v, "d": v}
		}), ""},
		{"513 bytes of labels", reserve(func(r *request) {
			v := strings.Repeat("v", 127)
			r.Labels = map[string]string{"a": v, "b": v, "c": v, "d": v + "v"}
		}), "labels.total_bytes"},
		{"unknown outcome", &purserv1.CommitRequest{Token: []byte{1}, Outcome: 9}, "enum.defined_only"},
		{"no token", &purserv1.CommitRequest{}, "bytes.min_len"},
		{"grant of nothing", &purserv1.CreateGrantRequest{Account: "acme", Kind: purserv1.GrantKind_GRANT_KIND_PLAN}, "int64.gte_lte"},
		{"grant", &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 1, Kind: purserv1.GrantKind_GRANT_KIND_PLAN}, ""},
		{"grant without kind", &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 1}, "enum.not_in"},
		{"grant that ends before it starts", &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 1,
			Kind:          purserv1.GrantKind_GRANT_KIND_PLAN,
			EffectiveTime: &timestamppb.Timestamp{Seconds: 2}, ExpireTime: &timestamppb.Timestamp{Seconds: 1}}, "grant.expire_time"},
		{"grant past what unix nanoseconds hold", &purserv1.CreateGrantRequest{Account: "acme", AmountMicros: 1,
			Kind: purserv1.GrantKind_GRANT_KIND_PLAN, ExpireTime: &timestamppb.Timestamp{Seconds: 1e10}}, "timestamp.gte_lt"},
		{"boolean feature with meters", &purserv1.CreateFeatureRequest{Id: "sso",
			Kind: purserv1.FeatureKind_FEATURE_KIND_BOOLEAN, Meters: []string{"images"}}, "feature.meters_kind"},
		{"update of nothing", &purserv1.UpdateAccountRequest{Id: "acme", UpdateMask: &fieldmaskpb.FieldMask{}}, "update_mask.paths"},
		{"update of what cannot change", &purserv1.UpdateAccountRequest{Id: "acme",
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"parent"}}}, "field_mask.in"},
		{"price twice", &purserv1.PublishRateCardRequest{Id: "standard", Prices: []*purserv1.Price{
			{Feature: "chat", Meter: "images", Per: 1}, {Feature: "chat", Meter: "images", Per: 2}}}, "prices.unique"},
		{"price per nothing", &purserv1.PublishRateCardRequest{Id: "standard", Prices: []*purserv1.Price{
			{Feature: "chat", Meter: "images"}}}, "int64.gte_lte"},
		{"operation without call", &purserv1.SessionRequest{Operations: []*purserv1.Operation{{Id: 1}}}, "required"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := brokenRule(t, tt.msg); got != tt.rule {
				t.Errorf("broken rule %q, want %q", got, tt.rule)
			}
		})
	}
}

func brokenRule(t *testing.T, msg proto.Message) string {
	t.Helper()
	err := protovalidate.Validate(msg)
	if err == nil {
		return ""
	}
	invalid, ok := err.(*protovalidate.ValidationError)
	if !ok {
		t.Fatalf("validate: %v", err)
	}
	return invalid.Violations[0].Proto.GetRuleId()
}

var (
	enumValue  = regexp.MustCompile(`^  ([A-Z_]+) = \d+;$`)
	sampleCode = regexp.MustCompile(`^Sample, with code [A-Z_]+:$`)
)

// comments maps each value of an enum to its comment lines.
func comments(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	values, pending := map[string][]string{}, []string(nil)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if c, ok := strings.CutPrefix(line, "  //"); ok {
			pending = append(pending, strings.TrimPrefix(c, " "))
			continue
		}
		if m := enumValue.FindStringSubmatch(line); m != nil {
			values[m[1]] = pending
		}
		pending = nil
	}
	return values
}

// sample joins the indented lines of a comment.
func sample(lines []string) string {
	var b strings.Builder
	for _, line := range lines {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			b.WriteString(code)
		}
	}
	return b.String()
}

func TestEveryErrorReasonHasASample(t *testing.T) {
	docs := comments(t, "error_reason.proto")
	for number, name := range purserv1.ErrorReason_name {
		if number == 0 {
			continue
		}
		var info struct {
			Reason, Domain string
			Metadata       map[string]string
		}
		if err := json.Unmarshal([]byte(sample(docs[name])), &info); err != nil {
			t.Errorf("%s: sample: %v", name, err)
			continue
		}
		want := strings.TrimPrefix(name, "ERROR_REASON_")
		if info.Reason != want || info.Domain != "purser" || len(want) > 63 {
			t.Errorf("%s: sample says %q of %q", name, info.Reason, info.Domain)
		}
		if !hasCode(docs[name]) {
			t.Errorf("%s: the sample names no code", name)
		}
	}
}

func hasCode(lines []string) bool {
	for _, line := range lines {
		if sampleCode.MatchString(line) {
			return true
		}
	}
	return false
}

func TestEveryDenialReasonHasASample(t *testing.T) {
	docs := comments(t, "denial.proto")
	for number, name := range purserv1.DenialReason_name {
		if number == 0 {
			continue
		}
		var denial purserv1.Denial
		if err := protojson.Unmarshal([]byte(sample(docs[name])), &denial); err != nil {
			t.Errorf("%s: sample: %v", name, err)
			continue
		}
		if denial.Reason.String() != name {
			t.Errorf("%s: sample says %s", name, denial.Reason)
		}
		if denial.Kind == purserv1.DenialKind_DENIAL_KIND_TRANSIENT && denial.RetryAfter == nil {
			t.Errorf("%s: a TRANSIENT denial has no retry_after (R51)", name)
		}
	}
}
