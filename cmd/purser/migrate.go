package main

import "io"

// migrateCmd brings a schema up to date.
type migrateCmd struct {
	Store storeURL `required:"" placeholder:"URL" help:"sqlite:PATH or postgresql://..."`
}

// Help is shown by --help.
func (migrateCmd) Help() string {
	return `Migrations only go forward, and a program of the version before runs on the new schema: migrate first, then replace the nodes one by one. An empty store needs no migrate; serve does it.

Examples:
  purser migrate --store sqlite:purser.db
  purser migrate --store postgresql://purser@db/purser`
}

// Run migrates.
func (m *migrateCmd) Run(e *env) error {
	stop := showElapsed(e, "migrating "+m.Store.String())
	err := m.Store.migrate(e.ctx)
	stop()
	if err != nil {
		return err
	}
	return e.out.emit(map[string]string{"store": m.Store.String(), "schema": "current"}, func(w io.Writer) {
		printLine(w, "the schema of %s is this program's", m.Store)
	})
}
