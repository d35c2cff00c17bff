// Package catalog serves purser.v1.CatalogService: features, plans and rate cards.
package catalog

import (
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
)

// Service implements purserv1.CatalogServiceServer. Requests were validated before. Reads go
// to the store and not to the node's snapshot: who has just written on another node wants to
// read it here.
type Service struct {
	purserv1.UnimplementedCatalogServiceServer
	Desk  *admin.Desk
	Store quota.CatalogueStore
}
