// Package usage serves purser.v1.UsageService: what the projector wrote.
package usage

import (
	"context"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/server/admin"
)

// Accounts tells whether an account exists: no usage and no account are different answers.
type Accounts interface {
	Profile(ctx context.Context, account string) (*quota.Profile, error)
}

// Service implements purserv1.UsageServiceServer. Requests were validated before.
type Service struct {
	purserv1.UnimplementedUsageServiceServer
	Store    quota.UsageStore
	Accounts Accounts
}

// ListUsageEvents see the contract.
func (s *Service) ListUsageEvents(ctx context.Context, req *purserv1.ListUsageEventsRequest) (*purserv1.ListUsageEventsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	if _, err := s.Accounts.Profile(ctx, req.GetAccount()); err != nil {
		return nil, err
	}
	q := quota.UsageQuery{
		Account: req.GetAccount(), From: admin.Nanos(req.GetStartTime(), 0), To: until(req.GetEndTime()),
	}
	events, next, err := s.Store.UsageEvents(ctx, q, page)
	if err != nil {
		return nil, err
	}
	out := &purserv1.ListUsageEventsResponse{}
	if next != "" {
		out.NextPageToken = admin.Token(next)
	}
	for i := range events {
		out.UsageEvents = append(out.UsageEvents, toAPIUsageEvent(&events[i]))
	}
	return out, nil
}

// GetRollups see the contract.
func (s *Service) GetRollups(ctx context.Context, req *purserv1.GetRollupsRequest) (*purserv1.GetRollupsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	if req.GetAccount() != "" {
		if _, err := s.Accounts.Profile(ctx, req.GetAccount()); err != nil {
			return nil, err
		}
	}
	q := quota.UsageQuery{
		Account: req.GetAccount(), Feature: req.GetFeature(),
		From: admin.Nanos(req.GetStartTime(), 0), To: until(req.GetEndTime()),
	}
	rollups, next, err := s.Store.Rollups(ctx, q, page)
	if err != nil {
		return nil, err
	}
	out := &purserv1.GetRollupsResponse{}
	if next != "" {
		out.NextPageToken = admin.Token(next)
	}
	for i := range rollups {
		out.Rollups = append(out.Rollups, toAPIRollup(&rollups[i]))
	}
	return out, nil
}

// until is the end of a range; the store takes 0 for none, so 1970 has to be a moment later.
func until(end *timestamppb.Timestamp) int64 { return max(admin.Nanos(end, quota.Never), 1) }

func toAPIUsageEvent(e *quota.UsageEvent) *purserv1.UsageEvent {
	out := &purserv1.UsageEvent{
		ReservationId:   token.ReservationID(int64(e.Key.Lane), e.Key.Sequence, e.Nonce),
		Late:            e.Late,
		Account:         e.Account,
		Payer:           e.Payer,
		Principal:       e.Principal,
		Feature:         e.Feature,
		Labels:          e.Labels,
		PriceVersion:    e.PriceVersion,
		ChargedMicros:   e.Charged,
		CoveredMicros:   e.Covered,
		UncoveredMicros: e.Uncovered,
		Outcome:         purserv1.Outcome(e.Outcome),
		ReserveTime:     admin.Time(e.ReservedAt),
		SettleTime:      admin.Time(e.SettledAt),
	}
	for i, q := range e.Usage {
		line := &purserv1.UsageLine{Meter: q.Meter, Quantity: q.Quantity}
		if i < len(e.Lines) {
			line.PriceMicros = e.Lines[i]
		}
		out.Lines = append(out.Lines, line)
	}
	for _, g := range e.Grants {
		out.GrantUses = append(out.GrantUses, &purserv1.GrantUse{Grant: strings.TrimPrefix(g.Grant, quota.GrantPotID("")), AmountMicros: g.Micros})
	}
	return out
}

func toAPIRollup(r *quota.Rollup) *purserv1.Rollup {
	return &purserv1.Rollup{
		Account: r.Account, HourTime: admin.Time(r.Hour), Feature: r.Feature, Meter: r.Meter,
		Quantity: r.Quantity, ChargedMicros: r.Micros, Events: r.Events,
	}
}
