package apply

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

func (s *Server) accounts(ctx context.Context, m *manifest.Manifest, p *Plan) error {
	for _, a := range parentsFirst(m.Accounts) {
		if err := s.account(ctx, a, p); err != nil {
			return p.at(a.Pos, fmt.Errorf("account %s: %w", a.ID, err))
		}
	}
	return nil
}

// parentsFirst sorts accounts by how many of the file's stand above them, else as they stand.
// A circle of parents, which the server refuses, ends the count.
func parentsFirst(list []manifest.Account) []manifest.Account {
	parent := map[string]string{}
	for _, a := range list {
		parent[a.ID] = a.Parent
	}
	depth := func(id string) (n int) {
		for ; parent[id] != "" && n < len(list); n++ {
			id = parent[id]
		}
		return n
	}
	return slices.SortedStableFunc(slices.Values(list), func(a, b manifest.Account) int {
		return cmp.Compare(depth(a.ID), depth(b.ID))
	})
}

func (s *Server) account(ctx context.Context, a manifest.Account, p *Plan) error {
	r, err := s.Accounts.GetAccount(ctx, &purserv1.GetAccountRequest{Id: a.ID})
	have := r.GetAccount()
	switch {
	case status.Code(err) == codes.NotFound:
		p.created[a.ID] = true
		p.add(a.Pos, call(Action{Verb: Create, Kind: "account", ID: a.ID, After: itself(a)},
			s.Accounts.CreateAccount, &purserv1.CreateAccountRequest{
				Id: a.ID, Parent: a.Parent, TimeZone: a.TimeZone, DisplayName: a.DisplayName}))
	case err != nil:
		return err
	case have.GetParent() != a.Parent:
		return fmt.Errorf("its parent is %q on the server, and a parent never changes", have.GetParent())
	default:
		s.updateAccount(a, have, p)
	}
	s.subscription(a, have, p)
	return nil
}

// itself is an account without its subscription, which is a change of its own.
func itself(a manifest.Account) manifest.Account {
	return manifest.Account{ID: a.ID, Parent: a.Parent, DisplayName: a.DisplayName, TimeZone: a.TimeZone}
}

func (s *Server) updateAccount(a manifest.Account, have *purserv1.Account, p *Plan) {
	var paths []string
	if have.GetDisplayName() != a.DisplayName {
		paths = append(paths, "display_name")
	}
	if a.TimeZone != "" && have.GetTimeZone() != a.TimeZone {
		paths = append(paths, "time_zone")
	}
	if len(paths) == 0 {
		p.Unchanged++
		return
	}
	before, after := itself(resource.FromAccount(have)), itself(a)
	after.TimeZone = cmp.Or(after.TimeZone, before.TimeZone)
	p.add(a.Pos, call(Action{Verb: Update, Kind: "account", ID: a.ID, Detail: strings.Join(paths, ", "), Before: before, After: after},
		s.Accounts.UpdateAccount, &purserv1.UpdateAccountRequest{Id: a.ID, DisplayName: a.DisplayName, TimeZone: a.TimeZone,
			UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}, Etag: have.GetEtag()}))
}

// subscribed is what a subscription looks like in a file.
type subscribed struct {
	Account string `json:"id"`
	Plan    string `json:"plan"`
	Version int64  `json:"plan_version,omitempty"`
}

// subscription subscribes to another plan, or to the version named; without one, an account
// stays on the version it has.
func (s *Server) subscription(a manifest.Account, have *purserv1.Account, p *Plan) {
	if a.Plan == "" {
		return
	}
	if have.GetPlan() == a.Plan && (a.PlanVersion == 0 || have.GetPlanVersion() == a.PlanVersion) {
		p.Unchanged++
		return
	}
	change := Action{Verb: Create, Kind: "subscription", ID: a.ID, Detail: a.Plan, After: subscribed{a.ID, a.Plan, a.PlanVersion}}
	if have.GetPlan() != "" {
		change.Verb, change.Before = Update, subscribed{a.ID, have.GetPlan(), have.GetPlanVersion()}
		change.Detail = fmt.Sprintf("from %s version %d to %s", have.GetPlan(), have.GetPlanVersion(), a.Plan)
	}
	if a.PlanVersion > 0 {
		change.Detail += fmt.Sprintf(" version %d", a.PlanVersion)
	}
	change = call(change, s.Accounts.SetSubscription, &purserv1.SetSubscriptionRequest{Account: a.ID, Plan: a.Plan, Version: a.PlanVersion})
	if have == nil { // without the account the server would not come to look at the plan
		change.check = s.hasPlan(a.Plan, a.PlanVersion)
	}
	p.add(a.Pos, change)
}

// hasPlan asks for a plan, or for the version named.
func (s *Server) hasPlan(id string, version int64) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		if version > 0 {
			_, err = s.Catalog.GetPlanVersion(ctx, &purserv1.GetPlanVersionRequest{Plan: id, Version: version})
		} else {
			_, err = s.Catalog.GetPlan(ctx, &purserv1.GetPlanRequest{Plan: id})
		}
		return err
	}
}
