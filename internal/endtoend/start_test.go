package endtoend

import (
	"bytes"
	"database/sql"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
)

// badStart starts a node that has to refuse to, naming all of want.
func badStart(t *testing.T, store string, want []string, more ...string) string {
	t.Helper()
	n := newNode(t, store, more...)
	return refused(t, 1, want, n.args...)
}

// TestDatabaseIsAwayAtStart also shows that a password stays out of the message.
func TestDatabaseIsAwayAtStart(t *testing.T) {
	t.Parallel()
	nobody := freeAddress(t)
	for _, command := range []string{"serve", "migrate", "audit"} {
		out := refused(t, 1, []string{nobody, "cannot be reached"}, command, "--store", "postgresql://me:hunter2@"+nobody+"/books")
		if strings.Contains(out, "hunter2") {
			t.Errorf("%s prints the password:\n%s", command, out)
		}
	}
	out := refused(t, 1, nil, "serve", "--store", "postgresql://me:hunter2@"+nobody+"/books?sslmode=perhaps")
	if strings.Contains(out, "hunter2") {
		t.Errorf("a URL that cannot be read is printed with its password:\n%s", out)
	}
}

// TestStoreIsNotOurs: other people's data, a newer schema and an older one are left alone.
func TestStoreIsNotOurs(t *testing.T) {
	t.Parallel()
	t.Run("postgresql", func(t *testing.T) {
		foreign := testdb.PostgreSQL(t)
		testdb.Exec(t, foreign, "CREATE TABLE customers (id INT)")
		badStart(t, foreign, []string{"1 tables of something else"})

		ours := testdb.PostgreSQL(t)
		must(t, "migrate", "--store", ours)
		testdb.Exec(t, ours, "INSERT INTO purser_schema (version) VALUES (9999)")
		badStart(t, ours, []string{"this program is older", "9999"})
		refused(t, 1, []string{"this program is older"}, "audit", "--store", ours)
		refused(t, 1, []string{"this program is older"}, "migrate", "--store", ours)
	})
	t.Run("sqlite", func(t *testing.T) {
		foreign := filepath.Join(t.TempDir(), "photos.db")
		meddle(t, foreign, "CREATE TABLE photos (id INT)")
		badStart(t, "sqlite:"+foreign, []string{foreign, "another program"})

		store := sqliteStore(t)
		path := strings.TrimPrefix(store, "sqlite:")
		must(t, "migrate", "--store", store)
		meddle(t, path, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)")
		badStart(t, store, []string{path, "this program is older"})
		meddle(t, path, "DELETE FROM goose_db_version WHERE version_id <> 0")
		badStart(t, store, []string{"purser migrate --store sqlite:" + path})
		refused(t, 1, []string{"purser migrate"}, "audit", "--store", store)
	})
}

// meddle changes a SQLite file behind the program's back.
func meddle(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: path}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// TestFileIsTaken: the second process on a file is refused, whatever it wants to do there, and the
// first does not notice.
func TestFileIsTaken(t *testing.T) {
	t.Parallel()
	store := sqliteStore(t)
	n := newNode(t, store).serve()
	key := n.apply()
	path := strings.TrimPrefix(store, "sqlite:")
	badStart(t, store, []string{path, "in use by another process"})
	link := filepath.Join(t.TempDir(), "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	badStart(t, "sqlite:"+link, []string{"in use by another process"})
	refused(t, 1, []string{"in use by another process"}, "migrate", "--store", store)
	refused(t, 1, []string{"in use by another process"}, "keys", "list", "--store", store)
	pay(t, dial(t, key, nil, n.address), "acme")
	n.terminate()
	audited(t, store, true)
}

// TestFileIsDamaged breaks pages of a store that has books in it: the node names the file and
// does not start, nor does the audit call it sound.
func TestFileIsDamaged(t *testing.T) {
	t.Parallel()
	store := sqliteStore(t)
	n := newNode(t, store).serve()
	key := n.apply()
	pay(t, dial(t, key, nil, n.address), "acme")
	n.terminate()
	path := strings.TrimPrefix(store, "sqlite:")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, broken := range map[string][]byte{
		"pages overwritten": append(append(bytes.Clone(whole[:4096]), bytes.Repeat([]byte{0xA5}, 40_000)...), whole[44_096:]...),
		"end cut off":       whole[:len(whole)/2],
		"no database":       []byte(strings.Repeat("these are no books ", 1000)),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "broken.db")
			if err := os.WriteFile(file, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			badStart(t, "sqlite:"+file, []string{"broken.db", "damaged", "restore a copy"})
			if r := purserCmd(t, "audit", "--store", "sqlite:"+file); r.code != 1 || strings.Contains(r.output, booksBalance) {
				t.Errorf("audit of a damaged file: exit %d\n%s", r.code, r.output)
			}
		})
	}
}

func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	badStart(t, sqliteStore(t), []string{"taken by another process", "--listen"}, "--listen", l.Addr().String())
	badStart(t, sqliteStore(t), []string{"taken by another process", "--metrics-listen"}, "--metrics-listen", l.Addr().String())
}

// TestSettingsAreWrong: all that is wrong is said at once, and no store is made meanwhile.
func TestSettingsAreWrong(t *testing.T) {
	t.Parallel()
	store := sqliteStore(t)
	badStart(t, store, []string{"lease is 1ms", "max hold is 1ms", "grace is 1h", "lanes is 99", "batch rows is 0"},
		"--lease=1ms", "--max-hold=1ms", "--grace=1h", "--lanes=99", "--batch-rows=0")
	if _, err := os.Stat(strings.TrimPrefix(store, "sqlite:")); err == nil {
		t.Error("a store was made by a node that cannot run")
	}
	refused(t, 2, []string{"--no-such-flag"}, "serve", "--no-such-flag")
	refused(t, 2, []string{"sqlite:PATH or postgresql://"}, "serve", "--store", "mysql://root@localhost/books")
	refused(t, 2, []string{"--lease", "soon"}, "serve", "--lease=soon")
	refused(t, 1, []string{"--tls-cert and --tls-key go together"}, "serve", "--store", store, "--tls-cert", "cert.pem")
}
