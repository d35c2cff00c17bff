package event

import (
	"context"
	"errors"
	"time"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/caller"
)

// keyCheck is how often it is asked whether the key of an open stream still opens anything.
const keyCheck = time.Second

// Service implements purserv1.EventServiceServer.
type Service struct {
	purserv1.UnimplementedEventServiceServer
	Feed *Feed
	Keys authz.KeyStore
	Now  func() time.Time
}

// WatchEvents see the contract. It blocks until the caller leaves, the key ends or the node drains.
func (s *Service) WatchEvents(req *purserv1.WatchEventsRequest, stream purserv1.EventService_WatchEventsServer) error {
	ctx := stream.Context()
	principal, ok := caller.From(ctx)
	if !ok {
		return quota.Errorf(quota.ReasonInternal, "")
	}
	if !principal.MayUseAccount(req.GetAccount()) {
		if req.GetAccount() != "" {
			return &quota.Error{Reason: quota.ReasonCallerNotAllowed, NotApplied: true, Meta: map[string]string{"account": req.GetAccount()},
				Message: "the key is bound to account " + principal.Account + " and may follow no other"}
		}
		req.Account = principal.Account
	}
	r, ok := s.Feed.join(req)
	if !ok {
		return &quota.Error{Reason: quota.ReasonServerOverloaded, NotApplied: true, RetryAfter: time.Second,
			Message: "this node is followed by as many readers as it serves; end another one"}
	}
	defer s.Feed.leave(r)
	// The headers tell the caller that it follows from here on, before anything happens.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	tick := time.NewTicker(keyCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Feed.closed:
			return &quota.Error{Reason: quota.ReasonShuttingDown, NotApplied: true, Message: "this node is draining; follow another"}
		case <-tick.C:
			if err := s.stillValid(ctx, principal.KeyID); err != nil {
				return err
			}
		case <-r.bell:
		}
		for m := s.Feed.take(r); m != nil; m = s.Feed.take(r) {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// stillValid ends streams of revoked and expired keys. A key that cannot be looked up stays.
func (s *Service) stillValid(ctx context.Context, id string) error {
	k, err := s.Keys.FindKey(ctx, id)
	if errors.Is(err, quota.ReasonKeyNotFound) || err == nil && !k.Usable(s.Now().UnixNano()) {
		return &quota.Error{Reason: quota.ReasonCredentialsInvalid, NotApplied: true,
			Message: "the API key has expired or was revoked while it followed"}
	}
	return nil
}
