package relational

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"

	"github.com/purser-io/purser/quota"
)

// Events are ordered by settling time, then by key, which is a total order that no later
// projection changes for what stands behind a cursor. With an account there is an index.
const (
	accountEventsSQL = `SELECT lane_id, sequence, phase, account_id, payer_id, principal, feature, labels, price_version,
       usage, charged, covered, uncovered, grants, outcome, reserve_time, settle_time, nonce
FROM usage_events
WHERE account_id = $1 AND ($2 = '' OR feature = $2) AND settle_time >= $3 AND settle_time < $4
  AND (settle_time, lane_id, sequence, phase) > ($5, $6, $7, $8)
ORDER BY settle_time, lane_id, sequence, phase LIMIT $9`

	allEventsSQL = `SELECT lane_id, sequence, phase, account_id, payer_id, principal, feature, labels, price_version,
       usage, charged, covered, uncovered, grants, outcome, reserve_time, settle_time, nonce
FROM usage_events
WHERE ($1 = '' OR feature = $1) AND settle_time >= $2 AND settle_time < $3
  AND (settle_time, lane_id, sequence, phase) > ($4, $5, $6, $7)
ORDER BY settle_time, lane_id, sequence, phase LIMIT $8`

	rollupsSQL = `SELECT account_id, hour, feature, meter, quantity, micros, events
FROM rollups
WHERE ($1 = '' OR account_id = $1) AND ($2 = '' OR feature = $2) AND hour >= $3 AND hour < $4
  AND (account_id, hour, feature, meter) > ($5, $6, $7, $8)
ORDER BY account_id, hour, feature, meter LIMIT $9`
)

// eventCursor is where a page of events ends. Exported fields only make it JSON.
type eventCursor struct {
	Time     int64 `json:"t"`
	Lane     int64 `json:"l"`
	Sequence int64 `json:"s"`
	Phase    int64 `json:"p"`
}

// rollupCursor is where a page of rollups ends.
type rollupCursor struct {
	Account string `json:"a"`
	Hour    int64  `json:"h"`
	Feature string `json:"f"`
	Meter   string `json:"m"`
}

// UsageEvents see [quota.UsageStore].
func (s *Store) UsageEvents(ctx context.Context, q quota.UsageQuery, p quota.Page) (events []quota.UsageEvent, next string, err error) {
	limit, err := limitOf(p)
	if err != nil {
		return nil, "", err
	}
	after := eventCursor{Time: math.MinInt64}
	if err := decodeCursor(p.After, &after); err != nil {
		return nil, "", err
	}
	sql := allEventsSQL
	args := []any{q.Feature, q.From, untilOf(q), after.Time, after.Lane, after.Sequence, after.Phase, limit}
	if q.Account != "" {
		sql, args = accountEventsSQL, append([]any{q.Account}, args...)
	}
	err = s.read(ctx, "read usage events", func(tx Tx) error {
		events = nil
		return each(ctx, tx, sql, args, func(r Rows) error {
			e, err := scanUsageEvent(r)
			events = append(events, e)
			return err
		})
	})
	if err != nil || len(events) < p.Size {
		return events, "", err
	}
	last := &events[len(events)-1]
	next, err = encodeCursor(eventCursor{Time: last.SettledAt, Lane: int64(last.Key.Lane),
		Sequence: int64(last.Key.Sequence), Phase: int64(last.Key.Phase)})
	return events, next, err
}

// Rollups see [quota.UsageStore].
func (s *Store) Rollups(ctx context.Context, q quota.UsageQuery, p quota.Page) (rollups []quota.Rollup, next string, err error) {
	limit, err := limitOf(p)
	if err != nil {
		return nil, "", err
	}
	after := rollupCursor{Hour: math.MinInt64}
	if err := decodeCursor(p.After, &after); err != nil {
		return nil, "", err
	}
	args := []any{q.Account, q.Feature, q.From, untilOf(q), after.Account, after.Hour, after.Feature, after.Meter, limit}
	err = s.read(ctx, "read rollups", func(tx Tx) error {
		rollups = nil
		return each(ctx, tx, rollupsSQL, args, func(r Rows) error {
			var u quota.Rollup
			err := r.Scan(&u.Account, &u.Hour, &u.Feature, &u.Meter, &u.Quantity, &u.Micros, &u.Events)
			rollups = append(rollups, u)
			return err
		})
	})
	if err != nil || len(rollups) < p.Size {
		return rollups, "", err
	}
	last := &rollups[len(rollups)-1]
	next, err = encodeCursor(rollupCursor{Account: last.Account, Hour: last.Hour, Feature: last.Feature, Meter: last.Meter})
	return rollups, next, err
}

// untilOf is the end of a query's time; none means no end.
func untilOf(q quota.UsageQuery) int64 {
	if q.To == 0 {
		return quota.Never
	}
	return q.To
}

// A cursor is opaque to callers: its form may change.
func encodeCursor(c any) (string, error) {
	b, err := json.Marshal(c)
	return base64.RawURLEncoding.EncodeToString(b), err
}

// decodeCursor reads a cursor into c, which stays as it is for an empty one.
func decodeCursor(s string, c any) error {
	if s == "" {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, c)
	}
	if err != nil {
		return quota.Wrap(quota.ReasonRequestInvalid, "the page token is not one of ours: start from the first page", err)
	}
	return nil
}
