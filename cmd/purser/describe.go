package main

import (
	"io"

	"github.com/purser-io/purser/cmd/purser/internal/resource"
)

// describeCmd shows resources with what belongs to them.
type describeCmd struct {
	Select selection `embed:""`
}

// Help is shown by --help.
func (describeCmd) Help() string {
	return `Of an account: its balance, open grants in burn order, budgets with what is used of them, the usage of the last 24 hours, and the accounts below it. Of a plan: what it allows and who has it. Of a feature: which plans allow it and what it costs.

Examples:
  purser describe account acme
  purser describe plan pro
  purser describe grant acme/acme-annual
  purser describe budget monthly --account globex -o json`
}

// Run describes.
func (d *describeCmd) Run(e *env) error {
	chosen, err := d.Select.choose()
	if err != nil {
		return err
	}
	return d.Select.with(e, func(server *resource.Server) error {
		objects, err := d.Select.read(e, server, chosen)
		if err != nil {
			return err
		}
		all := []*resource.Description{}
		for _, o := range objects {
			description, err := o.Describe(e.ctx, server)
			if err != nil {
				return err
			}
			all = append(all, description)
		}
		return e.out.emit(all, func(w io.Writer) {
			for i, description := range all {
				if i > 0 {
					printLine(w, "\n---\n")
				}
				description.Write(w)
			}
		})
	})
}
