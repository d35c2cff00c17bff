package main

import (
	"errors"
	"fmt"
	"io"
)

// fenceCmd makes a restored store safe to serve.
type fenceCmd struct {
	Store storeURL `required:"" placeholder:"URL" help:"sqlite:PATH or postgresql://..."`
	Force bool     `help:"Also while the lease of a node runs. Only if you know that it is dead: one that lives would spend credits twice."`
}

// Help is shown by --help.
func (fenceCmd) Help() string {
	return `Nodes that ran on a store before it was restored hold amounts and have issued tokens that it does not know of. Fencing declares all of them dead at once: what they had set aside returns when a node runs, and commits of their tokens are charged once, as LATE, whether the backup knew the reservation or not. Tokens of a node that the backup does not know at all are refused.

Stop every node, restore, fence, start. Without it commits of old tokens could be charged to amounts that the backup does not have. Fencing a store that was not restored is safe too; it ends every reservation that is out.

Examples:
  purser fence --store postgresql://purser@db/purser`
}

// fenced is what a fence reports.
type fenced struct {
	Store string `json:"store"`
	Nodes int    `json:"nodes"`
	Lanes int    `json:"lanes"`
}

// Run fences.
func (f *fenceCmd) Run(e *env) error {
	if err := f.Store.exists(e.ctx); err != nil {
		return fmt.Errorf("fence: %w", err)
	}
	store, _, err := f.Store.open(e.ctx, e.log, e.clock, 0)
	if err != nil {
		return err
	}
	// The lock on an embedded store proves that nobody runs on it (R29).
	done, err := store.FenceAll(e.ctx, f.Force || store.Embedded())
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	report := fenced{Store: f.Store.String(), Nodes: done.Incarnations, Lanes: done.Lanes}
	return e.out.emit(report, func(w io.Writer) {
		printLine(w, "fenced %s: %d nodes declared dead, %d lanes closed to settlements", report.Store, report.Nodes, report.Lanes)
	})
}
