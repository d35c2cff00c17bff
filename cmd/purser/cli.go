package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/purser-io/purser/cmd/purser/internal/completion"
	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // it did not work, or an audit found something
	exitUsage   = 2 // it was not understood
	exitDenied  = 3 // the authority said no
)

// cli is the whole command line. Every flag can be set by environment as well: PURSER_ and
// its name in capitals, with _ for -.
type cli struct {
	Output   string `short:"o" enum:"text,table,wide,json,yaml,name" default:"text" help:"How results are printed: text (or table), json or yaml; where things are listed also wide, and name for their names only."`
	LogLevel string `enum:"debug,info,warn,error," default:"" help:"Least severe message logged to standard error: debug, info, warn or error; default: info for serve, else error."`
	LogJSON  bool   `name:"log-json" help:"Log as JSON lines."`

	Serve serveCmd `cmd:"" help:"Run a node of the authority."`
	Demo  demoCmd  `cmd:"" help:"Replay a real request trace against an embedded authority, and audit the books."`

	Get      getCmd      `cmd:"" help:"List resources, or show those named."`
	Describe describeCmd `cmd:"" help:"Show a resource with what belongs to it."`
	Apply    applyCmd    `cmd:"" help:"Create or update features, prices, plans, accounts, grants, budgets and keys from a file."`
	Delete   deleteCmd   `cmd:"" help:"Delete features and budgets, void grants, revoke keys."`
	Suspend  suspendCmd  `cmd:"" help:"Deny new work to an account and those below it."`
	Resume   resumeCmd   `cmd:"" help:"End the suspension of an account."`

	Balance balanceCmd `cmd:"" help:"Show what an account has."`
	Usage   usageCmd   `cmd:"" help:"Add up what an account used."`
	Tail    tailCmd    `cmd:"" help:"Follow decisions and settlements of a node live."`
	Reserve reserveCmd `cmd:"" help:"Ask whether work may start, and hold what it may cost."`
	Extend  extendCmd  `cmd:"" help:"Hold a reservation for longer, or more."`
	Commit  commitCmd  `cmd:"" help:"Settle a reservation with what was used."`
	Release releaseCmd `cmd:"" help:"Settle a reservation without usage."`

	Keys    keysCmd    `cmd:"" help:"Create, list and revoke API keys."`
	Audit   auditCmd   `cmd:"" help:"Prove from a store alone that its books balance."`
	Migrate migrateCmd `cmd:"" help:"Bring a store's schema to this program's."`
	Bench   benchCmd   `cmd:"" help:"Measure this machine: Purser next to bare gRPC and to one transaction per request."`
	Backup  backupCmd  `cmd:"" help:"Copy a SQLite store to a file, beside the node that runs on it."`
	Fence   fenceCmd   `cmd:"" help:"Declare earlier nodes dead: the first thing to do after a restore."`
	Health  healthCmd  `cmd:"" help:"Ask a node whether it is ready."`

	Completion completionCmd `cmd:"" help:"Print a script that completes command lines in a shell."`
	Version    versionCmd    `cmd:"" help:"Print the version, and what it was built from."`
}

const description = `Purser decides, before GPU time is spent, whether a caller may use a feature and whether the account can pay for it.

Start with:

    purser demo
    purser serve --store sqlite:purser.db`

// env is what a command works with.
type env struct {
	ctx    context.Context
	in     io.Reader
	out    printer
	stderr io.Writer
	log    *slog.Logger
	clock  clock
}

// clock is the system's. It is the only one of the program: everything below takes time as an
// argument or from this.
type clock struct{}

// Now implements authority.Clock, with a monotonic reading.
func (clock) Now() time.Time { return time.Now() }

func (c clock) unixNano() int64 { return c.Now().UnixNano() }

// errFindings ends a command whose result has been printed, and is bad.
var errFindings = errors.New("there are findings")

