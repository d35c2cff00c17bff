package main

import (
	"io"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/purser-io/purser/quota/authority"
)

// parse reads a command line without running it.
func parse(t *testing.T, args ...string) *cli {
	t.Helper()
	var c cli
	parser, err := kong.New(&c, kong.DefaultEnvars("PURSER"), engineDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &c
}

func TestEngineFlagsHaveTheAuthoritysDefaults(t *testing.T) {
	for embedded, lanes := range map[bool]int{true: 1, false: 4} {
		want := authority.DefaultConfig()
		want.Node, want.Embedded, want.Lanes = "", embedded, lanes
		if got := parse(t, "serve").Serve.Engine.config(embedded); got != want {
			t.Errorf("config = %+v, want %+v", got, want)
		}
	}
}

func TestFlagsByEnvironment(t *testing.T) {
	t.Setenv("PURSER_STORE", "sqlite:/elsewhere/p.db")
	t.Setenv("PURSER_LEASE", "7s")
	t.Setenv("PURSER_INSECURE", "true")
	t.Setenv("PURSER_OUTPUT", "json")
	c := parse(t, "serve", "--lease=9s")
	if c.Serve.Store != "sqlite:/elsewhere/p.db" || !c.Serve.Insecure || c.Output != "json" {
		t.Errorf("serve = %+v", c.Serve)
	}
	if got := c.Serve.Engine.Lease.String(); got != "9s" {
		t.Errorf("lease = %s: a flag wins over the environment", got)
	}
}

// TestEveryFlagHasAnEnvironmentVariable and help: what is not documented does not exist.
func TestEveryFlagIsDocumented(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.DefaultEnvars("PURSER"), engineDefaults())
	if err != nil {
		t.Fatal(err)
	}
	var visit func(n *kong.Node)
	visit = func(n *kong.Node) {
		if n.Type == kong.CommandNode && n.Help == "" {
			t.Errorf("command %s has no help", n.FullPath())
		}
		for _, f := range n.Flags {
			if f.Name != "help" && (f.Help == "" || len(f.Envs) != 1 || !strings.HasPrefix(f.Envs[0], "PURSER_")) {
				t.Errorf("%s --%s: help %q, environment %v", n.FullPath(), f.Name, f.Help, f.Envs)
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
}

func TestHelpTeaches(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.DefaultEnvars("PURSER"), engineDefaults())
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		out := must(t, command.Name, "--help")
		if command.Name != "version" && (!strings.Contains(out, "Examples:") || !strings.Contains(out, "  purser "+command.Name)) {
			t.Errorf("purser %s --help has no examples:\n%s", command.Name, out)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	fails(t, exitUsage, []string{"unexpected argument frob"}, "frob")
	fails(t, exitUsage, []string{"--frob"}, "serve", "--frob")
	fails(t, exitUsage, []string{"want sqlite:PATH or postgresql://"}, "serve", "--store=mysql://x")
	fails(t, exitUsage, []string{"want 1 to 4096"}, "demo", "--concurrency=0")
	fails(t, exitUsage, []string{"--speed is negative"}, "demo", "--speed=-1")
	fails(t, exitUsage, []string{"--file"}, "apply")
}

func TestSettingsOutOfBounds(t *testing.T) {
	fails(t, exitFailure, []string{"lease is", "lanes is 17"}, "serve", "--store", sqliteStore(t), "--listen=127.0.0.1:0",
		"--metrics-listen=", "--lease=1ms", "--lanes=17")
}

func TestStoreURLHidesThePassword(t *testing.T) {
	for in, want := range map[storeURL]string{
		"postgresql://u:secret@h:1/db": "postgresql://u@h:1/db",
		"postgresql://h/db":            "postgresql://h/db",
		"sqlite:a@b.db":                "sqlite:a@b.db",
	} {
		if got := in.String(); got != want {
			t.Errorf("%s is shown as %s, want %s", string(in), got, want)
		}
	}
}

func TestProgressOnATerminalOnly(t *testing.T) {
	showProgress(&env{stderr: io.Discard}, nil, 1)() // would crash on the nil tally
}
