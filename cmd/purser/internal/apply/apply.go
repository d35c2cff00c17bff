// Package apply brings a server to what a manifest says: it reads what is there, lists what
// is to be created or updated, and does it. What the manifest does not name is left alone;
// nothing is ever deleted.
package apply

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Server is the admin services of an authority.
type Server struct {
	catalog  purserv1.CatalogServiceClient
	accounts purserv1.AccountServiceClient
	keys     purserv1.KeyServiceClient
}

// Connect makes the stubs; calls carry whatever credentials conn adds.
func Connect(conn grpc.ClientConnInterface) *Server {
	return &Server{purserv1.NewCatalogServiceClient(conn), purserv1.NewAccountServiceClient(conn), purserv1.NewKeyServiceClient(conn)}
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
	Secret string `json:"secret,omitempty"` // of a key, once it is created

	do func(ctx context.Context, a *Action) error
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

	name string // of the manifest
}

// Compare reads what the server has. It changes nothing. An error may be a conflict: something
// of the manifest exists, differs, and can never change, such as a grant.
func (s *Server) Compare(ctx context.Context, m *manifest.Manifest) (*Plan, error) {
	p := &Plan{name: m.Name}
	for _, step := range []func(context.Context, *manifest.Manifest, *Plan) error{
		s.features, s.rateCards, s.plans, s.accountsAndPots, s.apiKeys,
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
			return fmt.Errorf("%s:%d: %s %s %s: %w", p.name, a.Line, a.Verb, a.Kind, a.ID, err)
		}
		if err := done(a); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) add(verb, kind, id, detail string, pos manifest.Pos, do func(context.Context, *Action) error) {
	p.Actions = append(p.Actions, &Action{Verb: verb, Kind: kind, ID: id, Detail: detail, Line: pos.Line, do: do})
}

// call is an action that needs nothing of its answer.
func call[Q, R any](rpc func(context.Context, *Q, ...grpc.CallOption) (*R, error), request *Q) func(context.Context, *Action) error {
	return func(ctx context.Context, _ *Action) error {
		_, err := rpc(ctx, request)
		return err
	}
}

// pages reads a listing to its end.
func pages[T any](list func(token string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		items, next, err := list(token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// pageSize is the most that a page may have.
const pageSize = 1000
