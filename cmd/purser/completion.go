package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/purser-io/purser/cmd/purser/internal/completion"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
)

// completionCmd prints what a shell needs to complete command lines.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: ${enum}."`
}

// Help is shown by --help.
func (completionCmd) Help() string {
	return `Commands, flags, their values and kinds of resources are completed, and ids as well if --server and --key-file, or PURSER_SERVER and PURSER_KEY_FILE, say where to ask.

Examples:
  source <(purser completion bash)
  purser completion bash > /etc/bash_completion.d/purser
  purser completion zsh > "${fpath[1]}/_purser"
  purser completion fish > ~/.config/fish/completions/purser.fish`
}

// Run prints the script.
func (c *completionCmd) Run(e *env) error {
	script := completion.Script(c.Shell)
	return e.out.emit(map[string]string{"shell": c.Shell, "script": script}, func(w io.Writer) { fmt.Fprint(w, script) })
}

// askTimeout bounds the wait for ids: somebody has a finger on the tab key.
const askTimeout = time.Second

// complete answers a shell: the words of the command line, the last one under the cursor.
func complete(ctx context.Context, k *kong.Kong, words []string, w io.Writer) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, line := range completion.Complete(k.Model.Node, words, func(what string, l completion.Line) []string {
		return ids(ctx, what, l)
	}) {
		fmt.Fprintln(w, line)
	}
}

// ids asks a server, and knows nothing if it does not answer.
func ids(ctx context.Context, what string, l completion.Line) (out []string) {
	connection := connection{Server: l.Flag("server"), KeyFile: l.Flag("key-file"), TLS: l.Flag("tls") != "", TLSCA: l.Flag("tls-ca"), Insecure: l.Flag("insecure") != ""}
	if what == "id" {
		what, _, _ = strings.Cut(l.Arg(0), "/")
	}
	kind, err := resource.Find(what)
	if err != nil {
		return nil
	}
	account := l.Flag("account")
	if kind.About().Scoped && account == "" {
		return nil
	}
	client, err := connection.dial(ctx)
	if err != nil {
		return nil
	}
	objects, _ := kind.List(ctx, resource.Connect(client.Conn(""), clock{}.Now()), account)
	_ = client.Close(ctx) // nothing was settled
	for _, o := range objects {
		out = append(out, o.ID())
	}
	return out
}
