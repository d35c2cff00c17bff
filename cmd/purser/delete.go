package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
)

// deleteCmd ends resources that can end.
type deleteCmd struct {
	Select selection `embed:""`
	DryRun bool      `help:"Check that it could be done, and do nothing."`
	Yes    bool      `short:"y" help:"Do not ask. Needed where nobody can answer."`
}

// Help is shown by --help.
func (deleteCmd) Help() string {
	return `Features that no plan or rate card names and budgets are deleted, grants are voided (what is left of them is taken back), and keys are revoked. Plans and rate cards are versions that never change, and accounts keep their books: they stay; suspend an account to deny it new work.

Examples:
  purser delete budget globex/monthly
  purser delete key 0123456789abcdef --yes
  purser delete grant acme-welcome --account acme --dry-run`
}

// removed is what was done to a resource.
type removed struct {
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	Done   string `json:"done"` // "deleted", "voided", "revoked"
	DryRun bool   `json:"dry_run,omitempty"`
}

// Run deletes.
func (d *deleteCmd) Run(e *env) error {
	chosen, err := d.Select.choose()
	if err != nil {
		return err
	}
	if len(chosen.ids) == 0 {
		return usageError{errors.New("say which: purser delete KIND ID")}
	}
	about := chosen.kinds[0].About()
	if about.Removal == "" {
		return fmt.Errorf("%s %s cannot be deleted: %s", about.Name, strings.Join(chosen.ids, ", "), about.Refusal)
	}
	return d.Select.with(e, func(server *resource.Server) error {
		objects, err := d.Select.read(e, server, chosen)
		if err != nil {
			return err
		}
		if err := d.confirm(e, about, objects); err != nil {
			return err
		}
		done := []removed{}
		for _, o := range objects {
			if err := o.Remove(e.ctx, server, d.DryRun); err != nil {
				return fmt.Errorf("%s %s: %w", about.Name, o.ID(), err)
			}
			done = append(done, removed{about.Name, o.ID(), about.Removal, d.DryRun})
			e.out.printf("%s %s %s%s\n", about.Name, o.ID(), about.Removal, map[bool]string{true: " (dry run: nothing was done)"}[d.DryRun])
		}
		return e.out.emit(done, func(io.Writer) {})
	})
}

// confirm asks, if somebody can answer.
func (d *deleteCmd) confirm(e *env, about *resource.About, objects []resource.Object) error {
	if d.Yes || d.DryRun {
		return nil
	}
	var ids []string
	for _, o := range objects {
		ids = append(ids, o.ID())
	}
	what := fmt.Sprintf("%s %s is to be %s", about.Name, strings.Join(ids, ", "), about.Removal)
	if about.Warning != "" {
		what += ": " + about.Warning
	}
	if !terminal.Is(e.in) || !terminal.Is(e.stderr) {
		return usageError{fmt.Errorf("%s. There is no terminal to ask on: say --yes, or try --dry-run", what)}
	}
	fmt.Fprintf(e.stderr, "%s. Go on? [y/N] ", what)
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
