package cockroach

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/purser-io/purser/internal/testdb"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/storage/relational"
)

func with(u, parameter string) string { return u + "&" + parameter }

// R3: under anything weaker than SERIALIZABLE the fence is a write skew.
func TestOpenRefusesIsolation(t *testing.T) {
	u := testdb.PostgreSQL(t)
	if err := Migrate(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	for _, parameter := range []string{
		"default_transaction_isolation=read%20committed",
		"default_transaction_isolation=repeatable%20read",
	} {
		_, err := Open(t.Context(), Options{URL: with(u, parameter)})
		if !errors.Is(err, quota.ReasonStoreUnavailable) || !strings.Contains(err.Error(), "only at serializable") {
			t.Errorf("%s: got %v; want a refusal", parameter, err)
		}
	}
}

// A pool's connection, made at any later time, is checked like the first one.
func TestEveryConnectionIsChecked(t *testing.T) {
	o := Options{URL: with(testdb.PostgreSQL(t), "default_transaction_isolation=read%20committed")}
	config, err := o.poolConfig()
	if err != nil {
		t.Fatal(err)
	}
	d := &driver{limit: 10 * time.Second}
	err = d.connect(t.Context(), config, minConns)
	if closing := d.Close(); closing != nil {
		t.Fatal(closing)
	}
	if !errors.Is(err, quota.ReasonStoreUnavailable) || !strings.Contains(err.Error(), "only at serializable") {
		t.Errorf("a weak connection: got %v; want a refusal", err)
	}
}

func TestOpenUnreachable(t *testing.T) {
	for _, u := range []string{
		"postgresql://me:secret@127.0.0.1:1/purser?sslmode=disable",
		"postgresql://me:secret@/purser?host=/nowhere/at/all",
	} {
		_, err := Open(t.Context(), Options{URL: u})
		var e *quota.Error
		if !errors.As(err, &e) || e.Reason != quota.ReasonStoreUnavailable || !e.NotApplied {
			t.Errorf("%s: got %v; want %s", u, err, quota.ReasonStoreUnavailable)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
	_, err := Open(t.Context(), Options{URL: "postgresql://me:secret@h:port/d"})
	if !errors.Is(err, quota.ReasonRequestInvalid) || strings.Contains(err.Error(), "secret") {
		t.Errorf("a malformed URL: got %v; want %s without the password", err, quota.ReasonRequestInvalid)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"postgresql://u:secret@h/d":                  "postgresql://u:xxxxx@h/d",
		"postgresql://u@h/d?password=secret":         "postgresql://u@h/d",
		"postgresql://h/d?sslpassword=x&sslmode=off": "postgresql://h/d?sslmode=off",
		"host=h password=secret":                     "URL",
	} {
		if got := redact(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestVersionsThatAreTooOld(t *testing.T) {
	for number, ok := range map[string]bool{"130014": false, "140000": true, "150018": true, "180001": true, "": false, "x": false} {
		if err := checkPostgreSQL(number); (err == nil) != ok {
			t.Errorf("PostgreSQL %q: got %v, want accepted = %t", number, err, ok)
		}
	}
	for version, ok := range map[string]bool{
		"CockroachDB CCL v20.2.19 (x86_64-unknown-linux-gnu, built 2022)": false,
		"CockroachDB CCL v21.1.0 (x86_64-unknown-linux-gnu)":              true,
		"CockroachDB CCL v21.0.9 (x86_64)":                                false,
		"CockroachDB OSS v26.2.1-rc.1 (aarch64)":                          true,
		"CockroachDB CCL unknown":                                         true,
	} {
		if err := checkCockroach(version); (err == nil) != ok {
			t.Errorf("%s: got %v, want accepted = %t", version, err, ok)
		}
	}
}

func TestSessionsHaveTimeouts(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t), StatementTimeout: 1234 * time.Millisecond})
	for setting, want := range map[string]int64{"statement_timeout": 1234, "idle_in_transaction_session_timeout": 10000} {
		if got := count(t, s, "SELECT setting::INT8 FROM pg_settings WHERE name = $1", setting); got != want {
			t.Errorf("%s: got %d ms, want %d", setting, got, want)
		}
	}
}

func TestSessionsPlanForSmallTables(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t)})
	for _, setting := range []string{"enable_seqscan", "jit"} {
		if n := count(t, s, "SELECT count(*) FROM pg_settings WHERE name = $1 AND setting = 'off'", setting); n != 1 {
			t.Errorf("%s is not off", setting)
		}
	}
}

// Migrations are not under the limit of statements: a table may be large.
func TestMigrationsHaveNoTimeout(t *testing.T) {
	url := with(testdb.PostgreSQL(t), "statement_timeout=1") // an instant: no table is made in it
	if err := Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
}

// A statement over its time is a definite failure inside a transaction.
func TestStatementTimeout(t *testing.T) {
	s := open(t, Options{URL: with(testdb.PostgreSQL(t), "statement_timeout=50")})
	err := s.Write(t.Context(), func(tx relational.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT pg_sleep(60)")
		return err
	})
	wantNotApplied(t, err, quota.ReasonStoreUnavailable)
}

func TestCallerHangsUp(t *testing.T) {
	s := open(t, Options{URL: testdb.PostgreSQL(t)})
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Write(ctx, func(tx relational.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO debts (payer_id, debt) VALUES ('a', 1)")
		cancel()
		return err
	})
	wantNotApplied(t, err, quota.ReasonStoreUnavailable)
	if n := count(t, s, "SELECT count(*) FROM debts"); n != 0 {
		t.Errorf("%d rows were written", n)
	}
}

func wantNotApplied(t *testing.T, err error, reason quota.Reason) {
	t.Helper()
	var e *quota.Error
	if !errors.As(err, &e) || e.Reason != reason || !e.NotApplied {
		t.Fatalf("got %v; want %s, not applied", err, reason)
	}
}
