package relational

import (
	"context"
	"fmt"
	"strings"

	"github.com/purser-io/purser/quota"
)

const (
	selectLeased = `SELECT node FROM incarnations WHERE state = 1 AND issue_until > $1 ORDER BY node`
	buryAll      = `UPDATE incarnations SET state = 2, end_time = $1 WHERE state = 1`
	closeSoon    = `UPDATE incarnations SET close_after = 1 WHERE state = 2 AND close_after <> 1`
	fenceOpen    = `UPDATE lanes SET state = 2 WHERE state = 1`
)

// FenceAll see [quota.RestoreStore].
func (s *Store) FenceAll(ctx context.Context, force bool) (done quota.Fenced, err error) {
	err = s.write(ctx, "fence all", func(tx Tx) error {
		done = quota.Fenced{}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if !force {
			if err := refuseLeased(ctx, tx, now); err != nil {
				return err
			}
		}
		buried, err := tx.Exec(ctx, buryAll, now)
		if err != nil {
			return fmt.Errorf("bury incarnations: %w", err)
		}
		if _, err := tx.Exec(ctx, closeSoon); err != nil {
			return fmt.Errorf("let lanes close: %w", err)
		}
		fenced, err := tx.Exec(ctx, fenceOpen)
		if err != nil {
			return fmt.Errorf("fence lanes: %w", err)
		}
		done = quota.Fenced{Incarnations: int(buried), Lanes: int(fenced)}
		return nil
	})
	return done, err
}

// refuseLeased names the nodes that may still issue.
func refuseLeased(ctx context.Context, tx Tx, now int64) error {
	var nodes []string
	err := each(ctx, tx, selectLeased, []any{now}, func(rows Rows) error {
		var node string
		err := rows.Scan(&node)
		nodes = append(nodes, node)
		return err
	})
	if err != nil || len(nodes) == 0 {
		return err
	}
	return &quota.Error{Reason: quota.ReasonResourceInUse, NotApplied: true,
		Message: "the lease of " + strings.Join(nodes, ", ") + " runs: stop every node first, and wait for its lease to end if it died"}
}
