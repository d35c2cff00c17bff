package main

import (
	"errors"
	"io"
	"os"

	"github.com/purser-io/purser/storage/sqlite"
)

// backupCmd copies an embedded store.
type backupCmd struct {
	Store storeURL `required:"" placeholder:"URL" help:"sqlite:PATH."`
	Out   string   `required:"" type:"path" placeholder:"FILE" help:"Where to write the copy (mode 0600). The file must not exist."`
}

// Help is shown by --help.
func (backupCmd) Help() string {
	return `Writes one consistent state to a new file and syncs it to disk; the node goes on serving. PostgreSQL and CockroachDB have their own backups: pg_dump or continuous archiving, BACKUP.

To restore: stop the node, put the copy in the place of the file (and remove the -wal and -shm files beside it), run purser fence, start the node. docs/operating.md says what a restore means for money.

Examples:
  purser backup --store sqlite:purser.db --out purser-$(date +%F).db`
}

// copied is what a backup reports.
type copied struct {
	Store string `json:"store"`
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

// Run copies.
func (b *backupCmd) Run(e *env) error {
	path, ok := b.Store.path()
	if !ok {
		return errors.New("backup: only a SQLite store is copied by purser: use the backups of your database, and purser fence after a restore")
	}
	if err := sqlite.Backup(e.ctx, path, b.Out); err != nil {
		return err
	}
	info, err := os.Stat(b.Out)
	if err != nil {
		return err
	}
	done := copied{Store: b.Store.String(), File: b.Out, Bytes: info.Size()}
	return e.out.emit(done, func(w io.Writer) { printLine(w, "%s copied to %s, %d bytes", done.Store, done.File, done.Bytes) })
}
