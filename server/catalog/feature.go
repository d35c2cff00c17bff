package catalog

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
)

// CreateFeature see the contract.
func (s *Service) CreateFeature(ctx context.Context, req *purserv1.CreateFeatureRequest) (*purserv1.CreateFeatureResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	f, err := s.Store.CreateFeature(ctx, m, authz.Feature{
		ID: req.GetId(), Kind: authz.FeatureKind(req.GetKind()), DisplayName: req.GetDisplayName(),
		Description: req.GetDescription(), Meters: req.GetMeters(),
	})
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.CreateFeatureResponse{Feature: toAPIFeature(&f)}, nil
}

// updateTries bounds how often an update without an etag reads the feature anew because
// somebody else changed it in between.
const updateTries = 5

// UpdateFeature see the contract. Fields not in the mask are sent back as read, under the
// etag read.
func (s *Service) UpdateFeature(ctx context.Context, req *purserv1.UpdateFeatureRequest) (*purserv1.UpdateFeatureResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	etag, err := admin.ParseETag(req.GetEtag())
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		f, err := s.update(ctx, m, req, etag)
		if errors.Is(err, quota.ReasonETagMismatch) && etag == 0 && try < updateTries {
			continue
		}
		if err != nil {
			return nil, err
		}
		s.Desk.Written(ctx, m)
		return &purserv1.UpdateFeatureResponse{Feature: toAPIFeature(&f)}, nil
	}
}

func (s *Service) update(ctx context.Context, m quota.Mutation, req *purserv1.UpdateFeatureRequest, etag int64) (authz.Feature, error) {
	old, err := s.feature(ctx, req.GetId())
	if err != nil {
		return authz.Feature{}, err
	}
	f := *old
	if etag == 0 {
		etag = f.Revision
	}
	mask := req.GetUpdateMask().GetPaths()
	if slices.Contains(mask, "display_name") {
		f.DisplayName = req.GetDisplayName()
	}
	if slices.Contains(mask, "description") {
		f.Description = req.GetDescription()
	}
	if slices.Contains(mask, "meters") {
		f.Meters = req.GetMeters()
	}
	return s.Store.UpdateFeature(ctx, m, f, etag)
}

func (s *Service) feature(ctx context.Context, id string) (*authz.Feature, error) {
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	f, ok := c.Features[id]
	if !ok {
		return nil, notFound(quota.ReasonFeatureNotFound, "feature", id, 0)
	}
	return f, nil
}

// GetFeature see the contract.
func (s *Service) GetFeature(ctx context.Context, req *purserv1.GetFeatureRequest) (*purserv1.GetFeatureResponse, error) {
	f, err := s.feature(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &purserv1.GetFeatureResponse{Feature: toAPIFeature(f)}, nil
}

// ListFeatures see the contract.
func (s *Service) ListFeatures(ctx context.Context, req *purserv1.ListFeaturesRequest) (*purserv1.ListFeaturesResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	rows := make([]*authz.Feature, 0, len(c.Features))
	for _, f := range c.Features {
		rows = append(rows, f)
	}
	slices.SortFunc(rows, func(a, b *authz.Feature) int { return cmp.Compare(a.ID, b.ID) })
	rows, next := admin.After(rows, page, func(f **authz.Feature) string { return (*f).ID })
	out := &purserv1.ListFeaturesResponse{NextPageToken: next}
	for _, f := range rows {
		out.Features = append(out.Features, toAPIFeature(f))
	}
	return out, nil
}

// DeleteFeature see the contract.
func (s *Service) DeleteFeature(ctx context.Context, req *purserv1.DeleteFeatureRequest) (*purserv1.DeleteFeatureResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	etag, err := admin.ParseETag(req.GetEtag())
	if err != nil {
		return nil, err
	}
	if err := s.Store.DeleteFeature(ctx, m, req.GetId(), etag); err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.DeleteFeatureResponse{}, nil
}
