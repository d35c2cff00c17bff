package cockroach

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/purser-io/purser/quota"
)

// Oldest versions the store runs on (design §6).
const (
	minPostgreSQL     = 140000 // server_version_num
	minCockroachMajor = 21
	minCockroachMinor = 1
)

// SQLSTATEs that are decided on. Text of errors is never read.
const (
	codeUniqueViolation      = "23505"
	codeSerializationFailure = "40001"
	codeStatementUnknown     = "40003" // statement_completion_unknown
	codeDeadlock             = "40P01"
	codeDiskFull             = "53100"
	codeReadOnly             = "25006" // the primary became a standby
	codeDuplicateTable       = "42P07"
)

// dialect is what the two databases do differently.
type dialect struct {
	cockroach bool
}

// detect finds out what conn is connected to, and refuses what is too old.
func detect(ctx context.Context, conn *pgx.Conn) (dialect, error) {
	var version string
	if err := conn.QueryRow(ctx, `SELECT version()`).Scan(&version); err != nil {
		return dialect{}, fmt.Errorf("ask for the version: %w", err)
	}
	if strings.HasPrefix(version, "CockroachDB") {
		return dialect{cockroach: true}, checkCockroach(version)
	}
	var number string
	if err := conn.QueryRow(ctx, `SHOW server_version_num`).Scan(&number); err != nil {
		return dialect{}, fmt.Errorf("ask for the version number: %w", err)
	}
	return dialect{}, checkPostgreSQL(number)
}

// checkPostgreSQL refuses a server_version_num that is too small.
func checkPostgreSQL(number string) error {
	n, err := strconv.Atoi(number)
	if err != nil || n < minPostgreSQL {
		return quota.Errorf(quota.ReasonStoreUnavailable, fmt.Sprintf(
			"the server is PostgreSQL with version number %q; Purser needs PostgreSQL %d or newer", number, minPostgreSQL/10000))
	}
	return nil
}

// checkCockroach refuses a version() that is too old. A version that has no number, as
// builds from source have, is let through.
func checkCockroach(version string) error {
	for _, field := range strings.Fields(version) {
		major, minor, ok := cockroachNumber(field)
		if !ok {
			continue
		}
		if major > minCockroachMajor || major == minCockroachMajor && minor >= minCockroachMinor {
			return nil
		}
		return quota.Errorf(quota.ReasonStoreUnavailable, fmt.Sprintf(
			"the server is CockroachDB %s; Purser needs CockroachDB v%d.%d or newer", field, minCockroachMajor, minCockroachMinor))
	}
	return nil
}

// cockroachNumber reads "v21.1.7" as 21, 1.
func cockroachNumber(field string) (major, minor int, ok bool) {
	rest, ok := strings.CutPrefix(field, "v")
	if !ok {
		return 0, 0, false
	}
	parts := strings.SplitN(rest, ".", 3)
	if len(parts) < 2 {
		return 0, 0, false
	}
	major, err := strconv.Atoi(parts[0])
	if err != nil {
		return 0, 0, false
	}
	minor, err = strconv.Atoi(parts[1])
	return major, minor, err == nil
}

// unhurried lets a long reader wait, on PostgreSQL, for a snapshot that needs no conflict
// detection: else every row it read could fail a writer's commit for as long as it runs.
// CockroachDB's readers do not fail writers, and it does not know the word.
func (d dialect) unhurried() pgx.TxDeferrableMode {
	if d.cockroach {
		return ""
	}
	return pgx.Deferrable
}

// restarts reports whether a transaction that met code did not commit and may run again. A
// deadlock is 40001 on CockroachDB, 40P01 on PostgreSQL.
func (d dialect) restarts(code string) bool {
	return code == codeSerializationFailure || !d.cockroach && code == codeDeadlock
}

// setup is run on each new connection. A process stopped in the middle of a transaction must
// not keep the others from its rows; CockroachDB pushes an abandoned transaction aside by
// itself, and 21.1 does not know every such setting.
func (d dialect) setup() []string {
	if d.cockroach {
		return nil
	}
	return []string{
		`SET idle_in_transaction_session_timeout = 10000`,
		// A sequential scan, which the planner prefers on small tables, locks the whole table for
		// PostgreSQL's conflict detection: every two draws at once would then be a 40001.
		`SET enable_seqscan = off`,
		// A scan that is taken all the same, for want of an index, then counts as so dear that the
		// server compiles its plan to machine code: some 90 ms for a table of one row, each time.
		`SET jit = off`,
	}
}

// racedDDL reports whether code is what the loser of two concurrent migrations may see: the
// same table, type or version row made by the other in the same instant. The migrations
// are idempotent, so it tries again. XX000 is PostgreSQL's "tuple concurrently updated".
func (d dialect) racedDDL(code string) bool {
	return d.restarts(code) || code == codeUniqueViolation || code == codeDuplicateTable ||
		!d.cockroach && (code == "XX000" || code == "42710")
}
