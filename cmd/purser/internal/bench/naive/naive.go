// Package naive is the design that Purser is measured against: reserve and commit as one
// database transaction each, the best such that we know, behind the same contract. It is
// correct: a balance never falls below what a reservation asks, a reservation is charged once,
// and credits are conserved. What it leaves out (budgets, plans, expiry, usage events) only
// makes it faster.
package naive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/pricing"
)

// Reservation states as stored.
const (
	held int64 = iota + 1
	committed
	released
)

// Reservation is a row of reservations.
type Reservation struct {
	ID, Account           string
	State, Held, Charged  int64 // micros
	Created, SettledAfter int64 // unix ns; 0 = not settled
}

// Books keep balances and reservations in a database. Each method is one transaction, durable
// when it returns.
type Books interface {
	// Reserve takes amount from the account's balance and inserts the reservation. ok is false
	// if the balance is less. A reservation that is there already with the same amount is ok
	// and changes nothing.
	Reserve(ctx context.Context, id, account string, amount, now int64) (ok bool, err error)
	// Settle ends a reservation that is held: the balance gets back what was held less charge,
	// which may be more than was held. It returns the reservation as it stands afterwards;
	// found is false if there is none.
	Settle(ctx context.Context, id, account string, state, charge, now int64) (r Reservation, found bool, err error)
	// Seed makes accounts with a balance each.
	Seed(ctx context.Context, accounts []string, balance int64) error
	// Sums adds up all balances, what is held, and what was charged.
	Sums(ctx context.Context) (balances, held, charged int64, err error)
	// InsertRow inserts one row of the size of a settlement into a table of its own: what one
	// durable write costs alone.
	InsertRow(ctx context.Context, n int64) error
	// Drop removes all tables made.
	Drop(ctx context.Context) error
	Close() error
}

// sumsSQL adds up the books, on every database.
const sumsSQL = `SELECT CAST(COALESCE((SELECT SUM(balance) FROM naive_accounts), 0) AS BIGINT),
	CAST(COALESCE((SELECT SUM(held) FROM naive_reservations WHERE state = 1), 0) AS BIGINT),
	CAST(COALESCE((SELECT SUM(charged) FROM naive_accounts), 0) AS BIGINT)`

// drops are the statements of Drop.
var drops = [...]string{
	`DROP TABLE IF EXISTS naive_accounts`,
	`DROP TABLE IF EXISTS naive_reservations`,
	`DROP TABLE IF EXISTS naive_rows`,
}

// rowBody is as large as a settlement's record.
var rowBody = make([]byte, 250)

// Service serves CheckAndReserve, Commit and Release over Books.
type Service struct {
	purserv1.UnimplementedAuthorityServiceServer
	Books Books
	Rates map[string]pricing.Rate // by meter; one that is not in it is free
	Now   func() time.Time
	TTL   time.Duration
}

// CheckAndReserve takes the price of the estimates from the account's balance.
func (s *Service) CheckAndReserve(ctx context.Context, req *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	amount, ok := s.price(len(req.GetEstimates()), func(i int) (string, int64) {
		e := req.GetEstimates()[i]
		return e.GetMeter(), e.GetQuantity()
	})
	if !ok || len(req.GetCandidates()) == 0 || req.GetIdempotencyKey() == "" {
		return nil, status.Error(codes.InvalidArgument, "want an idempotency key, a candidate and quantities that can be priced")
	}
	id, now := identify(req.GetAccount(), req.GetIdempotencyKey()), s.Now()
	ok, err := s.Books.Reserve(ctx, id, req.GetAccount(), amount, now.UnixNano())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if !ok {
		return &purserv1.CheckAndReserveResponse{Decision: purserv1.Decision_DECISION_DENIED,
			Denial: &purserv1.Denial{Reason: purserv1.DenialReason_DENIAL_REASON_CREDITS, Kind: purserv1.DenialKind_DENIAL_KIND_FIRM}}, nil
	}
	r := &purserv1.Reservation{Token: []byte(id + "/" + req.GetAccount()), ReservationId: id, Feature: req.GetCandidates()[0],
		HeldMicros: amount, ExpireTime: timestamppb.New(now.Add(s.TTL)), PriceVersion: 1}
	for _, e := range req.GetEstimates() {
		r.Granted = append(r.Granted, &purserv1.MeterQuantity{Meter: e.GetMeter(), Quantity: e.GetQuantity()})
	}
	return &purserv1.CheckAndReserveResponse{Decision: purserv1.Decision_DECISION_ALLOWED, Reservation: r}, nil
}

// identify makes the reservation's primary key out of the idempotency key, so that a repeated
// request finds its row without an index of its own.
func identify(account, key string) string {
	sum := sha256.Sum256([]byte(account + "\x00" + key))
	return hex.EncodeToString(sum[:16])
}

func (s *Service) price(n int, line func(i int) (meter string, quantity int64)) (sum int64, ok bool) {
	for i := range n {
		meter, quantity := line(i)
		rate, priced := s.Rates[meter]
		if !priced {
			continue
		}
		cost, ok := rate.Cost(quantity)
		if !ok || sum+cost < sum {
			return 0, false
		}
		sum += cost
	}
	return sum, true
}

// Commit charges the usage.
func (s *Service) Commit(ctx context.Context, req *purserv1.CommitRequest) (*purserv1.CommitResponse, error) {
	charge, ok := s.price(len(req.GetUsage()), func(i int) (string, int64) {
		u := req.GetUsage()[i]
		return u.GetMeter(), u.GetQuantity()
	})
	if !ok {
		return nil, status.Error(codes.InvalidArgument, "the usage cannot be priced")
	}
	r, replayed, err := s.settle(ctx, req.GetToken(), committed, charge)
	if err != nil {
		return nil, err
	}
	return &purserv1.CommitResponse{ChargedMicros: charge, CoveredMicros: min(charge, r.Held), OverageMicros: max(charge-r.Held, 0),
		Replayed: replayed, State: purserv1.ReservationState_RESERVATION_STATE_COMMITTED}, nil
}

// Release gives everything back.
func (s *Service) Release(ctx context.Context, req *purserv1.ReleaseRequest) (*purserv1.ReleaseResponse, error) {
	_, replayed, err := s.settle(ctx, req.GetToken(), released, 0)
	if err != nil {
		return nil, err
	}
	return &purserv1.ReleaseResponse{State: purserv1.ReservationState_RESERVATION_STATE_RELEASED, Replayed: replayed}, nil
}

// settle ends a reservation. Repeating the same settlement replays; another one is refused.
func (s *Service) settle(ctx context.Context, token []byte, state, charge int64) (r Reservation, replayed bool, err error) {
	id, account, ok := strings.Cut(string(token), "/")
	if !ok {
		return r, false, status.Error(codes.InvalidArgument, "this is no token")
	}
	now := s.Now().UnixNano()
	r, found, err := s.Books.Settle(ctx, id, account, state, charge, now)
	switch {
	case err != nil:
		return r, false, status.Error(codes.Unavailable, err.Error())
	case !found:
		return r, false, status.Error(codes.NotFound, "there is no such reservation")
	case r.State != state || r.Charged != charge:
		return r, false, status.Error(codes.FailedPrecondition, "the reservation was settled in another way before")
	}
	return r, r.SettledAfter != now, nil
}