// shortFlags lets -o=yaml be -oyaml, as kubectl's users write it.
func shortFlags(args []string) []string {
	out := slices.Clone(args)
	for i, a := range out {
		if a == "--" {
			break
		}
		if len(a) > 2 && a[0] == '-' && a[1] != '-' && a[2] == '=' {
			out[i] = a[:2] + a[3:]
		}
	}
	return out
}

// errDenied ends a command whose answer has been printed, and is no.
var errDenied = errors.New("denied")

// usageError is a mistake that shows only when a command runs.
type usageError struct{ error }

func exitCode(err error) int {
	switch {
	case errors.Is(err, errDenied):
		return exitDenied
	case errors.As(err, new(usageError)):
		return exitUsage
	default:
		return exitFailure
	}
}

// exit carries a code out of kong, which ends by calling a function.
type exit int

// run is the program: arguments in, exit code out.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	var c cli
	parser, err := kong.New(&c, kong.Name("purser"), kong.Description(description), kong.UsageOnError(),
		kong.Writers(stdout, stderr), kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}), kong.DefaultEnvars("PURSER"), kong.NamedMapper("path", file{}), engineDefaults())
	if err != nil {
		fmt.Fprintln(stderr, "purser:", err)
		return exitFailure
	}
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exit:
			code = int(e)
		default: // a fault, which must not look like success
			panic(e)
		}
	}()
	if len(args) > 0 && args[0] == completion.Command {
		complete(ctx, parser, args[1:], stdout)
		return exitOK
	}
	command, err := parser.Parse(shortFlags(args))
	if err != nil {
		fmt.Fprintf(stderr, "purser: %v\nTry: %s --help\n", err, understood(err))
		return exitUsage
	}
	e := &env{ctx: ctx, in: stdin, stderr: stderr, log: c.logger(stderr, command.Command())}
	if e.out, err = newPrinter(stdout, c.Output, command.Selected()); err != nil {
		fmt.Fprintln(stderr, "purser:", err)
		return exitUsage
	}
	if err := command.Run(e); err != nil {
		if !errors.Is(err, errFindings) && !errors.Is(err, errDenied) {
			fmt.Fprintln(stderr, "purser:", explain(err))
		}
		return exitCode(err)
	}
	return exitOK
}

// understood is the command line as far as it was one, whose help says what goes on behind it.
func understood(err error) string {
	words := "purser"
	if e, ok := errors.AsType[*kong.ParseError](err); ok && e.Context != nil {
		for _, p := range e.Context.Path {
			if p.Command != nil {
				words += " " + p.Command.Name
			}
		}
	}
	return words
}

// file reads the name of a file, or several with commas between for a flag that takes them.
// Kong's own makes the working folder of an empty one, which is what a variable of the
// environment has that was set to nothing.
type file struct{}

// Decode implements kong.Mapper.
func (file) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	var name string
	if err := ctx.Scan.PopValueInto("file", &name); err != nil {
		return err
	}
	full := func(name string) string {
		if name == "" || name == "-" {
			return name
		}
		return kong.ExpandPath(name)
	}
	if target.Kind() == reflect.String {
		target.SetString(full(name))
		return nil
	}
	for part := range strings.SplitSeq(name, ",") {
		if part != "" {
			target.Set(reflect.Append(target, reflect.ValueOf(full(part))))
		}
	}
	return nil
}

