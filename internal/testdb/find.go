package testdb

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"syscall"
)

// errMissing says how to get a PostgreSQL.
var errMissing = errors.New("no PostgreSQL server programs found, neither beside initdb on PATH nor in /usr/lib/postgresql: " +
	"install the Debian package postgresql (apt-get install -y postgresql), or name a server that tests may make databases on: " +
	envPostgres + "=postgresql://user@host:port/postgres")

// programs finds the folder with initdb, postgres and pg_isready: where initdb on PATH really
// lies, else the newest of Debian's.
func programs() (string, error) {
	var candidates []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			candidates = append(candidates, filepath.Dir(path))
		}
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	sort.Slice(debian, func(i, j int) bool { return debianVersion(debian[i]) > debianVersion(debian[j]) })
	for _, dir := range append(candidates, debian...) {
		if complete(dir) {
			return dir, nil
		}
	}
	return "", errMissing
}

// debianVersion is 15 for /usr/lib/postgresql/15/bin.
func debianVersion(bin string) int {
	n, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
	if err != nil {
		return 0
	}
	return n
}

func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres", "pg_isready"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// unprivileged says as whom to run the server, and gives dir to them: PostgreSQL refuses to
// run as root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("find an account to run the server as: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}
