// Package testnode runs a node of the authority inside a test: the real server on loopback,
// over the real engine and a SQLite file, with a catalogue to use it by.
package testnode

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/storage/sqlite"
)

// Feature is what the accounts of the catalogue may use: input_tokens at 1 credit and
// output_tokens at 3 credits per 1 000, requests for nothing.
const Feature = "chat.gpt-large"

// Accounts of the catalogue.
const (
	Rich      = "acme"    // 1 000 000 credits
	Poor      = "globex"  // 1 credit
	Suspended = "initech" // 1 credit that it cannot spend
)

// Node is a running node.
type Node struct {
	// Address is where it serves gRPC.
	Address string
	// Key is the secret of a gate key.
	Key string

	now       func() time.Time
	crashed   bool // what a predecessor had set aside comes home only when its holds have ended
	path      string
	store     *sqlite.Store
	authority *authority.Authority
	server    *server.Server
	stop      context.CancelFunc
	running   chan error
	served    chan error
}

// Start runs a node with its store in dir, by the clock now.
func Start(ctx context.Context, dir string, now func() time.Time) (*Node, error) {
	n := &Node{now: now, path: filepath.Join(dir, "purser.db")}
	if err := n.start(ctx, "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if err := n.apply(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// clock is now as the engine asks for it.
type clock func() time.Time

// Now tells the time.
func (c clock) Now() time.Time { return c() }

func (n *Node) start(ctx context.Context, address string) (err error) {
	n.store, err = sqlite.Open(ctx, sqlite.Options{Path: n.path, Clock: func() int64 { return n.now().UnixNano() }})
	if err != nil {
		return fmt.Errorf("open store: %w", err)
	}
	c := authority.DefaultConfig()
	c.Embedded, c.DrainFor, c.Address = true, 0, address
	c.Poll = 50 * time.Millisecond
	logger := slog.New(slog.DiscardHandler)
	n.authority, err = authority.New(c, authority.Deps{Store: n.store, Clock: clock(n.now), Random: rand.Reader, Logger: logger})
	if err == nil {
		err = n.authority.Start(ctx)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("start authority: %w", err), n.store.Close())
	}
	var engine context.Context
	engine, n.stop = context.WithCancel(context.Background())
	n.running, n.served = make(chan error, 1), make(chan error, 1)
	go func() { n.running <- n.authority.Run(engine) }()
	n.server, err = server.New(server.Deps{Authority: n.authority, Store: n.store, Logger: logger, Now: n.now})
	if err != nil {
		return errors.Join(err, n.end())
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return errors.Join(err, n.end())
	}
	n.Address = l.Addr().String()
	go func() { n.served <- n.server.Serve(l) }()
	return nil
}

// end stops the engine and closes the store.
func (n *Node) end() error {
	n.stop()
	err := <-n.running
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, n.store.Close())
}

// drainTimeout bounds the end of a node.
const drainTimeout = 30 * time.Second

// leave stops serving. Without drain it is as if the process had died: what is live stays live,
// and no amount goes home.
func (n *Node) leave(drain bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	var err error
	if drain {
		err = n.authority.Drain(ctx)
	}
	n.server.GracefulStop(ctx)
	return errors.Join(err, <-n.served)
}

// Restart ends the node as a crash would, and runs another at the same address.
func (n *Node) Restart(ctx context.Context) error {
	n.crashed = true
	if err := errors.Join(n.leave(false), n.end()); err != nil {
		return err
	}
	return n.start(ctx, n.Address)
}

// Close drains the node, stops it and closes its store.
func (n *Node) Close() error { return errors.Join(n.leave(true), n.end()) }

// Audit drains the node, stops it, and audits what it leaves.
func (n *Node) Audit(ctx context.Context) (*audit.Report, error) {
	if err := n.leave(true); err != nil {
		return nil, errors.Join(err, n.end())
	}
	report, err := audit.Run(ctx, n.store, audit.Options{Quiescent: !n.crashed})
	return report, errors.Join(err, n.end())
}

// Spent is what was charged to an account so far, in micros, once the projector has seen it all.
func (n *Node) Spent(ctx context.Context, account string) (int64, error) {
	if err := n.authority.Quiesce(ctx); err != nil {
		return 0, err
	}
	conn, admin, err := n.admin(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	balance, err := purserv1.NewAuthorityServiceClient(conn).GetBalance(admin, &purserv1.GetBalanceRequest{Account: account})
	if err != nil {
		return 0, err
	}
	spent := balance.GetDebtMicros()
	for _, g := range balance.GetGrants() {
		spent += g.GetSpentMicros()
	}
	return spent, nil
}

// key puts a key into the store and returns its secret.
func (n *Node) key(ctx context.Context, role authz.Role) (string, error) {
	id, secret, err := authz.NewKeySecret(rand.Reader)
	if err != nil {
		return "", err
	}
	k := authz.Key{ID: id, Role: role, Principal: "test", Hash: authz.HashSecret(secret), ExpireTime: authz.Never}
	_, err = n.store.CreateKey(ctx, quota.Mutation{Principal: "test", Now: n.now().UnixNano()}, k)
	return secret, err
}

// admin is a connection, and a context with an admin key.
func (n *Node) admin(ctx context.Context) (*grpc.ClientConn, context.Context, error) {
	secret, err := n.key(ctx, authz.RoleAdmin)
	if err != nil {
		return nil, nil, err
	}
	conn, err := grpc.NewClient(n.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return conn, metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+secret), err
}

// apply sets the catalogue up, through the API.
func (n *Node) apply(ctx context.Context) error {
	conn, admin, err := n.admin(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	catalog, accounts := purserv1.NewCatalogServiceClient(conn), purserv1.NewAccountServiceClient(conn)
	var errs []error
	did := func(_ any, err error) { errs = append(errs, err) }
	did(catalog.CreateFeature(admin, &purserv1.CreateFeatureRequest{Id: Feature, Kind: purserv1.FeatureKind_FEATURE_KIND_METERED,
		Meters: []string{"input_tokens", "output_tokens"}}))
	did(catalog.PublishRateCard(admin, &purserv1.PublishRateCardRequest{Id: "standard", Prices: []*purserv1.Price{
		{Feature: Feature, Meter: "input_tokens", PriceMicros: 1_000_000, Per: 1000},
		{Feature: Feature, Meter: "output_tokens", PriceMicros: 3_000_000, Per: 1000},
		{Feature: Feature, Meter: "requests", PriceMicros: 0, Per: 1}}}))
	did(catalog.PublishPlanVersion(admin, &purserv1.PublishPlanVersionRequest{Plan: "pro", RateCard: "standard",
		Entitlements: []*purserv1.Entitlement{{Feature: Feature}}}))
	for account, credits := range map[string]int64{Rich: 1_000_000, Poor: 1, Suspended: 1} {
		did(accounts.CreateAccount(admin, &purserv1.CreateAccountRequest{Id: account}))
		did(accounts.SetSubscription(admin, &purserv1.SetSubscriptionRequest{Account: account, Plan: "pro"}))
		did(accounts.CreateGrant(admin, &purserv1.CreateGrantRequest{Account: account, Grant: "welcome", AmountMicros: credits * 1_000_000,
			Kind: purserv1.GrantKind_GRANT_KIND_PURCHASED}))
	}
	did(accounts.SuspendAccount(admin, &purserv1.SuspendAccountRequest{Account: Suspended, Sync: true}))
	n.Key, err = n.key(ctx, authz.RoleGate)
	return errors.Join(append(errs, err)...)
}
