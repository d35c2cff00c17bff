package purser

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Client talks to the nodes of one authority. It is safe for concurrent use.
type Client struct {
	cfg    Config
	nodes  []node // as cfg.Addresses
	spool  *spool
	keeper *keeper
}

type node struct {
	conn    *grpc.ClientConn
	one     purserv1.AuthorityServiceClient // single calls
	api     purserv1.AuthorityServiceClient // what this package calls: one, or session
	session *session                        // nil without sessions
	pulse   *pulse
}

// Dial connects to every address and waits until one of them is connected or ctx ends, unless
// [Config.NoWait] is set. Wrong settings are an error at once, all of them listed.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg}
	for _, address := range cfg.Addresses {
		conn, err := grpc.NewClient("dns:///"+address, cfg.dialOptions()...)
		if err != nil {
			c.closeNodes()
			return nil, fmt.Errorf("dial %s: %w", address, err)
		}
		c.nodes = append(c.nodes, c.newNode(conn))
		conn.Connect()
	}
	if !cfg.NoWait {
		if err := c.awaitReady(ctx); err != nil {
			c.closeNodes()
			return nil, err
		}
	}
	c.spool, c.keeper = startSpool(c), newKeeper(c)
	return c, nil
}

func (c *Client) newNode(conn *grpc.ClientConn) node {
	n := node{conn: conn, one: purserv1.NewAuthorityServiceClient(conn), pulse: new(pulse)}
	n.api = n.one
	if c.cfg.Session {
		n.session = newSession(c, n.one)
		n.api = n.session
	}
	return n
}

func (c *Config) dialOptions() []grpc.DialOption {
	transport := insecure.NewCredentials()
	if c.TLS != nil {
		transport = credentials.NewTLS(c.TLS)
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer{c.Key}),
		grpc.WithDisableRetry(), // the rule of this package is the only one
		// gRPC's own pauses grow to two minutes: a node would be back for long, and unknown.
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second,
			Backoff: backoff.Config{BaseDelay: c.BackoffMin, Multiplier: 1.6, Jitter: 0.2, MaxDelay: c.BackoffMax}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, c.DialOptions...)
}

// bearer sends the API key. Whether it may travel in plain text was decided by the checks on
// Config, so gRPC is not asked again.
type bearer struct{ key string }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.key}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return false }

// awaitReady returns when any connection is ready.
func (c *Client) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watchers that lost
	ready := make(chan bool, len(c.nodes))
	for i := range c.nodes {
		go func() { ready <- becomesReady(ctx, c.nodes[i].conn) }()
	}
	for range c.nodes {
		if <-ready {
			return nil
		}
	}
	err := fmt.Errorf("dial %v: no address answers: %w", c.cfg.Addresses, ctx.Err())
	if why := c.nodes[0].failure(); why != nil {
		err = fmt.Errorf("%w: %w", err, why)
	}
	return err
}

// reasonTimeout bounds the wait for the reason of a failed connection, which is there already
// unless an attempt is under way.
const reasonTimeout = 100 * time.Millisecond

// failure is why there is no connection: a call on one that failed is answered with that. Whether
// it is the port or the certificate makes all the difference to who has to mend it.
func (n *node) failure() error {
	ctx, cancel := context.WithTimeout(context.Background(), reasonTimeout)
	defer cancel()
	_, err := n.one.Check(ctx, &purserv1.CheckRequest{})
	return err
}

func becomesReady(ctx context.Context, conn *grpc.ClientConn) bool {
	for {
		state := conn.GetState()
		if state == connectivity.Ready {
			return true
		}
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}

// Authority is the generated stub at an account's home, for calls that this package does not
// wrap (Check, GetBalance). Nothing is retried.
func (c *Client) Authority(account string) purserv1.AuthorityServiceClient {
	return c.nodes[rank(c.cfg.Addresses, account)[0]].one
}

// Conn is the connection to an account's home, for the generated stubs of the other services.
// It stays the client's: do not close it.
func (c *Client) Conn(account string) grpc.ClientConnInterface {
	return c.nodes[rank(c.cfg.Addresses, account)[0]].conn
}

// Close sends kept settlements until all outcomes are known or ctx ends, then closes the
// connections. Handles that are open are left to expire. What remained is listed in an [*UnsettledError]; hand it to [Client.Resend] of
// a later client. No call may follow.
func (c *Client) Close(ctx context.Context) error {
	c.keeper.stop()
	left := c.spool.stop(ctx)
	err := c.closeNodes()
	if len(left) > 0 {
		err = errors.Join(&UnsettledError{Pending: left}, err)
	}
	return err
}

func (c *Client) closeNodes() error {
	var errs []error
	for _, n := range c.nodes {
		if n.session != nil {
			n.session.close()
		}
		errs = append(errs, n.conn.Close())
	}
	return errors.Join(errs...)
}
