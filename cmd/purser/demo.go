package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-io/purser/authz"
	"github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/cmd/purser/internal/apply"
	"github.com/purser-io/purser/cmd/purser/internal/demo"
	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/trace"
	"github.com/purser-io/purser/examples"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/server/telemetry"
)

// demoCmd replays a trace.
type demoCmd struct {
	Trace         string   `type:"path" placeholder:"FILE" help:"Request trace to replay: CSV with the columns TIMESTAMP,ContextTokens,GeneratedTokens. Default: 2 000 requests of the Azure LLM inference trace 2023."`
	Catalog       string   `type:"path" placeholder:"FILE.yaml" help:"Catalogue and accounts to apply first. Default: examples/catalog.yaml."`
	Store         storeURL `placeholder:"URL" help:"sqlite:PATH or postgresql://...; an empty one is set up. Default: a temporary SQLite file."`
	Listen        string   `default:"127.0.0.1:0" help:"Where the authority serves, on loopback."`
	HTTPListen    string   `name:"http-listen" default:"127.0.0.1:0" help:"Where it serves HTTP, on loopback; empty for nowhere."`
	MetricsListen string   `placeholder:"HOST:PORT" help:"Where to serve /metrics meanwhile, in plain HTTP; default: nowhere."`
	Speed         float64  `default:"0" help:"1 = as fast as it happened, 10 = ten times as fast, 0 = as fast as it goes."`
	Seed          uint64   `default:"1" help:"Of the assignment of accounts, users and models, which the trace does not name."`
	Concurrency   int      `default:"64" help:"Most requests at the same time."`
	Keep          bool     `help:"Go on serving afterwards, and print what to try next."`
}

// Help is shown by --help.
func (demoCmd) Help() string {
	return `Each request of the trace is gated and settled over gRPC as an inference server would do it: hold the prompt and the expected output with a minimum, then commit what was used. Some accounts run dry on purpose. At the end the client's own sum is compared with the authority's books, to the micro, and the store is audited; the exit code is 1 if anything is wrong.

Examples:
  purser demo
  purser demo --speed 10 --keep
  purser demo --trace azure-llm-2023-conv.csv --store postgresql://purser@localhost/purser`
}

// Validate implements kong's check of a command.
func (d *demoCmd) Validate() error {
	if d.Concurrency < 1 || d.Concurrency > 4096 {
		return fmt.Errorf("--concurrency is %d, want 1 to 4096", d.Concurrency)
	}
	if d.Speed < 0 {
		return errors.New("--speed is negative")
	}
	return nil
}

// demoRun is one demo under way.
type demoRun struct {
	*demoCmd
	*env
	id       string
	started  time.Time
	manifest *manifest.Manifest
	jobs     []demo.Job
	local    *local
	admin    *purser.Client
	ledger   *demo.Ledger
	reader   *demo.Reader
	before   demo.Books
	result   demoResult
}

// demoResult is what --output json prints.
type demoResult struct {
	*demo.Report
	Comparison *demo.Comparison `json:"comparison"`
	Audit      *audit.Report    `json:"audit"`
	OK         bool             `json:"ok"`
}

// Run runs the demo.
func (d *demoCmd) Run(e *env) error {
	return observed(e, "demo", func(t *telemetry.Telemetry) error { return d.run(e, t) })
}

func (d *demoCmd) run(e *env, t *telemetry.Telemetry) error {
	id := make([]byte, 4)
	_, _ = rand.Read(id) // never fails
	r := &demoRun{demoCmd: d, env: e, id: hex.EncodeToString(id), started: e.clock.Now().Add(-time.Minute), ledger: demo.NewLedger()}
	if err := r.read(); err != nil {
		return err
	}
	if d.Store == "" {
		dir, err := os.MkdirTemp("", "purser-demo-")
		if err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(dir)
		d.Store = storeURL("sqlite:" + filepath.Join(dir, "purser.db"))
	}
	var err error
	if r.local, err = startLocal(e, d.Store, nodeConfig{listen: d.Listen, httpListen: d.HTTPListen, metricsListen: d.MetricsListen, telemetry: t}); err != nil {
		return err
	}
	return errors.Join(r.play(), r.local.close(e.ctx))
}

