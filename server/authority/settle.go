package authority

import (
	"context"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/server/caller"
)

// Commit see the contract. The answer comes when the settlement, or the report of an interim
// commit, is durable.
func (s *Service) Commit(ctx context.Context, req *purserv1.CommitRequest) (*purserv1.CommitResponse, error) {
	p, ok := caller.From(ctx)
	if !ok {
		return nil, errNobody
	}
	settle, err := fromAPICommit(req)
	if err != nil {
		return nil, err
	}
	if interim(req) {
		if err := s.Authority.Interim(ctx, p, settle); err != nil {
			return nil, err
		}
		return &purserv1.CommitResponse{State: purserv1.ReservationState_RESERVATION_STATE_HELD}, nil
	}
	receipt, err := s.Authority.Commit(ctx, p, settle)
	if err != nil {
		return nil, err
	}
	return toAPICommit(&receipt), nil
}

// interim reports whether a commit settles nothing (R23).
func interim(req *purserv1.CommitRequest) bool { return req.Final != nil && !req.GetFinal() }

// Release see the contract. The answer comes when the settlement is durable.
func (s *Service) Release(ctx context.Context, req *purserv1.ReleaseRequest) (*purserv1.ReleaseResponse, error) {
	p, ok := caller.From(ctx)
	if !ok {
		return nil, errNobody
	}
	settle, err := fromAPIRelease(req)
	if err != nil {
		return nil, err
	}
	receipt, err := s.Authority.Release(ctx, p, settle)
	if err != nil {
		return nil, err
	}
	return toAPIRelease(&receipt), nil
}
