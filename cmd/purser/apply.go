package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/apply"
	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
)

// applyCmd brings a server to a manifest.
type applyCmd struct {
	File       string     `short:"f" required:"" placeholder:"FILE.yaml" completion:"file" help:"The manifest; - reads standard input."`
	DryRun     bool       `help:"Show what would be created and updated, line by line, and do nothing."`
	Validate   bool       `help:"Check the file only; no server is asked."`
	SecretsDir string     `type:"path" placeholder:"DIR" help:"Write the secrets of new keys there, one file for each principal, mode 0600, instead of printing them."`
	Store      storeURL   `placeholder:"URL" help:"Apply to a store that no server runs on, instead of to a server."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (applyCmd) Help() string {
	return `The file names features, rate_cards, plans, accounts (with their plan, grants and budgets), grants and budgets of other accounts, and keys; examples/catalog.yaml shows it, and purser get -o yaml writes it. Applying the same file again changes nothing. Nothing is ever deleted. A plan or rate card that differs is published as its next version; a grant never changes.

Examples:
  purser apply -f catalog.yaml --validate
  purser apply -f catalog.yaml --dry-run --key-file purser.db.admin-key
  purser apply -f catalog.yaml --key-file purser.db.admin-key --secrets-dir secrets
  purser get all -o yaml --key-file purser.db.admin-key | purser apply -f - --dry-run --key-file purser.db.admin-key`
}

// Run applies.
func (a *applyCmd) Run(e *env) error {
	name, data, err := a.read(e.in)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	m, err := manifest.Parse(name, data)
	if err != nil {
		return err
	}
	if a.Validate {
		return e.out.emit(map[string]bool{"valid": true}, func(w io.Writer) { printLine(w, "%s is valid", m.Name) })
	}
	return a.Connection.with(e, a.Store, func(conn grpc.ClientConnInterface) error {
		return a.apply(e, apply.Connect(conn, e.clock.Now()), m)
	})
}

// maxManifest bounds what is read of a file.
const maxManifest = 64 << 20

func (a *applyCmd) read(stdin io.Reader) (name string, data []byte, err error) {
	if a.File == "-" {
		data, err = io.ReadAll(io.LimitReader(stdin, maxManifest+1))
		name = "standard input"
	} else {
		data, err = os.ReadFile(a.File)
		name = filepath.Base(a.File)
	}
	if err == nil && len(data) > maxManifest {
		err = fmt.Errorf("%s has more than %d MiB", name, maxManifest>>20)
	}
	return name, data, err
}

func (a *applyCmd) apply(e *env, s *apply.Server, m *manifest.Manifest) error {
	stop := showElapsed(e, "comparing with the server")
	plan, err := s.Compare(e.ctx, m)
	stop()
	if err != nil {
		return err
	}
	if a.DryRun {
		if err := plan.Check(e.ctx); err != nil {
			return err
		}
		var diff bytes.Buffer
		if err := a.writeDiff(&diff, plan, e.out.paint); err != nil {
			return err
		}
		return e.out.emit(plan, func(w io.Writer) {
			_, _ = diff.WriteTo(w)
			printLine(w, "%d to change, %d unchanged; nothing was done", len(plan.Actions), plan.Unchanged)
		})
	}
	return a.do(e, plan)
}

func (a *applyCmd) do(e *env, plan *apply.Plan) error {
	var count atomic.Int64
	stop := terminal.Progress(e.stderr, func() string { return fmt.Sprintf("%d of %d changes", count.Load(), len(plan.Actions)) })
	defer stop()
	shown := !terminal.Is(e.stderr) || len(plan.Actions) <= mostShown // a line for each, unless progress tells more
	err := plan.Do(e.ctx, func(done *apply.Action) error {
		count.Add(1)
		if shown || done.Secret != "" {
			e.out.printf("%s\n", done)
		}
		return a.secret(e, done)
	})
	stop()
	if err != nil {
		return err
	}
	return e.out.emit(plan, func(w io.Writer) { printLine(w, "%d changes, %d unchanged", len(plan.Actions), plan.Unchanged) })
}

// mostShown is how many changes a terminal is told one by one.
const mostShown = 200

func (a *applyCmd) writeDiff(w io.Writer, p *apply.Plan, paint terminal.Paint) error {
	for _, action := range p.Actions {
		line := action.String()
		if action.Verb == apply.Create {
			line = paint.Green(line)
		} else {
			line = paint.Yellow(line)
		}
		printLine(w, "%s", line)
		if err := action.WriteDiff(w, paint); err != nil {
			return err
		}
	}
	return nil
}

// secret puts a new key's secret where it was asked for: it is shown this once.
func (a *applyCmd) secret(e *env, done *apply.Action) error {
	switch {
	case done.Secret == "":
		return nil
	case a.SecretsDir == "":
		e.out.printf("  secret, shown once: %s\n", done.Secret)
		return nil
	}
	if err := os.MkdirAll(a.SecretsDir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(a.SecretsDir, done.ID+".key")
	if err := writeSecret(file, done.Secret); err != nil {
		return err
	}
	done.Secret = ""
	e.out.printf("  secret written to %s\n", file)
	return nil
}
