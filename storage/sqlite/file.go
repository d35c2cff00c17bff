package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gofrs/flock"

	"github.com/purser-io/purser/quota"
)

// resolve finds the file that path means, so that one file has one lock whatever link it was
// reached by, and makes it if it is missing: SQLite would let everybody read it.
//
// A file that exists is not opened here: closing it would drop the locks that this process
// holds on it through SQLite.
func resolve(path string, readOnly bool) (string, error) {
	if path == "" {
		return "", quota.Errorf(quota.ReasonRequestInvalid, "open store: no file was named")
	}
	file, err := filepath.EvalSymlinks(path)
	switch {
	case err == nil:
		return checkFile(file)
	case !errors.Is(err, fs.ErrNotExist):
		return "", quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s cannot be reached", path), err)
	case readOnly:
		return "", quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("there is no store %s; a server makes it when it starts", path), err)
	}
	folder, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("the folder of store %s does not exist: make it first", path), err)
	}
	file = filepath.Join(folder, filepath.Base(path))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return file, nil // another process was faster; the lock decides who has it
	}
	if err != nil {
		return "", quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s cannot be made", file), err)
	}
	return file, f.Close()
}

func checkFile(file string) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s cannot be reached", file), err)
	}
	if !info.Mode().IsRegular() {
		return "", quota.Errorf(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s is not a file", file))
	}
	return file, nil
}

// acquire takes the lock that proves every earlier process dead (R29). The lock's file stays
// behind: removing it could leave two processes with a lock each, on files of the same name.
func acquire(file string) (*flock.Flock, error) {
	name := file + ".lock"
	lock := flock.New(name, flock.SetPermissions(0o600))
	held, err := lock.TryLock()
	if err != nil {
		return nil, quota.Wrap(quota.ReasonStoreUnavailable, fmt.Sprintf("store %s: its lock %s cannot be taken", file, name), err)
	}
	if !held {
		return nil, quota.Errorf(quota.ReasonStoreLocked, fmt.Sprintf(
			"store %s is in use by another process, which holds %s: stop that process, or name another file", file, name))
	}
	return lock, nil
}

// Milliseconds that SQLite itself waits for a lock. In this process the writers queue before
// they ask; what is left is a checkpoint of a reader that closes.
const busyTimeout = 5000

// dsn is the file as the driver wants it, with the pragmas of each connection.
func dsn(file string, writer bool, maxPages int64) string {
	q := url.Values{}
	add := func(pragma string) { q.Add("_pragma", pragma) }
	add("busy_timeout(" + strconv.Itoa(busyTimeout) + ")")
	add("foreign_keys(0)")
	if !writer {
		q.Set("mode", "ro")
		add("query_only(1)")
	} else {
		q.Set("mode", "rw")
		add("journal_mode(wal)")
		add("synchronous(full)")
		// A reader that stays long makes the log grow; behind it the log is cut to 64 MiB.
		add("journal_size_limit(67108864)")
		add("cache_size(-16384)")
		if maxPages > 0 {
			add("max_page_count(" + strconv.FormatInt(maxPages, 10) + ")")
		}
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: q.Encode()}).String()
}