// logger logs the server's doings for serve; a command with a server inside shows its own
// result, and what went wrong.
func (c *cli) logger(w io.Writer, command string) *slog.Logger {
	level := slog.LevelError
	if command == "serve" {
		level = slog.LevelInfo
	}
	if c.LogLevel != "" {
		_ = level.UnmarshalText([]byte(c.LogLevel)) // one of the enum's
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// engine is the settings of the protocol; design.md and protocol.md §3.5 explain them.
type engine struct {
	Lease         time.Duration `default:"${lease}" help:"L: how long this node may issue without renewing its lease."`
	MaxHold       time.Duration `default:"${max_hold}" help:"M0: the longest a reservation may live."`
	Grace         time.Duration `default:"${grace}" help:"g: how long after its end a hold may still be committed for sure."`
	Poll          time.Duration `default:"${poll}" help:"How often changes by other nodes are taken in."`
	Skew          time.Duration `default:"${skew}" help:"By how much the clocks of nodes may differ."`
	IdleReturn    time.Duration `default:"${idle_return}" help:"After how long unused amounts go back to the store."`
	DrainFor      time.Duration `default:"${drain_for}" help:"How long a stopping node waits for live reservations."`
	SettleTimeout time.Duration `default:"${settle_timeout}" help:"After how long a settlement that is not durable is answered as unknown."`

	Shards          int `default:"${shards}" help:"Locks over accounts, at most 16 for each lane."`
	Lanes           int `default:"0" help:"Journal streams; 0 = 1 on SQLite, 4 else."`
	BatchRows       int `default:"${batch_rows}" help:"Most settlements in one flush."`
	SettleQueue     int `default:"${settle_queue}" help:"Most settlements waiting in a lane."`
	MaxReservations int `default:"${max_reservations}" help:"Most live reservations on this node."`
	MaxLimiters     int `default:"${max_limiters}" help:"Most counters of rate and concurrency limits in memory."`
	MaxPerPrincipal int `default:"${max_per_principal}" help:"Most live reservations of one principal on this node."`
	MaxWaiters      int `default:"${max_waiters}" help:"Most requests waiting for one payer's draw."`
	MaxAccounts     int `default:"${max_accounts}" help:"Most accounts kept in memory."`
	MaxKeys         int `default:"${max_keys}" help:"Most API keys kept in memory."`
}

// engineDefaults are the authority's and the server's own, so that the two cannot come apart.
func engineDefaults() kong.Vars {
	d := authority.DefaultConfig()
	vars := kong.Vars{"max_connections": fmt.Sprint(server.DefaultConnections)}
	for name, value := range map[string]any{
		"lease": d.Lease, "max_hold": d.MaxHold, "grace": d.Grace, "poll": d.Poll, "skew": d.Skew,
		"idle_return": d.IdleReturn, "drain_for": d.DrainFor, "settle_timeout": d.SettleTimeout,
		"shards": d.Shards, "batch_rows": d.BatchRows, "settle_queue": d.SettleQueue,
		"max_reservations": d.MaxReservations, "max_per_principal": d.MaxPerPrincipal, "max_limiters": d.MaxLimiters, "max_waiters": d.MaxWaiters,
		"max_accounts": d.MaxAccounts, "max_keys": d.MaxKeys,
	} {
		vars[name] = fmt.Sprint(value)
	}
	return vars
}

// config is the authority's configuration for a store.
func (s *engine) config(embedded bool) authority.Config {
	lanes := s.Lanes
	if lanes == 0 {
		lanes = defaultLanes(embedded)
	}
	return authority.Config{
		Lease: s.Lease, MaxHold: s.MaxHold, Grace: s.Grace, Poll: s.Poll, Skew: s.Skew,
		IdleReturn: s.IdleReturn, DrainFor: s.DrainFor, SettleTimeout: s.SettleTimeout,
		Shards: s.Shards, Lanes: lanes, BatchRows: s.BatchRows, SettleQueue: s.SettleQueue,
		MaxReservations: s.MaxReservations, MaxPerPrincipal: s.MaxPerPrincipal, MaxLimiters: s.MaxLimiters, MaxWaiters: s.MaxWaiters,
		MaxAccounts: s.MaxAccounts, MaxKeys: s.MaxKeys, Embedded: embedded,
	}
}

// defaultLanes: SQLite has one writer and one fsync (R36).
func defaultLanes(embedded bool) int {
	if embedded {
		return 1
	}
	return 4
}
