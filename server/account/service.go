// Package account serves purser.v1.AccountService: who pays, with subscriptions, grants and
// budgets.
package account

import (
	"context"
	"io"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
)

// Waiter waits until every live node has taken in a revision (R32).
type Waiter interface {
	AwaitRevision(ctx context.Context, revision int64) error
}

// Meters knows what is measured; a budget names a meter that exists.
type Meters interface {
	Catalogue(ctx context.Context) (*quota.Catalogue, error)
}

// Service implements purserv1.AccountServiceServer. Requests were validated before.
type Service struct {
	purserv1.UnimplementedAccountServiceServer
	Desk   *admin.Desk
	Store  quota.AccountStore
	Meters Meters
	Waiter Waiter
	Random io.Reader // cryptographic: ids of grants that the caller gave none
}
