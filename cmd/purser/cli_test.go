package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/quota/authority"
	"github.com/purser-io/purser/server"
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
	if got := parse(t, "serve").Serve.MaxConnections; got != server.DefaultConnections {
		t.Errorf("--max-connections = %d, want %d", got, server.DefaultConnections)
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

// TestExamplesAreUnderstood: what --help shows as an example is a command line.
func TestExamplesAreUnderstood(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.DefaultEnvars("PURSER"), engineDefaults())
	if err != nil {
		t.Fatal(err)
	}
	word := regexp.MustCompile(`"[^"]*"|(?:\$\([^)]*\)|\S)+`)
	call := regexp.MustCompile(`(?:^|[ (])purser (.*)`)
	examples := 0
	for _, command := range parser.Model.Children {
		for line := range strings.Lines(command.Detail) {
			for _, part := range strings.Split(line, " | ") {
				called := call.FindStringSubmatch(part)
				if called == nil || !strings.HasPrefix(line, "  ") {
					continue
				}
				args, _, _ := strings.Cut(called[1], " > ")
				args = strings.TrimSuffix(strings.TrimSpace(args), ")") // token=$(purser ...), source <(purser ...)
				words := word.FindAllString(args, -1)
				for i := range words {
					words[i] = strings.Trim(words[i], `"`)
				}
				examples++
				if _, err := parser.Parse(words); err != nil {
					t.Errorf("purser %s --help: %q: %v", command.Name, strings.TrimSpace(line), err)
				}
			}
		}
	}
	if examples < 30 {
		t.Errorf("only %d examples were found", examples)
	}
}

// TestErrorsSayWhatToDo about an answer of a server.
func TestErrorsSayWhatToDo(t *testing.T) {
	answer := func(code codes.Code, reason string, metadata map[string]string) error {
		st, err := status.New(code, "said").WithDetails(&errdetails.ErrorInfo{Reason: reason, Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		return st.Err()
	}
	definite := map[string]string{"not_applied": "true"}
	for name, c := range map[string]struct {
		err        error
		want, lack string
	}{
		"what was tried":     {fmt.Errorf("get account a: %w", answer(codes.NotFound, "ACCOUNT_NOT_FOUND", nil)), "get account a: said (ACCOUNT_NOT_FOUND)", "rpc error"},
		"facts":              {answer(codes.FailedPrecondition, "RESERVATION_COMMITTED", map[string]string{"charged_micros": "5"}), "(RESERVATION_COMMITTED, charged_micros 5)", "Check"},
		"a wrong key":        {answer(codes.Unauthenticated, "CREDENTIALS_INVALID", definite), "Check --key-file", "not_applied"},
		"a key of another":   {answer(codes.PermissionDenied, "CALLER_NOT_ALLOWED", nil), "purser get keys", "Check"},
		"a token of another": {answer(codes.PermissionDenied, "TOKEN_INVALID", nil), "(TOKEN_INVALID)", "purser get keys"},
		"an unknown outcome": {settling{fmt.Errorf("commit: %w", answer(codes.Unavailable, "OUTCOME_UNKNOWN", nil))}, "Do it again, with the same token", "rpc error"},
		"a definite one":     {settling{answer(codes.Unavailable, "SHUTTING_DOWN", definite)}, "(SHUTTING_DOWN)", "Do it again"},
		"a refusal":          {settling{answer(codes.InvalidArgument, "AMOUNT_INVALID", nil)}, "(AMOUNT_INVALID)", "Do it again"},
		"no reason":          {settling{status.Error(codes.DeadlineExceeded, "late")}, "late (DeadlineExceeded)\nIt is not known whether", "rpc error"},
		"no answer at all":   {errors.New("dial: nobody"), "dial: nobody", "("},
	} {
		if got := explain(c.err); !strings.Contains(got, c.want) || strings.Contains(got, c.lack) {
			t.Errorf("%s: %q, want %q in it and not %q", name, got, c.want, c.lack)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	fails(t, exitUsage, []string{"unexpected argument frob"}, "frob")
	fails(t, exitUsage, []string{"--frob"}, "serve", "--frob")
	fails(t, exitUsage, []string{"want sqlite:PATH or postgresql://"}, "serve", "--store=mysql://x")
	fails(t, exitUsage, []string{"want 1 to 4096"}, "demo", "--concurrency=0")
	fails(t, exitUsage, []string{"--speed is negative"}, "demo", "--speed=-1")
	fails(t, exitUsage, []string{"--file", "Try: purser apply --help"}, "apply")
	fails(t, exitUsage, []string{"--role", "Try: purser keys create --help"}, "keys", "create", "--role", "boss", "--principal", "x")
	t.Setenv("PURSER_KEY_FILE", "")
	fails(t, exitFailure, []string{"say with --key-file which API key to use"}, "get", "accounts")
}

// broken is a standard output that is gone in a way that nobody thought of.
type broken struct{}

func (broken) Write([]byte) (int, error) { panic("broken") }

func TestAFaultIsNoSuccess(t *testing.T) {
	defer func() {
		if recover() != "broken" {
			t.Error("a panic was lost")
		}
	}()
	code := run(t.Context(), []string{"version"}, strings.NewReader(""), broken{}, io.Discard)
	t.Errorf("the program ended with exit code %d", code)
}

func TestSettingsOutOfBounds(t *testing.T) {
	fails(t, exitFailure, []string{"--max-connections is 0: want 1 or more"}, "serve", "--store", sqliteStore(t), "--max-connections=0")
	fails(t, exitFailure, []string{"--audit-every is -1s"}, "serve", "--store", sqliteStore(t), "--audit-every=-1s")
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