// read reads trace and catalogue, before anything is started.
func (r *demoRun) read() error {
	name, data := examples.TraceName, examples.Trace
	catalogName, catalog := "catalog.yaml", examples.Catalog
	var err error
	if r.Trace != "" {
		name = filepath.Base(r.Trace)
		if data, err = os.ReadFile(r.Trace); err != nil {
			return fmt.Errorf("read trace: %w", err)
		}
	}
	if r.Catalog != "" {
		catalogName = filepath.Base(r.Catalog)
		if catalog, err = os.ReadFile(r.Catalog); err != nil {
			return fmt.Errorf("read catalogue: %w", err)
		}
	}
	rows, err := trace.Read(name, bytes.NewReader(data))
	if err != nil {
		return err
	}
	if r.manifest, err = manifest.Parse(catalogName, catalog); err != nil {
		return err
	}
	r.jobs, err = demo.Assign(rows, demo.Payers(r.manifest), demo.Models(r.manifest), r.Seed)
	r.out.printf("trace %s: %d requests over %s\n", name, len(rows), rows[len(rows)-1].At.Round(time.Second))
	r.out.printf("it names no account, user or model: they are assigned at random, seed %d\n", r.Seed)
	r.result.Report = &demo.Report{Trace: name, Seed: r.Seed, Rows: len(rows)}
	return err
}

// play is the demo on a running node.
func (r *demoRun) play() error {
	var err error
	if r.admin, err = r.local.dial(r.ctx); err != nil {
		return err
	}
	defer func() { _ = r.admin.Close(context.WithoutCancel(r.ctx)) }() // it keeps no settlement
	if err := r.setUp(); err != nil {
		return err
	}
	if err := r.replay(); err != nil {
		return err
	}
	if err := r.balance(); err != nil {
		return err
	}
	if err := r.verdict(); err != nil || !r.Keep {
		return err
	}
	return r.keep()
}

// setUp applies the catalogue. Every run brings grants of its own, so that it can be repeated
// on a store that is kept; keys are made for the demo only.
func (r *demoRun) setUp() error {
	m := r.manifest
	m.Keys = nil
	var accounts []string
	for _, a := range m.Accounts {
		accounts = append(accounts, a.ID)
	}
	for i := range m.Grants {
		m.Grants[i].ID += "." + r.id
	}
	server := apply.Connect(r.admin.Conn(""), r.clock.Now())
	plan, err := server.Compare(r.ctx, m)
	if err != nil {
		return err
	}
	if err := plan.Do(r.ctx, func(*apply.Action) error { return nil }); err != nil {
		return err
	}
	r.out.printf("authority on %s, store %s; catalogue applied: %d changes\n", r.local.address(), r.Store, len(plan.Actions))
	r.reader = demo.NewReader(r.admin.Conn(""), accounts)
	r.before, err = r.reader.Read(r.ctx)
	return err
}

// replay sends the trace with a gate's key, as an inference server would.
func (r *demoRun) replay() error {
	key, secret, err := createKey(r.ctx, r.local.store, authz.Key{Role: authz.RoleGate, Principal: "demo-gateway"}, r.clock.unixNano())
	if err != nil {
		return err
	}
	client, err := purser.Dial(r.ctx, purser.Config{Addresses: []string{r.local.address()}, Key: secret,
		OnSettled: r.ledger.Settled, Logger: r.log, SpoolSize: len(r.jobs)})
	if err != nil {
		return err
	}
	replayer := &demo.Replayer{Client: client, Ledger: r.ledger, Tally: demo.NewTally(), Run: r.id,
		Concurrency: r.Concurrency, Speed: r.Speed, Now: r.clock.Now}
	stop := showProgress(r.env, replayer.Tally, len(r.jobs))
	took := replayer.Replay(r.ctx, r.jobs)
	stop()
	ctx, cancel := r.windUp()
	defer cancel()
	err = errors.Join(client.Close(ctx), r.local.revoke(ctx, key.ID))
	report := replayer.Report(took)
	report.Trace, report.Seed, report.Rows = r.result.Trace, r.result.Seed, r.result.Rows
	r.result.Report = report
	return err
}

