// Package key serves purser.v1.KeyService: API keys.
package key

import (
	"context"
	"io"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/grpcerr"
)

// Service implements purserv1.KeyServiceServer. Requests were validated before.
type Service struct {
	purserv1.UnimplementedKeyServiceServer
	Desk   *admin.Desk
	Store  quota.KeyAdminStore
	Random io.Reader // cryptographic: secrets
}

// CreateKey see the contract. The secret leaves here and is kept nowhere.
func (s *Service) CreateKey(ctx context.Context, req *purserv1.CreateKeyRequest) (*purserv1.CreateKeyResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	k, err := fromAPICreateKey(req, m.Now)
	if err != nil {
		return nil, err
	}
	id, secret, err := authz.NewKeySecret(s.Random)
	if err != nil {
		return nil, err
	}
	k.ID, k.Hash = id, authz.HashSecret(secret)
	made, err := s.Store.CreateKey(ctx, m, k)
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	if made.ID != id || m.ValidateOnly {
		// The answer of an earlier request, whose secret nobody has any more; or no key at all.
		secret = ""
	}
	return &purserv1.CreateKeyResponse{Key: toAPIKey(&made), Secret: secret}, nil
}

// ListKeys see the contract.
func (s *Service) ListKeys(ctx context.Context, req *purserv1.ListKeysRequest) (*purserv1.ListKeysResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.ListKeys(ctx, admin.OneMore(page))
	if err != nil {
		return nil, err
	}
	rows, next := admin.Cut(rows, page.Size, func(k *authz.Key) string { return k.ID })
	out := &purserv1.ListKeysResponse{NextPageToken: next}
	for i := range rows {
		out.Keys = append(out.Keys, toAPIKey(&rows[i]))
	}
	return out, nil
}

// RevokeKey see the contract. Other nodes refuse the key with their next poll.
func (s *Service) RevokeKey(ctx context.Context, req *purserv1.RevokeKeyRequest) (*purserv1.RevokeKeyResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	k, err := s.Store.RevokeKey(ctx, m, req.GetId())
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.RevokeKeyResponse{Key: toAPIKey(&k)}, nil
}

func fromAPICreateKey(req *purserv1.CreateKeyRequest, now int64) (authz.Key, error) {
	labels, err := label.New(req.GetLabels())
	if err != nil {
		return authz.Key{}, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "labels", Description: err.Error()})
	}
	k := authz.Key{
		Role:       authz.Role(req.GetRole()),
		Principal:  req.GetPrincipal(),
		Account:    req.GetAccount(),
		Labels:     labels,
		CreateTime: now,
		ExpireTime: admin.Nanos(req.GetExpireTime(), quota.Never),
	}
	if k.ExpireTime <= now {
		return k, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "expire_time", Description: "it must be after now"})
	}
	return k, nil
}

func toAPIKey(k *authz.Key) *purserv1.Key {
	return &purserv1.Key{
		Id:         k.ID,
		Role:       purserv1.Role(k.Role),
		Principal:  k.Principal,
		Account:    k.Account,
		Labels:     k.Labels.Map(),
		CreateTime: admin.Time(k.CreateTime),
		ExpireTime: admin.Time(k.ExpireTime),
		RevokeTime: admin.Time(k.RevokeTime),
	}
}
