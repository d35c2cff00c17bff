package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Small is a database on a file system of few bytes, for tests of a full disk.
type Small struct {
	// URL names the database.
	URL   string
	mount string
	t     testing.TB
}

// Small makes an empty database whose files have to fit in mib mebibytes, 8 of which
// PostgreSQL takes for itself. The file system is a tmpfs, which only root may mount:
// elsewhere t fails and says so. The server's log (WAL) lies outside it, so it is the tables
// that run out of space, and nothing crashes.
func (s *Server) Small(t testing.TB, mib int) *Small {
	t.Helper()
	mount, err := os.MkdirTemp(s.dir, "small-")
	if err != nil {
		t.Fatalf("make the mount point: %v", err)
	}
	small := &Small{mount: mount, t: t}
	small.run("mount", "-t", "tmpfs", "-o", sizeOption(mib), "tmpfs", mount)
	t.Cleanup(func() { small.run("umount", "--lazy", mount) })
	space := filepath.Join(mount, "space")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatalf("make the tablespace's folder: %v", err)
	}
	if _, err := unprivileged(space); err != nil {
		t.Fatalf("give the tablespace to the server: %v", err)
	}
	name := filepath.Base(mount)[len("small-"):]
	admin(t, s.URL(), fmt.Sprintf("CREATE TABLESPACE small_%s LOCATION '%s'", name, space))
	t.Cleanup(func() { admin(t, s.URL(), "DROP TABLESPACE small_"+name) })
	small.URL = newDatabase(t, s.URL(), " TABLESPACE small_"+name)
	admin(t, s.URL(), "CHECKPOINT") // the new database's files take their room now, not later
	return small
}

// Resize gives the file system another size, in mebibytes: room again after it was full.
func (s *Small) Resize(mib int) {
	s.t.Helper()
	s.run("mount", "-o", "remount,"+sizeOption(mib), s.mount)
}

func sizeOption(mib int) string { return fmt.Sprintf("size=%dm,mode=755", mib) }

func (s *Small) run(name string, args ...string) {
	s.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		s.t.Fatalf("%s %v: %v\n%s(a test of a full disk mounts a small tmpfs: run it as root)", name, args, err, out)
	}
}
