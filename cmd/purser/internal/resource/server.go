package resource

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Server is the services of an authority that resources come from.
type Server struct {
	Catalog   purserv1.CatalogServiceClient
	Accounts  purserv1.AccountServiceClient
	Keys      purserv1.KeyServiceClient
	Usage     purserv1.UsageServiceClient
	Authority purserv1.AuthorityServiceClient
	// Now is when states and ages are told for.
	Now time.Time
}

// Connect makes the stubs; calls carry whatever credentials conn adds.
func Connect(conn grpc.ClientConnInterface, now time.Time) *Server {
	return &Server{
		Catalog: purserv1.NewCatalogServiceClient(conn), Accounts: purserv1.NewAccountServiceClient(conn),
		Keys: purserv1.NewKeyServiceClient(conn), Usage: purserv1.NewUsageServiceClient(conn),
		Authority: purserv1.NewAuthorityServiceClient(conn), Now: now,
	}
}

// pageSize is the most that a page may have.
const pageSize = 1000

// Pages reads a listing to its end.
func Pages[T any](what string, list func(size int32, token string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		items, next, err := list(pageSize, token)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", what, err)
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}

// ListFeatures reads all features.
func (s *Server) ListFeatures(ctx context.Context) ([]*purserv1.Feature, error) {
	return Pages("features", func(size int32, token string) ([]*purserv1.Feature, string, error) {
		r, err := s.Catalog.ListFeatures(ctx, &purserv1.ListFeaturesRequest{PageSize: size, PageToken: token})
		return r.GetFeatures(), r.GetNextPageToken(), err
	})
}

// ListPlans reads the latest version of every plan.
func (s *Server) ListPlans(ctx context.Context) ([]*purserv1.PlanVersion, error) {
	return Pages("plans", func(size int32, token string) ([]*purserv1.PlanVersion, string, error) {
		r, err := s.Catalog.ListPlans(ctx, &purserv1.ListPlansRequest{PageSize: size, PageToken: token})
		return r.GetPlanVersions(), r.GetNextPageToken(), err
	})
}

// ListRateCards reads every version of every rate card, by id and version.
func (s *Server) ListRateCards(ctx context.Context) ([]*purserv1.RateCard, error) {
	return Pages("rate cards", func(size int32, token string) ([]*purserv1.RateCard, string, error) {
		r, err := s.Catalog.ListRateCards(ctx, &purserv1.ListRateCardsRequest{PageSize: size, PageToken: token})
		return r.GetRateCards(), r.GetNextPageToken(), err
	})
}

// LatestRateCards reads the last version published of every rate card, in force or not.
func (s *Server) LatestRateCards(ctx context.Context) ([]*purserv1.RateCard, error) {
	all, err := s.ListRateCards(ctx)
	var latest []*purserv1.RateCard
	for i, c := range all {
		if i+1 == len(all) || all[i+1].GetId() != c.GetId() {
			latest = append(latest, c)
		}
	}
	return latest, err
}

// ListAccounts reads all accounts.
func (s *Server) ListAccounts(ctx context.Context) ([]*purserv1.Account, error) {
	return Pages("accounts", func(size int32, token string) ([]*purserv1.Account, string, error) {
		r, err := s.Accounts.ListAccounts(ctx, &purserv1.ListAccountsRequest{PageSize: size, PageToken: token})
		return r.GetAccounts(), r.GetNextPageToken(), err
	})
}

// ListGrants reads the grants in the wallet that an account draws on.
func (s *Server) ListGrants(ctx context.Context, account string) ([]*purserv1.Grant, error) {
	return Pages("grants", func(size int32, token string) ([]*purserv1.Grant, string, error) {
		r, err := s.Accounts.ListGrants(ctx, &purserv1.ListGrantsRequest{Account: account, PageSize: size, PageToken: token})
		return r.GetGrants(), r.GetNextPageToken(), err
	})
}

// ListBudgets reads the budgets of an account.
func (s *Server) ListBudgets(ctx context.Context, account string) ([]*purserv1.Budget, error) {
	return Pages("budgets", func(size int32, token string) ([]*purserv1.Budget, string, error) {
		r, err := s.Accounts.ListBudgets(ctx, &purserv1.ListBudgetsRequest{Account: account, PageSize: size, PageToken: token})
		return r.GetBudgets(), r.GetNextPageToken(), err
	})
}

// ListKeys reads all keys, revoked and expired ones too.
func (s *Server) ListKeys(ctx context.Context) ([]*purserv1.Key, error) {
	return Pages("keys", func(size int32, token string) ([]*purserv1.Key, string, error) {
		r, err := s.Keys.ListKeys(ctx, &purserv1.ListKeysRequest{PageSize: size, PageToken: token})
		return r.GetKeys(), r.GetNextPageToken(), err
	})
}

// AccountRollups reads the hourly sums of an account from an hour on, without end if until is
// zero.
func (s *Server) AccountRollups(ctx context.Context, account string, from, until time.Time) ([]*purserv1.Rollup, error) {
	return Pages("rollups", func(size int32, token string) ([]*purserv1.Rollup, string, error) {
		r, err := s.Usage.GetRollups(ctx, &purserv1.GetRollupsRequest{Account: account, PageSize: size, PageToken: token,
			StartTime: timestamp(from), EndTime: timestamp(until)})
		return r.GetRollups(), r.GetNextPageToken(), err
	})
}
