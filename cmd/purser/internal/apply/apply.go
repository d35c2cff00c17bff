// Package apply brings a server to what a manifest says: it reads what is there, lists what
// is to be created or updated, and does it. What the manifest does not name is left alone;
// nothing is ever deleted.
package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
)

// Server is an authority that manifests are applied to.
type Server struct{ *resource.Server }

// Connect makes the stubs; calls carry whatever credentials conn adds.
func Connect(conn grpc.ClientConnInterface, now time.Time) *Server {
	return &Server{resource.Connect(conn, now)}
}

// Verbs of an [Action].
const (
	Create = "create"
	Update = "update"
)

// Action is one change.
type Action struct {
	Verb   string `json:"verb"`
	Kind   string `json:"kind"` // "feature", "rate card", "plan", "account", "subscription", "grant", "budget", "key"
	ID     string `json:"id"`
	Detail string `json:"detail,omitempty"` // what becomes different
	Line   int    `json:"line"`
	Before any    `json:"before,omitempty"` // as a file would have it; nothing if it is created
	After  any    `json:"after"`
	Secret string `json:"secret,omitempty"` // of a key, once it is created

	do    func(ctx context.Context, a *Action) error
	check func(ctx context.Context) error // the same with validate_only
}

// String is the action as one line.
func (a *Action) String() string {
	s := a.Verb + " " + a.Kind + " " + a.ID
	if a.Detail != "" {
		s += ": " + a.Detail
	}
	return s
}

// Plan is what it takes to bring the server to a manifest, in an order that works.
type Plan struct {
	Actions   []*Action `json:"actions"`
	Unchanged int       `json:"unchanged"`

	name    string          // of the manifest
	created map[string]bool // accounts: they have nothing yet
}

// Compare reads what the server has. It changes nothing. An error may be a conflict: something
// of the manifest exists, differs, and can never change, such as a grant.
func (s *Server) Compare(ctx context.Context, m *manifest.Manifest) (*Plan, error) {
	p := &Plan{Actions: []*Action{}, name: m.Name, created: map[string]bool{}}
	for _, step := range []func(context.Context, *manifest.Manifest, *Plan) error{
		s.features, s.rateCards, s.plans, s.accounts, s.grants, s.budgets, s.keys,
	} {
		if err := step(ctx, m, p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Do carries out the plan, telling done of each change. It stops at the first error, done's too; what was done stays, and comparing
// again finds it unchanged.
func (p *Plan) Do(ctx context.Context, done func(*Action) error) error {
	for _, a := range p.Actions {
		if err := a.do(ctx, a); err != nil {
			return p.failed(a, err)
		}
		if err := done(a); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) add(pos manifest.Pos, a Action) {
	a.Line = pos.Line
	p.Actions = append(p.Actions, &a)
}

// at says where in the file something is wrong.
func (p *Plan) at(pos manifest.Pos, err error) error {
	return fmt.Errorf("%s:%d:%d: %w", p.name, pos.Line, pos.Column, err)
}

// Check has the server say what it would refuse, and changes nothing. What rests on something
// that the plan has yet to make cannot be checked before that is there, and passes.
func (p *Plan) Check(ctx context.Context) error {
	for _, a := range p.Actions {
		if err := a.check(ctx); err != nil && !p.makes(err) {
			return p.failed(a, err)
		}
	}
	return nil
}

func (p *Plan) failed(a *Action, err error) error {
	return fmt.Errorf("%s:%d: %s %s %s: %w", p.name, a.Line, a.Verb, a.Kind, a.ID, err)
}

// makes says whether a refusal is for the lack of something that the plan makes: errors name
// what is missing. A meter comes with a feature.
func (p *Plan) makes(err error) bool {
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok {
			continue
		}
		for _, a := range p.Actions {
			switch {
			case info.GetReason() == "UNIT_UNKNOWN" && a.Kind == "feature",
				strings.HasSuffix(info.GetReason(), "_NOT_FOUND") && info.GetMetadata()[strings.ReplaceAll(a.Kind, " ", "_")] == a.ID:
				return true
			}
		}
	}
	return false
}

// message is a request that can be checked only, of type *Q.
type message[Q any] interface {
	*Q
	proto.Message
}

// call makes an action's change by a call, of whose answer it needs nothing.
func call[Q, R any, M message[Q]](a Action, rpc func(context.Context, *Q, ...grpc.CallOption) (*R, error), request M) Action {
	a.do = func(ctx context.Context, _ *Action) error {
		_, err := rpc(ctx, (*Q)(request))
		return err
	}
	a.check = checked(rpc, request)
	return a
}

// checked is a call by which the server says what it would refuse, and does nothing.
func checked[Q, R any, M message[Q]](rpc func(context.Context, *Q, ...grpc.CallOption) (*R, error), request M) func(context.Context) error {
	return func(ctx context.Context) error {
		only := proto.Clone(request).(M)
		fields := only.ProtoReflect()
		fields.Set(fields.Descriptor().Fields().ByName("validate_only"), protoreflect.ValueOfBool(true))
		_, err := rpc(ctx, (*Q)(only))
		return err
	}
}

// timestamp leaves out what was not said.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
