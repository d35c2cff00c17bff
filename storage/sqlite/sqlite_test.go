package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/storage/relational"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testLane  quota.LaneID = 1 << 40
	testGuest quota.LaneID = 1<<40 + 1
	testTime  int64        = 1_700_000_000_000_000_000
)

func testClock() int64 { return testTime }

func options(path string) Options { return Options{Path: path, Clock: testClock} }

// open opens a store that is closed with the test.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s
}

func register(t testing.TB, s *Store) {
	t.Helper()
	_, err := s.Register(t.Context(), quota.Registration{Incarnation: "i1", Lanes: []quota.LaneID{testLane}, Guest: testGuest,
		Lease: time.Minute, Hold: time.Minute})
	if err != nil {
		t.Fatalf("Register = %v", err)
	}
}

// records are n settlements as a flush has them.
func records(first uint64, n int) []quota.Record {
	rs := make([]quota.Record, n)
	for i := range rs {
		rs[i] = quota.Record{
			EntryKey: quota.EntryKey{Lane: testLane, Sequence: first + uint64(i)}, Nonce: 1 << 15, Kind: quota.Committed,
			Outcome: quota.OutcomeSuccess, Account: "acme", Payer: "acme", Principal: "gateway", Feature: "chat.gpt-large",
			PriceVersion: 7, Labels: label.Set{{Key: "team", Value: "search"}, {Key: "user", Value: "ada"}},
			Usage: []quota.Quantity{{Meter: "input_tokens", Quantity: 1200}, {Meter: "output_tokens", Quantity: 300}},
			Lines: []int64{1200, 900}, Held: 4000,
			Slots:  []quota.Slot{{Kind: quota.PotWallet, Anchor: 3, Parts: []token.Part{{Allotment: 3, Amount: 2100}}, Charge: 2100}},
			Digest: 1 << 60, ReservedAt: testTime, ExpiresAt: testTime + 30e9, SettledAt: testTime + 2e9}
	}
	return rs
}

func appendBatch(t testing.TB, s *Store, no int64, rs []quota.Record) error {
	t.Helper()
	r, err := s.Append(t.Context(), testLane, no, rs)
	if err == nil && !r.Applied {
		t.Fatalf("Append of batch %d = %+v, want it applied", no, r)
	}
	return err
}

// batches reads everything back by the audit's way.
func batches(t testing.TB, s *Store) (count int) {
	t.Helper()
	err := s.Audit(t.Context(), func(r quota.AuditReader) error {
		return r.Batches(func(quota.Batch) error { count++; return nil })
	})
	if err != nil {
		t.Fatalf("Audit = %v", err)
	}
	return count
}

// refused fails unless err has the reason and its message names the file.
func refused(t testing.TB, err error, want quota.Reason, file string) {
	t.Helper()
	var e *quota.Error
	if !errors.As(err, &e) || e.Reason != want {
		t.Fatalf("error %v, want %s", err, want)
	}
	if !strings.Contains(e.Message, file) {
		t.Errorf("message %q does not name %s", e.Message, file)
	}
}

func TestAStoreIsThereAfterReopening(t *testing.T) {
	for _, name := range []string{"store.db", "a b.db", "50%25 of? #1.db"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			s, err := Open(t.Context(), options(path))
			if err != nil {
				t.Fatalf("Open = %v", err)
			}
			register(t, s)
			if err := appendBatch(t, s, 1, records(1, 3)); err != nil {
				t.Fatalf("Append = %v", err)
			}
			if err := errors.Join(s.Close(), s.Close()); err != nil {
				t.Fatalf("Close = %v", err)
			}
			if got := batches(t, open(t, options(path))); got != 1 {
				t.Errorf("after reopening there are %d batches, want 1", got)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the file is %v, %v, want 0600: it holds keys", info, err)
			}
		})
	}
}

func TestOneProcessHasTheFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "store.db")
	s, err := Open(t.Context(), options(path))
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	link := filepath.Join(folder, "link.db")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{path, link} {
		_, err = Open(t.Context(), options(by))
		refused(t, err, quota.ReasonStoreLocked, path)
		refused(t, Migrate(t.Context(), by), quota.ReasonStoreLocked, path+".lock")
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	open(t, options(path))
}

func TestAReaderBesideTheWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	w := open(t, options(path))
	register(t, w)
	if err := appendBatch(t, w, 1, records(1, 1)); err != nil {
		t.Fatalf("Append = %v", err)
	}
	r := open(t, Options{Path: path, ReadOnly: true})
	err := r.Audit(t.Context(), func(a quota.AuditReader) error {
		count := func() (n int) {
			if err := a.Batches(func(quota.Batch) error { n++; return nil }); err != nil {
				t.Errorf("Batches = %v", err)
			}
			return n
		}
		before := count()
		if err := appendBatch(t, w, 2, records(2, 1)); err != nil {
			t.Errorf("Append beside a reader = %v", err)
		}
		if after := count(); before != 1 || after != 1 {
			t.Errorf("one state has %d, then %d batches", before, after)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Audit = %v", err)
	}
	if got := batches(t, r); got != 2 {
		t.Errorf("a later audit sees %d batches, want 2", got)
	}
	refused(t, r.Fence(t.Context(), testLane), quota.ReasonStoreUnavailable, path)
}

func TestAReaderWithoutAServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	_, err := Open(t.Context(), Options{Path: path, ReadOnly: true})
	refused(t, err, quota.ReasonStoreUnavailable, path)
	s, err := Open(t.Context(), options(path))
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	register(t, s)
	if err := errors.Join(appendBatch(t, s, 1, records(1, 1)), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := batches(t, open(t, Options{Path: path, ReadOnly: true})); got != 1 {
		t.Errorf("a reader sees %d batches, want 1", got)
	}
}

func TestDamagedFiles(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole.db")
	s, err := Open(t.Context(), options(whole))
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	register(t, s)
	for no := range int64(20) {
		if err := appendBatch(t, s, no+1, records(uint64(no*100)+1, 100)); err != nil {
			t.Fatalf("Append = %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	good, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	overwrite := func(from, to int) []byte {
		b := append([]byte(nil), good...)
		for i := from; i < to; i++ {
			b[i] ^= 0xa5
		}
		return b
	}
	for name, content := range map[string][]byte{
		"text":       []byte("this is no database\n"),
		"long text":  []byte(strings.Repeat("this is no database either\n", 1000)),
		"cut":        good[:len(good)/2],
		"bad header": overwrite(0, 40),
		"bad pages":  overwrite(len(good)/2, len(good)/2+3*4096),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), options(path))
			refused(t, err, quota.ReasonStoreDamaged, path)
			refused(t, Migrate(t.Context(), path), quota.ReasonStoreDamaged, path)
			if after, err := os.ReadFile(path); err != nil || string(after) != string(content) {
				t.Errorf("the damaged file was touched (%v)", err)
			}
		})
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	folder := t.TempDir()
	missing := filepath.Join(folder, "missing", "store.db")
	_, err := Open(t.Context(), options(missing))
	refused(t, err, quota.ReasonStoreUnavailable, missing)
	_, err = Open(t.Context(), options(folder))
	refused(t, err, quota.ReasonStoreUnavailable, folder)
	_, err = Open(t.Context(), options(""))
	refused(t, err, quota.ReasonRequestInvalid, "")
	_, err = Open(t.Context(), Options{Path: filepath.Join(folder, "store.db")})
	refused(t, err, quota.ReasonRequestInvalid, "clock")
}

// execute runs SQL on a file that no store has open.
func execute(t testing.TB, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), query)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func TestSchemasOfOthers(t *testing.T) {
	for _, c := range []struct {
		name, query string
		ours        bool
		want        string
	}{
		{"foreign", `CREATE TABLE songs (id INTEGER PRIMARY KEY)`, false, "another program"},
		{"foreign with goose", `CREATE TABLE goose_db_version (version_id INTEGER, is_applied INTEGER); CREATE TABLE songs (id INTEGER)`, false, "another program"},
		{"newer", `INSERT INTO goose_db_version (version_id, is_applied) VALUES (9999, 1)`, true, "older than the store"},
		{"older", `UPDATE goose_db_version SET version_id = 0`, true, "purser migrate --store sqlite:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if c.ours {
				if err := Migrate(t.Context(), path); err != nil {
					t.Fatalf("Migrate = %v", err)
				}
			}
			execute(t, path, c.query)
			_, err := Open(t.Context(), options(path))
			refused(t, err, quota.ReasonSchema, c.want)
			_, err = Open(t.Context(), Options{Path: path, ReadOnly: true})
			refused(t, err, quota.ReasonSchema, c.want)
			if c.name != "older" {
				refused(t, Migrate(t.Context(), path), quota.ReasonSchema, c.want)
			}
		})
	}
}

func TestMigrateTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for range 2 {
		if err := Migrate(t.Context(), path); err != nil {
			t.Fatalf("Migrate = %v", err)
		}
	}
	open(t, options(path))
}

func TestAFullStoreLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	o := options(path)
	o.MaxPages = 300
	s := open(t, o)
	register(t, s)
	var kept int64
	var err error
	for err == nil {
		if err = appendBatch(t, s, kept+1, records(uint64(kept*50)+1, 50)); err == nil {
			kept++
		}
	}
	refused(t, err, quota.ReasonStoreFull, path)
	if kept == 0 {
		t.Fatal("nothing fitted at all")
	}
	// Reads go on, and what was acknowledged is there; what was refused is not.
	if got := batches(t, s); int64(got) != kept {
		t.Errorf("there are %d batches, %d were acknowledged", got, kept)
	}
	w := <-s.Driver.(*driver).writing
	_, err = w.exec(`PRAGMA max_page_count = 400`)
	s.Driver.(*driver).writing <- w
	if err != nil {
		t.Fatal(err)
	}
	if err := appendBatch(t, s, kept+1, records(uint64(kept*50)+1, 50)); err != nil {
		t.Errorf("with room again: Append = %v", err)
	}
	if got := batches(t, s); int64(got) != kept+1 {
		t.Errorf("there are %d batches, want %d", got, kept+1)
	}
}

