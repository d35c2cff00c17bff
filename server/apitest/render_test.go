package apitest

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// lineMost is how long a line may get before a message is written on several.
const lineMost = 116

// renderer writes messages as text that is the same in every run: what is random or told by a
// clock gets a name, the same value the same name.
type renderer struct {
	names map[string]string // value -> name
	count map[string]int    // kind -> names given
}

func newRenderer() *renderer { return &renderer{names: map[string]string{}, count: map[string]int{}} }

// name is <kind N> for a value, counted in order of appearance.
func (r *renderer) name(kind, value string) string {
	if value == "" {
		return `""`
	}
	if _, ok := r.names[kind+value]; !ok {
		r.count[kind]++
		r.names[kind+value] = fmt.Sprintf("<%s %d>", kind, r.count[kind])
	}
	return r.names[kind+value]
}

// message writes the fields that are set, in the order of the contract.
func (r *renderer) message(m protoreflect.Message, indent string) (lines []string) {
	if g, ok := m.Interface().(*purserv1.GrantBalance); ok {
		// How much of a grant the node has drawn depends on the time; their sum does not.
		g = proto.Clone(g).(*purserv1.GrantBalance)
		lines = append(lines, fmt.Sprintf("%savailable_micros + escrowed_micros: %d", indent, g.AvailableMicros+g.EscrowedMicros))
		g.AvailableMicros, g.EscrowedMicros, g.Grant.AvailableMicros = 0, 0, 0
		m = g.ProtoReflect()
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			continue
		}
		v := m.Get(f)
		switch {
		case f.IsList() && f.Message() != nil:
			for j := range v.List().Len() {
				lines = append(lines, r.nested(fmt.Sprintf("%s%s[%d]: ", indent, f.Name(), j), v.List().Get(j).Message(), f, indent)...)
			}
		case f.Message() != nil && !f.IsMap():
			lines = append(lines, r.nested(fmt.Sprintf("%s%s: ", indent, f.Name()), v.Message(), f, indent)...)
		default:
			lines = append(lines, fmt.Sprintf("%s%s: %s", indent, f.Name(), r.flat(m, f, v)))
		}
	}
	return lines
}

// nested writes a message behind head, on one line if it fits.
func (r *renderer) nested(head string, m protoreflect.Message, f protoreflect.FieldDescriptor, indent string) []string {
	if text, ok := r.known(m.Interface(), f); ok {
		return []string{head + text}
	}
	inner := r.message(m, "")
	if line := head + "{" + strings.Join(inner, ", ") + "}"; len(line) <= lineMost {
		return []string{line}
	}
	return append([]string{strings.TrimSuffix(head, " ")}, r.message(m, indent+"  ")...)
}

// known writes times: those that a caller chose are whole seconds, those of a clock are not.
func (r *renderer) known(m proto.Message, f protoreflect.FieldDescriptor) (string, bool) {
	switch m := m.(type) {
	case *timestamppb.Timestamp:
		switch f.FullName() {
		case "purser.v1.Rollup.hour_time":
			return "<hour>", true
		case "purser.v1.BudgetBalance.start_time", "purser.v1.BudgetBalance.end_time":
			return "<window>", true
		}
		if m.GetNanos() != 0 {
			return "<time>", true
		}
		return m.AsTime().Format(time.RFC3339), true
	case *durationpb.Duration:
		if f.FullName() == "purser.v1.RateLimit.per" {
			return m.AsDuration().String(), true
		}
		return wait(m.AsDuration()), true
	}
	return "", false
}

// wait writes a duration; beyond a second it is the rest of some window.
func wait(d time.Duration) string {
	if d > time.Second {
		return "<wait>"
	}
	return d.String()
}

