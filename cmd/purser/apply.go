package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/apply"
	"github.com/purser-io/purser/cmd/purser/internal/manifest"
)

// applyCmd brings a server to a manifest.
type applyCmd struct {
	File       string     `short:"f" required:"" type:"path" placeholder:"FILE.yaml" help:"The manifest."`
	DryRun     bool       `help:"List what would be created and updated, and do nothing."`
	Validate   bool       `help:"Check the file only; no server is asked."`
	SecretsDir string     `type:"path" placeholder:"DIR" help:"Write the secrets of new keys there, one file for each principal, mode 0600, instead of printing them."`
	Store      storeURL   `placeholder:"URL" help:"Apply to a store that no server runs on, instead of to a server."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (applyCmd) Help() string {
	return `The file names features, rate_cards, plans, accounts (with their plan, grants and budgets) and keys; examples/catalog.yaml shows all of it. Applying the same file again changes nothing. Nothing is ever deleted. A plan or rate card that differs is published as its next version; a grant never changes.

Examples:
  purser apply -f catalog.yaml --validate
  purser apply -f catalog.yaml --dry-run --key-file purser.db.admin-key
  purser apply -f catalog.yaml --key-file purser.db.admin-key --secrets-dir secrets`
}

// Run applies.
func (a *applyCmd) Run(e *env) error {
	data, err := os.ReadFile(a.File)
	if err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	m, err := manifest.Parse(filepath.Base(a.File), data)
	if err != nil {
		return err
	}
	if a.Validate {
		return e.out.emit(map[string]bool{"valid": true}, func(w io.Writer) { printLine(w, "%s is valid", m.Name) })
	}
	return a.Connection.with(e, a.Store, func(conn grpc.ClientConnInterface) error {
		return a.apply(e, apply.Connect(conn), m)
	})
}

func (a *applyCmd) apply(e *env, s *apply.Server, m *manifest.Manifest) error {
	plan, err := s.Compare(e.ctx, m)
	if err != nil {
		return err
	}
	if a.DryRun {
		return e.out.emit(plan, func(w io.Writer) { a.printPlan(w, plan) })
	}
	err = plan.Do(e.ctx, func(done *apply.Action) error {
		e.out.printf("%s\n", done)
		return a.secret(e, done)
	})
	if err != nil {
		return err
	}
	return e.out.emit(plan, func(w io.Writer) { printLine(w, "%d changes, %d unchanged", len(plan.Actions), plan.Unchanged) })
}

func (a *applyCmd) printPlan(w io.Writer, p *apply.Plan) {
	for _, action := range p.Actions {
		printLine(w, "%s", action)
	}
	printLine(w, "%d to change, %d unchanged; nothing was done", len(p.Actions), p.Unchanged)
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
