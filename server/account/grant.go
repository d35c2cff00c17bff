package account

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/admin"
	"github.com/purser-io/purser/server/grpcerr"
)

// CreateGrant see the contract.
func (s *Service) CreateGrant(ctx context.Context, req *purserv1.CreateGrantRequest) (*purserv1.CreateGrantResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	id := req.GetGrant()
	if id == "" {
		if id, err = s.newGrantID(); err != nil {
			return nil, err
		}
	}
	g := quota.Pot{
		ID:        quota.GrantPotID(id),
		Kind:      quota.PotWallet,
		Granted:   req.GetAmountMicros(),
		Start:     admin.Nanos(req.GetEffectiveTime(), m.Now),
		End:       admin.Nanos(req.GetExpireTime(), quota.Never),
		GrantKind: quota.GrantKind(req.GetKind()),
		Priority:  int(req.GetPriority()),
		CostBasis: req.GetCostBasis(),
		Note:      req.GetNote(),
	}
	if g.End <= g.Start {
		return nil, grpcerr.Invalid(quota.ReasonRequestInvalid, grpcerr.Violation{Field: "expire_time",
			Description: "it must be after now and after effective_time"})
	}
	if g, err = s.Store.CreateGrant(ctx, m, req.GetAccount(), g); err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.CreateGrantResponse{Grant: ToAPIGrant(&g)}, nil
}

// newGrantID draws an id. A repeated request draws another one, which the store drops for
// the one it kept.
func (s *Service) newGrantID() (string, error) {
	var b [10]byte
	if _, err := io.ReadFull(s.Random, b[:]); err != nil {
		return "", fmt.Errorf("draw grant id: %w", err)
	}
	return "gr-" + hex.EncodeToString(b[:]), nil
}

// ListGrants see the contract.
func (s *Service) ListGrants(ctx context.Context, req *purserv1.ListGrantsRequest) (*purserv1.ListGrantsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	rows, err := s.Store.ListGrants(ctx, req.GetAccount(), admin.OneMore(page))
	if err != nil {
		return nil, err
	}
	rows, next := admin.Cut(rows, page.Size, func(g *quota.Pot) string { return g.ID })
	out := &purserv1.ListGrantsResponse{NextPageToken: next}
	for i := range rows {
		out.Grants = append(out.Grants, ToAPIGrant(&rows[i]))
	}
	return out, nil
}

// VoidGrant see the contract.
func (s *Service) VoidGrant(ctx context.Context, req *purserv1.VoidGrantRequest) (*purserv1.VoidGrantResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	g, err := s.Store.VoidGrant(ctx, m, req.GetAccount(), req.GetGrant())
	if err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.VoidGrantResponse{Grant: ToAPIGrant(&g)}, nil
}

// ToAPIGrant converts a wallet's grant.
func ToAPIGrant(g *quota.Pot) *purserv1.Grant {
	return &purserv1.Grant{
		Id:              strings.TrimPrefix(g.ID, quota.GrantPotID("")),
		Account:         g.Payer,
		AmountMicros:    g.Granted,
		Kind:            purserv1.GrantKind(g.GrantKind),
		Priority:        int32(g.Priority),
		EffectiveTime:   admin.Time(g.Start),
		ExpireTime:      admin.Time(g.End),
		CostBasis:       g.CostBasis,
		Note:            g.Note,
		Voided:          g.Voided,
		CreateTime:      admin.Time(g.CreateTime),
		AvailableMicros: g.Available,
	}
}