// flat writes a field that is not a message.
func (r *renderer) flat(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch {
	case f.IsMap():
		pairs := make([]string, 0, v.Map().Len())
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			pairs = append(pairs, fmt.Sprintf("%s: %q", k.String(), v.String()))
			return true
		})
		slices.Sort(pairs)
		return "{" + strings.Join(pairs, ", ") + "}"
	case f.IsList():
		items := make([]string, v.List().Len())
		for i := range items {
			items[i] = r.scalar(m, f, v.List().Get(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return r.scalar(m, f, v)
}

func (r *renderer) scalar(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.FullName() {
	case "purser.v1.BudgetBalance.taken":
		return "<drawn>"
	case "purser.v1.Key.id", "purser.v1.RevokeKeyRequest.id":
		return r.name("key", v.String())
	}
	switch f.Name() {
	case "token":
		return r.name("token", string(v.Bytes()))
	case "page_token", "next_page_token":
		return r.name("page", v.String())
	case "etag":
		return r.name("etag", v.String())
	case "secret":
		return r.name("secret", v.String())
	case "reservation_id":
		return r.name("reservation", v.String())
	}
	switch f.Kind() {
	case protoreflect.EnumKind:
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name())
		}
		return fmt.Sprint(v.Enum())
	case protoreflect.StringKind:
		return r.text(v.String())
	}
	return v.String()
}

// What messages and ids say that differs from run to run.
var (
	waits  = regexp.MustCompile(`try again in [0-9a-zµ.]+`)
	etags  = regexp.MustCompile(`its etag is [0-9]+`)
	grants = regexp.MustCompile(`^gr-[0-9a-f]{20}$`)
)

func (r *renderer) text(s string) string {
	if grants.MatchString(s) {
		return r.name("grant", s)
	}
	s = waits.ReplaceAllString(s, "try again in <wait>")
	return fmt.Sprintf("%q", etags.ReplaceAllString(s, "its etag is <etag>"))
}

// failure writes an error as it came over the wire.
func (r *renderer) failure(err error) []string {
	st := status.Convert(err)
	info, retry, bad := details(err)
	lines := []string{strings.TrimSpace("-> " + codeName(st.Code()) + " " + info.GetReason())}
	lines = append(lines, "  message: "+r.text(st.Message()))
	if len(info.GetMetadata()) > 0 {
		f := info.ProtoReflect().Descriptor().Fields().ByName("metadata")
		lines = append(lines, "  metadata: "+r.flat(info.ProtoReflect(), f, info.ProtoReflect().Get(f)))
	}
	for _, v := range bad.GetFieldViolations() {
		lines = append(lines, fmt.Sprintf("  field: %q", v.GetField()))
	}
	if retry != nil {
		lines = append(lines, "  retry_after: "+wait(retry.GetRetryDelay().AsDuration()))
	}
	return lines
}

// codeName is a code as the contract spells it.
func codeName(c codes.Code) string {
	name := c.String()
	for i := len(name) - 1; i > 0; i-- {
		if name[i] >= 'A' && name[i] <= 'Z' && name[i-1] >= 'a' {
			name = name[:i] + "_" + name[i:]
		}
	}
	return strings.ToUpper(name)
}

// details takes an error apart; what it does not carry is nil.
func details(err error) (info *errdetails.ErrorInfo, retry *errdetails.RetryInfo, bad *errdetails.BadRequest) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		case *errdetails.BadRequest:
			bad = d
		}
	}
	return info, retry, bad
}

func TestRenderer(t *testing.T) {
	r := newRenderer()
	in := &purserv1.CheckAndReserveResponse{
		Decision: purserv1.Decision_DECISION_ALLOWED, Reservation: &purserv1.Reservation{
			Token: []byte("abc"), Granted: []*purserv1.MeterQuantity{{Meter: "m", Quantity: 3}},
			ExpireTime: &timestamppb.Timestamp{Seconds: 5, Nanos: 6}}}
	want := `decision: DECISION_ALLOWED
reservation: {token: <token 1>, granted[0]: {meter: "m", quantity: 3}, expire_time: <time>}`
	if got := strings.Join(r.message(in.ProtoReflect(), ""), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if a, b := r.name("token", "abc"), r.name("token", "abd"); a != "<token 1>" || b != "<token 2>" {
		t.Errorf("names %s, %s", a, b)
	}
	if got := codeName(codes.FailedPrecondition); got != "FAILED_PRECONDITION" {
		t.Errorf("code %s", got)
	}
	if got := r.text("no; try again in 5h3m0.5s"); got != `"no; try again in <wait>"` {
		t.Errorf("text %s", got)
	}
}
