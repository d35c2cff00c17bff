package catalog

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/pricing"
	"github.com/purser-io/purser/server/admin"
)

// PublishRateCard see the contract.
func (s *Service) PublishRateCard(ctx context.Context, req *purserv1.PublishRateCardRequest) (*purserv1.PublishRateCardResponse, error) {
	m, err := s.Desk.Mutation(ctx, req)
	if err != nil {
		return nil, err
	}
	card := quota.RateCard{ID: req.GetId(), EffectiveTime: admin.Nanos(req.GetEffectiveTime(), m.Now)}
	for _, p := range req.GetPrices() {
		card.Prices = append(card.Prices, quota.Price{
			Feature: p.GetFeature(), Meter: p.GetMeter(), Rate: pricing.Rate{PriceMicros: p.GetPriceMicros(), Per: p.GetPer()},
		})
	}
	if card, err = s.Store.PublishRateCard(ctx, m, card); err != nil {
		return nil, err
	}
	s.Desk.Written(ctx, m)
	return &purserv1.PublishRateCardResponse{RateCard: toAPIRateCard(&card)}, nil
}

// GetRateCard see the contract. Version 0 is the one in force now.
func (s *Service) GetRateCard(ctx context.Context, req *purserv1.GetRateCardRequest) (*purserv1.GetRateCardResponse, error) {
	if req.GetVersion() == 0 {
		return s.cardNow(ctx, req.GetId())
	}
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	for _, card := range c.RateCards() {
		if card.ID == req.GetId() && card.Version == req.GetVersion() {
			return &purserv1.GetRateCardResponse{RateCard: toAPIRateCard(card)}, nil
		}
	}
	return nil, notFound(quota.ReasonRateCardNotFound, "rate_card", req.GetId(), req.GetVersion())
}

func (s *Service) cardNow(ctx context.Context, id string) (*purserv1.GetRateCardResponse, error) {
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	card, ok := c.CardAt(id, s.Desk.Clock.Now().UnixNano())
	if !ok {
		return nil, notFound(quota.ReasonRateCardNotFound, "rate_card", id, 0)
	}
	return &purserv1.GetRateCardResponse{RateCard: toAPIRateCard(card)}, nil
}

// ListRateCards see the contract.
func (s *Service) ListRateCards(ctx context.Context, req *purserv1.ListRateCardsRequest) (*purserv1.ListRateCardsResponse, error) {
	page, err := admin.PageOf(req)
	if err != nil {
		return nil, err
	}
	c, err := s.Store.Catalogue(ctx)
	if err != nil {
		return nil, err
	}
	rows := slices.Clone(c.RateCards())
	slices.SortFunc(rows, func(a, b *quota.RateCard) int { return cmp.Compare(cardKey(&a), cardKey(&b)) })
	rows, next := admin.After(rows, page, cardKey)
	out := &purserv1.ListRateCardsResponse{NextPageToken: next}
	for _, card := range rows {
		out.RateCards = append(out.RateCards, toAPIRateCard(card))
	}
	return out, nil
}

// cardKey orders by id, then version: a space sorts below all that an id is made of.
func cardKey(c **quota.RateCard) string { return fmt.Sprintf("%s %020d", (*c).ID, (*c).Version) }