// windUpTimeout bounds each step behind the last request.
const windUpTimeout = 60 * time.Second

// windUp is a context for what has to be done even after an interrupt.
func (r *demoRun) windUp() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.ctx), windUpTimeout)
}

// balance waits until every settlement is projected, compares the client's record with the
// authority's books, and audits the store: drained and at rest if it began empty and the node
// is not kept, else as it runs.
func (r *demoRun) balance() error {
	ctx, cancel := r.windUp()
	defer cancel()
	if err := r.local.authority.Quiesce(ctx); err != nil {
		return fmt.Errorf("wait for the projector: %w", err)
	}
	var err error
	if r.result.Comparison, err = r.reader.Compare(ctx, r.ledger, r.id, r.before, r.started); err != nil {
		return err
	}
	if !r.Keep {
		if err := r.local.end(); err != nil {
			return err
		}
	}
	r.result.Audit, err = audit.Run(ctx, r.local.store, audit.Options{Quiescent: r.local.empty && !r.Keep})
	if err != nil {
		return err
	}
	r.result.OK = r.result.Audit.OK() && len(r.result.Comparison.Findings) == 0 && r.result.Total.Errors == 0
	return r.out.emit(&r.result, r.print)
}

func (r *demoRun) print(w io.Writer) {
	r.result.Report.Print(w)
	c := r.result.Comparison
	printLine(w, "micros: client %d, usage events %d, rollups %d, wallets %d; commits %d, usage events %d",
		c.Client, c.Events, c.Rollups, c.Wallets, c.Commits, c.Found)
}

// keep serves until a signal comes.
func (r *demoRun) keep() error {
	file := filepath.Join(os.TempDir(), "purser-demo-"+r.id+".admin-key")
	if path, ok := r.Store.path(); ok {
		file = path + ".admin-key"
	}
	if err := writeSecret(file, r.local.secret); err != nil {
		return err
	}
	defer os.Remove(file) // the key is revoked as well
	curl := ""
	if web := r.local.webAddress(false); web != "" {
		curl = fmt.Sprintf(`  curl -H 'content-type: application/json' -H "authorization: Bearer $(cat %s)" -d '{"account": "acme"}' %s/purser.v1.AuthorityService/GetBalance
`, file, web)
	}
	r.out.printf(`
The authority goes on serving on %[1]s until you press Ctrl-C. Its admin key is in %[2]s. Try:

  purser keys list --server %[1]s --key-file %[2]s
  purser apply -f examples/catalog.yaml --dry-run --server %[1]s --key-file %[2]s
  purser audit --store %[3]s
  grpcurl -plaintext -H "authorization: Bearer $(cat %[2]s)" -d '{"account": "acme"}' %[1]s purser.v1.AuthorityService/GetBalance
%[4]s
`, r.local.address(), file, r.Store, curl)
	<-r.ctx.Done()
	return nil
}

// verdict is the last line of the report.
func (r *demoRun) verdict() error {
	r.out.emitText(func(w io.Writer) {
		for _, f := range r.result.Comparison.Findings {
			printLine(w, "finding: %s", f)
		}
		if n := r.result.Total.Errors; n > 0 {
			printLine(w, "finding: %d requests got no answer", n)
		}
		if r.result.OK || !r.result.Audit.OK() {
			printAudit(w, r.result.Audit)
			return
		}
		printLine(w, "audit: the store is sound, but client and authority do not agree")
	})
	if !r.result.OK {
		return errFindings
	}
	return nil
}
