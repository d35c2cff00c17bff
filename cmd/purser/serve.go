package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/purser-io/purser/server/auditor"
	"github.com/purser-io/purser/server/telemetry"
)

// serveCmd runs a node.
type serveCmd struct {
	Store            storeURL      `default:"sqlite:purser.db" help:"sqlite:PATH, or postgresql://user:password@host:port/database (PostgreSQL 14 or CockroachDB 21.1 and later)."`
	Listen           string        `default:"127.0.0.1:7411" help:"Where to serve gRPC."`
	HTTPListen       string        `name:"http-listen" default:"127.0.0.1:7413" help:"Where to serve the same API over HTTP: JSON, Connect and gRPC-Web, with /livez and /readyz; empty for nowhere."`
	HTTPAllowOrigin  []string      `name:"http-allow-origin" placeholder:"ORIGIN" help:"Web origin whose pages may call over HTTP, such as https://app.example.com; repeatable; * for all. Default: none."`
	MetricsListen    string        `default:"127.0.0.1:7412" help:"Where to serve /metrics, /livez and /readyz, in plain HTTP; empty for nowhere."`
	PprofListen      string        `name:"pprof-listen" placeholder:"HOST:PORT" help:"Where to serve profiles of this process (/debug/pprof/), on loopback only. Default: nowhere."`
	TLSCert          string        `name:"tls-cert" type:"path" placeholder:"FILE" help:"Certificate chain, PEM."`
	TLSKey           string        `name:"tls-key" type:"path" placeholder:"FILE" help:"Its private key, PEM."`
	Insecure         bool          `help:"Serve plain text off loopback. Keys and usage can be read on the way."`
	BootstrapKeyFile string        `type:"path" placeholder:"FILE" help:"Where to write the first admin key (mode 0600) if the store has none. With SQLite: PATH.admin-key."`
	SQLiteMaxPages   int64         `name:"sqlite-max-pages" help:"Most pages of 4 KiB the SQLite file may grow to; 0 = as the disk allows. Beyond it settlements are refused, and nothing is lost."`
	MaxConnections   int           `default:"${max_connections}" help:"Most connections open to each of the two API ports. One more is closed as it comes; each is an open file, so see that ulimit -n is above it."`
	AuditEvery       time.Duration `default:"6h" help:"How often to audit the books beside the work, in a tenth of the time; 0 = never. purser_audit_findings tells what came of it."`
	Node             string        `placeholder:"NAME" help:"Name of this node, for people; default: the host's."`
	Address          string        `placeholder:"HOST:PORT" help:"Where clients reach this node; default: --listen."`
	Engine           engine        `embed:"" group:"Engine"`
}

// Help is shown by --help.
func (serveCmd) Help() string {
	return `A store that is empty gets its schema and an admin key, whose file is named on standard output. Any number of nodes may serve one PostgreSQL or CockroachDB; SQLite has one.

SIGTERM drains: no new reservations, live ones are settled, what was set aside goes home. A second signal ends at once; nothing acknowledged is lost, and what was set aside comes back by itself.

Examples:
  purser serve
  purser serve --store sqlite:/var/lib/purser/purser.db --listen 0.0.0.0:7411 --tls-cert cert.pem --tls-key key.pem
  PURSER_STORE=postgresql://purser@db/purser purser serve --bootstrap-key-file admin.key`
}

// Run serves until a signal comes.
func (s *serveCmd) Run(e *env) error {
	config, err := s.nodeConfig()
	if err != nil {
		return err
	}
	return observed(e, config.authority.Node, func(t *telemetry.Telemetry) error {
		config.telemetry = t
		return s.open(e, config)
	})
}

func (s *serveCmd) open(e *env, config nodeConfig) error {
	store, _, err := s.Store.open(e.ctx, e.log, e.clock, s.SQLiteMaxPages)
	if err != nil {
		return err
	}
	return errors.Join(s.serve(e, config, store), store.Close())
}

func (s *serveCmd) nodeConfig() (nodeConfig, error) {
	c := nodeConfig{listen: s.Listen, httpListen: s.HTTPListen, metricsListen: s.MetricsListen, pprofListen: s.PprofListen,
		origins: s.HTTPAllowOrigin, insecure: s.Insecure, connections: s.MaxConnections}
	if s.AuditEvery < 0 {
		return c, fmt.Errorf("--audit-every is %v: want a time, or 0 for never", s.AuditEvery)
	}
	if s.MaxConnections < 1 {
		return c, fmt.Errorf("--max-connections is %d: want 1 or more", s.MaxConnections)
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		return c, errors.New("--tls-cert and --tls-key go together")
	}
	if s.TLSCert != "" {
		cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
		if err != nil {
			return c, fmt.Errorf("load certificate: %w", err)
		}
		c.tls = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	}
	_, embedded := s.Store.path()
	c.authority = s.Engine.config(embedded)
	if err := c.authority.Validate(); err != nil { // before a store is made for nothing
		return c, fmt.Errorf("settings: %w", err)
	}
	c.authority.Address, c.authority.Node = s.Address, s.Node
	if s.Node == "" {
		var err error
		if c.authority.Node, err = os.Hostname(); err != nil {
			return c, fmt.Errorf("name of the host: %w: say --node NAME", err)
		}
	}
	return c, nil
}

func (s *serveCmd) serve(e *env, config nodeConfig, store openedStore) error {
	file := bootstrapFile(s.Store, s.BootstrapKeyFile)
	written, err := bootstrapKey(e.ctx, store, file, e.clock)
	if err != nil {
		return err
	}
	if s.AuditEvery > 0 {
		config.audit = &auditor.Auditor{Every: s.AuditEvery, Now: e.clock.Now, Logger: e.log,
			Open: func(ctx context.Context) (auditor.Store, error) { return s.Store.openReadOnly(ctx, e.log, e.clock) }}
	}
	n, err := newNode(e.ctx, config, store, e.clock, e.log)
	if err != nil {
		if written { // it will not be said again
			e.log.Warn("admin key written", "file", file)
		}
		return err
	}
	up := serving{Store: s.Store.String(), Address: n.address(), HTTP: n.webAddress(config.tls != nil)}
	if written {
		up.AdminKeyFile = file
	}
	if n.metrics != nil {
		up.Metrics = "http://" + n.metrics.Addr().String() + "/metrics"
	}
	if n.pprof != nil {
		up.Profiles = "http://" + n.pprof.Addr().String() + "/debug/pprof/"
	}
	defer tuneMemory()()
	return errors.Join(e.out.emit(up, up.print), n.run(e.ctx))
}

// serving is what is said when a node is up.
type serving struct {
	Store        string `json:"store"`
	Address      string `json:"address"`
	HTTP         string `json:"http,omitempty"`
	Metrics      string `json:"metrics,omitempty"`
	Profiles     string `json:"profiles,omitempty"`
	AdminKeyFile string `json:"admin_key_file,omitempty"` // if one was written now
}

func (s serving) print(w io.Writer) {
	if s.AdminKeyFile != "" {
		printLine(w, "admin key written to %s", s.AdminKeyFile)
	}
	printLine(w, "serving %s on %s", s.Store, s.Address)
	if s.HTTP != "" {
		printLine(w, "HTTP on %s", s.HTTP)
	}
	if s.Metrics != "" {
		printLine(w, "metrics on %s", s.Metrics)
	}
	if s.Profiles != "" {
		printLine(w, "profiles on %s", s.Profiles)
	}
}
