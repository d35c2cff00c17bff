package cockroach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

// Defaults and bounds of [Options].
const (
	DefaultMaxConns         = 16
	DefaultStatementTimeout = 5 * time.Second

	minConns       = 3               // one for each pool
	networkMargin  = 2 * time.Second // what a client waits beyond the server's own limit
	connectTimeout = 5 * time.Second
	connLifetime   = 30 * time.Minute
	lifetimeJitter = 10 * time.Minute // so that a fleet does not reconnect at once
)

// Options say how to reach the database.
type Options struct {
	// URL is a libpq connection string or URL, postgresql://user@host:port/database?... Unless
	// it says otherwise, connections ask for SERIALIZABLE.
	URL string
	// Logger gets what happens behind the scenes; nil = nothing is logged.
	Logger *slog.Logger
	// MaxConns bounds connections over all pools, at least 3; 0 = DefaultMaxConns.
	MaxConns int
	// StatementTimeout ends each statement on the server; 0 = DefaultStatementTimeout. A
	// program that streams whole tables, as the audit does, needs a longer one.
	StatementTimeout time.Duration
	// Dial reaches the server in place of a plain network connection; nil = net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Store keeps everything in one database.
type Store struct {
	*relational.Store
}

var _ quota.Store = (*Store)(nil)

// Embedded reports whether one process owns the store alone (R29): never here.
func (s *Store) Embedded() bool { return false }

// Open connects to a database whose schema is this program's, and refuses any other with
// reason SCHEMA. It refuses a server that is too old or whose sessions are not SERIALIZABLE
// (R3). Reason STORE_UNAVAILABLE if the database cannot be reached. It makes several round
// trips. The caller closes the store.
func Open(ctx context.Context, o Options) (*Store, error) {
	config, err := o.poolConfig()
	if err != nil {
		return nil, err
	}
	d, err := probe(ctx, config.ConnConfig, o.URL)
	if err != nil {
		return nil, err
	}
	drv := &driver{dialect: d, limit: o.statementTimeout() + networkMargin}
	if err := drv.connect(ctx, config, o.maxConns()); err != nil {
		return nil, errors.Join(err, drv.Close())
	}
	return &Store{Store: relational.New(drv)}, nil
}

func (o *Options) maxConns() int {
	if o.MaxConns == 0 {
		return DefaultMaxConns
	}
	return max(o.MaxConns, minConns)
}

func (o *Options) statementTimeout() time.Duration {
	if o.StatementTimeout <= 0 {
		return DefaultStatementTimeout
	}
	return o.StatementTimeout
}

// poolConfig is what the pools have in common.
func (o *Options) poolConfig() (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// The parser's error repeats the URL with its password taken out.
		return nil, quota.Wrap(quota.ReasonRequestInvalid, "the store's URL cannot be read", err)
	}
	prepareConn(config.ConnConfig, o)
	config.MaxConnLifetime, config.MaxConnLifetimeJitter = connLifetime, lifetimeJitter
	return config, nil
}

// prepareConn sets what every connection of this program asks for, unless the URL does.
func prepareConn(c *pgx.ConnConfig, o *Options) {
	ask := map[string]string{
		"default_transaction_isolation": "serializable",
		"statement_timeout":             strconv.FormatInt(o.statementTimeout().Milliseconds(), 10),
		"application_name":              "purser",
	}
	for name, value := range ask {
		if _, set := c.RuntimeParams[name]; !set {
			c.RuntimeParams[name] = value
		}
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if o.Dial != nil {
		c.DialFunc = o.Dial
	}
	c.OnNotice = notices(o.Logger)
}

// notices sends the server's remarks ("relation exists, skipping") to the log's lowest level.
func notices(logger *slog.Logger) func(*pgconn.PgConn, *pgconn.Notice) {
	if logger == nil {
		return nil
	}
	return func(_ *pgconn.PgConn, n *pgconn.Notice) {
		logger.Debug("database notice", "severity", n.SeverityUnlocalized, "code", n.Code, "message", n.Message)
	}
}

// probe looks at the server and the schema over one connection of its own, so that refusals
// come from here and not from a pool.
func probe(ctx context.Context, c *pgx.ConnConfig, url string) (dialect, error) {
	conn, err := pgx.ConnectConfig(ctx, c.Copy())
	if err != nil {
		return dialect{}, unavailable(err)
	}
	defer closeConn(ctx, conn)
	d, err := detect(ctx, conn)
	if err != nil {
		return d, connectError(err)
	}
	if err := checkIsolation(ctx, conn); err != nil {
		return d, err
	}
	v, err := readVersion(ctx, conn)
	if err != nil {
		return d, connectError(err)
	}
	return d, v.refusal(latestVersion(), redact(url))
}

// closeConn closes a connection that is not needed any more; there is nobody to tell if the
// server is no longer there to be told goodbye.
func closeConn(ctx context.Context, conn *pgx.Conn) { _ = conn.Close(ctx) }

// checkIsolation refuses a session that is not SERIALIZABLE by default (R3): a pooler or a
// setting in the URL may have changed what was asked for.
func checkIsolation(ctx context.Context, conn *pgx.Conn) error {
	var level string
	if err := conn.QueryRow(ctx, `SHOW default_transaction_isolation`).Scan(&level); err != nil {
		return unavailable(fmt.Errorf("ask for the isolation level: %w", err))
	}
	if level != "serializable" {
		return quota.Errorf(quota.ReasonStoreUnavailable, fmt.Sprintf(
			"the database's sessions run at isolation level %q; Purser keeps its books only at serializable: "+
				"remove default_transaction_isolation from the URL or the pooler in between", level))
	}
	return nil
}

// connect opens the pools and one connection, which shows that they work.
func (d *driver) connect(ctx context.Context, config *pgxpool.Config, conns int) (err error) {
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if err := checkIsolation(ctx, conn); err != nil {
			return err
		}
		for _, sql := range d.dialect.setup() {
			if _, err := conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("set up session: %w", err)
			}
		}
		return nil
	}
	quarter := max(conns/4, 1)
	for _, p := range []struct {
		pool **pgxpool.Pool
		size int
	}{{&d.flush, quarter}, {&d.read, quarter}, {&d.write, conns - 2*quarter}} {
		c := config.Copy()
		c.MaxConns = int32(p.size)
		if *p.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
			return unavailable(err)
		}
	}
	if err := d.flush.Ping(ctx); err != nil {
		return connectError(err)
	}
	return nil
}
