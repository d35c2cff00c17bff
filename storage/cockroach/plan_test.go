package cockroach

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestFlushPlan reads the plan of a flush. CockroachDB commits it together with its rows, which
// all lie in one range; without that, "auto commit", each flush costs another round of
// consensus. PostgreSQL asks once whether the lane is open, not for each row.
func TestFlushPlan(t *testing.T) {
	wants := map[string]string{"postgresql": "One-Time Filter", "cockroach": "auto commit"}
	urls := databases(t)
	if urls["cockroach"] == "" {
		t.Log("TEST_COCKROACH_URL is not set: no plan of CockroachDB was read")
	}
	for name, u := range urls {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{URL: u})
			addLane(t, s, 7)
			config, err := pgx.ParseConfig(u)
			if err != nil {
				t.Fatal(err)
			}
			config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // what is explained has no parameters
			conn, err := pgx.ConnectConfig(t.Context(), config)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			lines, err := conn.Query(t.Context(), "EXPLAIN "+appendSQL, appendArgs(7, rows(7, 1, 256, []byte{1}))...)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := pgx.CollectRows(lines, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			if text := strings.Join(plan, "\n"); !strings.Contains(text, wants[name]) {
				t.Errorf("the plan of a flush says nothing of %q:\n%s", wants[name], text)
			}
		})
	}
}
