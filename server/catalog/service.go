// Package catalog serves purser.v1.CatalogService: features, plans and rate cards.
package catalog

import (
	"context"

	"github.com/purser-io/purser/authz"
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

// listing is a catalogue that tells all it has.
type listing interface {
	Plans() []*authz.Plan         // every version of every plan, in no order
	RateCards() []*quota.RateCard // every version of every rate card, in no order
}

// list reads the catalogue to go through it.
func (s *Service) list(ctx context.Context) (listing, error) {
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	l, ok := any(c).(listing)
	if !ok {
		return nil, &quota.Error{Reason: quota.ReasonFeatureDisabled, NotApplied: true,
			Message: "this server cannot list plans and rate cards; read them by id"}
	}
	return l, nil
}