func TestATransactionThatFailsLeavesNothing(t *testing.T) {
	s := open(t, options(filepath.Join(t.TempDir(), "store.db")))
	insert := func(ctx context.Context, tx relational.Tx) {
		if _, err := tx.Exec(ctx, `INSERT INTO debts (payer_id, debt) VALUES ('acme', 1)`); err != nil {
			t.Errorf("insert = %v", err)
		}
	}
	failure := errors.New("no")
	if err := s.Write(t.Context(), func(tx relational.Tx) error { insert(t.Context(), tx); return failure }); !errors.Is(err, failure) {
		t.Errorf("Write = %v, want the closure's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Write(ctx, func(tx relational.Tx) error { insert(ctx, tx); cancel(); return nil })
	var e *quota.Error
	if !errors.As(err, &e) || e.Reason != quota.ReasonStoreUnavailable || !e.NotApplied {
		t.Errorf("Write of a caller that hung up = %v, want STORE_UNAVAILABLE and not applied", err)
	}
	func() {
		defer func() { _ = recover() }()
		_ = s.Write(t.Context(), func(tx relational.Tx) error { insert(t.Context(), tx); panic("no") })
	}()
	// The same insert succeeds each time, so none of the earlier ones stayed.
	err = s.Write(t.Context(), func(tx relational.Tx) error { insert(t.Context(), tx); return nil })
	if err != nil {
		t.Errorf("Write = %v", err)
	}
	err = s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO debts (payer_id, debt) VALUES ('acme', 1)`)
		return err
	})
	if !errors.Is(err, relational.ErrDuplicate) {
		t.Errorf("the second insert = %v, want ErrDuplicate", err)
	}
}

func TestAClosedStoreRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(t.Context(), options(path))
	if err != nil {
		t.Fatalf("Open = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatalf("Close = %v", err)
	}
	refused(t, s.Fence(t.Context(), testLane), quota.ReasonStoreUnavailable, path)
	_, err = s.NextClose(t.Context(), "acme")
	if !errors.Is(err, quota.ReasonStoreUnavailable) {
		t.Errorf("NextClose = %v, want STORE_UNAVAILABLE", err)
	}
}

func benchmarkAppend(b *testing.B, n int) {
	s := open(b, options(filepath.Join(b.TempDir(), "store.db")))
	register(b, s)
	var no int64
	b.ReportAllocs()
	for b.Loop() {
		rs := records(uint64(no)*uint64(n)+1, n)
		no++
		if err := appendBatch(b, s, no, rs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend1(b *testing.B)   { benchmarkAppend(b, 1) }
func BenchmarkAppend256(b *testing.B) { benchmarkAppend(b, 256) }

func TestBackupBesideTheWriter(t *testing.T) {
	folder := t.TempDir()
	path, copied := filepath.Join(folder, "store.db"), filepath.Join(folder, "copy.db")
	w := open(t, options(path))
	register(t, w)
	if err := appendBatch(t, w, 1, records(1, 1)); err != nil {
		t.Fatalf("Append = %v", err)
	}
	if err := Backup(t.Context(), path, copied); err != nil {
		t.Fatalf("Backup = %v", err)
	}
	if err := appendBatch(t, w, 2, records(2, 1)); err != nil {
		t.Fatalf("Append behind the backup = %v", err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy: %v, %v", info.Mode(), err)
	}
	if got := batches(t, open(t, options(copied))); got != 1 {
		t.Errorf("the copy has %d batches, want 1", got)
	}
	refused(t, Backup(t.Context(), path, copied), quota.ReasonRequestInvalid, copied)
	if got := batches(t, open(t, Options{Path: copied, ReadOnly: true})); got != 1 {
		t.Errorf("behind a refused backup the copy has %d batches", got)
	}
	refused(t, Backup(t.Context(), filepath.Join(folder, "none.db"), filepath.Join(folder, "none.copy")), quota.ReasonStoreUnavailable, "none.db")
	if _, err := os.Stat(filepath.Join(folder, "none.copy")); !os.IsNotExist(err) {
		t.Errorf("a backup of nothing left a file: %v", err)
	}
}

// TestNothingIsSettledBehindTheWatermark is R16: once entries of reservations that ended before some
// time may be gone, no token of theirs is settled again, for nobody could tell that it had been.
func TestNothingIsSettledBehindTheWatermark(t *testing.T) {
	s := open(t, options(filepath.Join(t.TempDir(), "store.db")))
	register(t, s)
	rs := records(1, 2)
	rs[1].ExpiresAt = rs[0].ExpiresAt - 1
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), "UPDATE lanes SET gc_before = $1 WHERE lane_id = $2", rs[0].ExpiresAt, int64(testLane))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	fates, _, err := s.Settle(t.Context(), testGuest, 1, rs)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []quota.Verdict{quota.VerdictApplied, quota.VerdictTooOld} {
		if fates[i].Verdict != want {
			t.Errorf("of record %d the verdict is %d, want %d", i, fates[i].Verdict, want)
		}
	}
}
