package relational

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/purser-io/purser/quota"
)

const (
	insertIncarnation = `INSERT INTO incarnations (id, node, address, state, lease_sequence, lease_nonce, issue_until, hold_until,
       close_after, acked_revision, start_time, end_time)
VALUES ($1, $2, $3, 1, 1, 0, $4, $5, 0, 0, $6, 0)`
	insertLane = `INSERT INTO lanes (lane_id, incarnation_id, guest, state, gc_before, seal_time, create_time, close_time)
VALUES ($1, $2, $3, 1, 0, 0, $4, 0)`
	insertCursor = `INSERT INTO cursors (lane_id, batch_no, finished) VALUES ($1, 0, 0)`
	selectLease  = `SELECT state, lease_sequence, lease_nonce, issue_until, hold_until FROM incarnations WHERE id = $1`
	updateLease  = `UPDATE incarnations SET lease_sequence = $2, lease_nonce = $3, issue_until = $4, hold_until = $5 WHERE id = $1`
	updateAcked  = `UPDATE incarnations SET acked_revision = $2 WHERE id = $1 AND acked_revision < $2`
	updateDrain  = `UPDATE incarnations SET state = 3, hold_until = $2, end_time = $3 WHERE id = $1 AND state = 1`

	selectRevision = `SELECT value FROM revision WHERE id = 1`
	selectLive     = `SELECT id, acked_revision, wishes FROM incarnations WHERE state = 1 AND issue_until > $1`
	selectChanges  = `SELECT revision, kind, id FROM changes WHERE revision > $1 ORDER BY revision, kind, id LIMIT $2`
	selectNotes    = `SELECT k1, k2, body FROM journal WHERE lane_id = $1 AND tag = 3 ORDER BY k1, k2 LIMIT $2`
	deleteNote     = `DELETE FROM journal WHERE lane_id = $1 AND tag = 3 AND k1 = $2 AND k2 = $3`
	updateWishes   = `UPDATE incarnations SET wishes = $2 WHERE id = $1 AND state = 1`
	countUnacked   = `SELECT COUNT(*) FROM incarnations WHERE state = 1 AND issue_until > $1 AND acked_revision < $2`
)

// Bounds of one poll's answer.
const (
	maxChanges = 1000
	maxNotes   = 256
)

// leaseRow is what the compare-and-set of a lease looks at.
type leaseRow struct {
	state                 int16
	sequence, nonce       int64
	issueUntil, holdUntil int64
}

func readLease(ctx context.Context, tx Tx, incarnation string) (l leaseRow, found bool, err error) {
	found, err = queryRow(ctx, tx, selectLease+tx.ForUpdate(), []any{incarnation},
		&l.state, &l.sequence, &l.nonce, &l.issueUntil, &l.holdUntil)
	if err != nil {
		err = fmt.Errorf("read lease: %w", err)
	}
	return l, found, err
}

// Register see [quota.LeaseStore].
func (s *Store) Register(ctx context.Context, r quota.Registration) (quota.LeaseGrant, error) {
	var grant quota.LeaseGrant
	err := s.write(ctx, "register", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		row, found, err := readLease(ctx, tx, r.Incarnation)
		switch {
		case err != nil:
			return err
		case found:
			// Sent again: the caller counts its lease from this sending (R6).
			grant, err = extend(ctx, tx, r.Incarnation, row, now, int64(r.Lease), int64(r.Hold))
			return err
		}
		grant = quota.LeaseGrant{Sequence: 1, Now: now, IssueUntil: now + int64(r.Lease)}
		return register(ctx, tx, &r, grant)
	})
	return grant, err
}

func register(ctx context.Context, tx Tx, r *quota.Registration, g quota.LeaseGrant) error {
	_, err := tx.Exec(ctx, insertIncarnation, r.Incarnation, r.Node, r.Address, g.IssueUntil, g.IssueUntil+int64(r.Hold), g.Now)
	if err != nil {
		return fmt.Errorf("insert incarnation: %w", err)
	}
	lanes := [][]any{{int64(r.Guest), r.Incarnation, flag(true), g.Now}}
	cursors := [][]any{{int64(r.Guest)}}
	for _, lane := range r.Lanes {
		lanes = append(lanes, []any{int64(lane), r.Incarnation, flag(false), g.Now})
		cursors = append(cursors, []any{int64(lane)})
	}
	if err := bulk(ctx, tx, insertLane, lanes); err != nil {
		return fmt.Errorf("insert lanes: %w", err)
	}
	if err := bulk(ctx, tx, insertCursor, cursors); err != nil {
		return fmt.Errorf("insert cursors: %w", err)
	}
	return nil
}

// extend raises a lease that is still LIVE, and never lowers it: the deadlines of a renewal
// that overtook this one stand (R6, R31).
func extend(ctx context.Context, tx Tx, incarnation string, l leaseRow, now, lease, hold int64) (quota.LeaseGrant, error) {
	if l.state != int16(quota.IncarnationLive) {
		return quota.LeaseGrant{}, fenced("the incarnation is not LIVE any more")
	}
	g := quota.LeaseGrant{Sequence: l.sequence, Now: now, IssueUntil: max(l.issueUntil, now+lease)}
	_, err := tx.Exec(ctx, updateLease, incarnation, l.sequence, l.nonce, g.IssueUntil, max(l.holdUntil, g.IssueUntil+hold))
	if err != nil {
		return quota.LeaseGrant{}, fmt.Errorf("extend lease: %w", err)
	}
	return g, nil
}

// Renew see [quota.LeaseStore].
func (s *Store) Renew(ctx context.Context, r quota.Renewal) (quota.LeaseGrant, error) {
	var grant quota.LeaseGrant
	err := s.write(ctx, "renew", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		row, found, err := readLease(ctx, tx, r.Incarnation)
		if err != nil {
			return err
		}
		again := row.sequence == r.Sequence+1 && row.nonce == r.Nonce
		if !found || row.sequence != r.Sequence && !again {
			return fenced("the lease was renewed by another holder of this incarnation") // R8
		}
		row.sequence, row.nonce = r.Sequence+1, r.Nonce
		grant, err = extend(ctx, tx, r.Incarnation, row, now, int64(r.Lease), int64(r.Hold))
		return err
	})
	return grant, err
}

// Poll see [quota.LeaseStore]. It writes only when there is something to write.
func (s *Store) Poll(ctx context.Context, p quota.PollRequest) (quota.PollResult, error) {
	wishes, err := encodeWishes(p.Wishes)
	if err != nil {
		return quota.PollResult{}, err
	}
	var result quota.PollResult
	var stored liveRow
	run := s.read
	if len(p.Forget) > 0 {
		run = s.write
	}
	err = run(ctx, "poll", func(tx Tx) (err error) {
		if err := forget(ctx, tx, p.Forget); err != nil {
			return err
		}
		// A row that is not there has nothing to be told.
		stored = liveRow{acked: p.Acked, wishes: wishes}
		result, err = poll(ctx, tx, &p, &stored)
		return err
	})
	if err != nil || stored.acked >= p.Acked && stored.wishes == wishes {
		return result, err
	}
	err = s.write(ctx, "poll: tell", func(tx Tx) error {
		if stored.wishes != wishes {
			if _, err := tx.Exec(ctx, updateWishes, p.Incarnation, wishes); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, updateAcked, p.Incarnation, p.Acked)
		return err
	})
	return result, err
}

func forget(ctx context.Context, tx Tx, notes []quota.Note) error {
	rows := make([][]any, len(notes))
	for i, n := range notes {
		rows[i] = []any{int64(n.Lane), int64(n.Guest), n.BatchNo}
	}
	return bulk(ctx, tx, deleteNote, rows)
}

func poll(ctx context.Context, tx Tx, p *quota.PollRequest, own *liveRow) (r quota.PollResult, err error) {
	if r.Now, err = tx.Now(ctx); err != nil {
		return r, err
	}
	if _, err := queryRow(ctx, tx, selectRevision, nil, &r.Revision); err != nil {
		return r, fmt.Errorf("read revision: %w", err)
	}
	if err := readLive(ctx, tx, p.Incarnation, own, &r); err != nil {
		return r, fmt.Errorf("read nodes: %w", err)
	}
	if r.Revision > p.Since {
		if r.Changes, err = readChanges(ctx, tx, p.Since); err != nil {
			return r, fmt.Errorf("read changes: %w", err)
		}
	}
	if r.Truncated = len(r.Changes) > maxChanges; r.Truncated {
		r.Changes = r.Changes[:maxChanges]
	}
	r.Notes, err = readNotes(ctx, tx, p.Lanes)
	return r, err
}

// liveRow is what a poll may have to write of the node's own row.
type liveRow struct {
	acked  int64
	wishes string
}

// readLive counts the live nodes, reads what the others wish for, and the node's own row.
func readLive(ctx context.Context, tx Tx, self string, own *liveRow, r *quota.PollResult) error {
	return each(ctx, tx, selectLive, []any{r.Now}, func(rows Rows) error {
		var id string
		var row liveRow
		if err := rows.Scan(&id, &row.acked, &row.wishes); err != nil {
			return err
		}
		r.LiveNodes++
		if id == self {
			*own = row
			return nil
		}
		r.Wishes = append(r.Wishes, decodeWishes(row.wishes)...)
		return nil
	})
}

// encodeWishes is how a row has wishes: "" if there are none, else a JSON list of pairs of
// payer and pot.
func encodeWishes(wishes []quota.PotRef) (string, error) {
	if len(wishes) > quota.MaxWishes {
		return "", violated("poll: %d wishes", len(wishes))
	}
	if len(wishes) == 0 {
		return "", nil
	}
	pairs := make([][2]string, len(wishes))
	for i, w := range wishes {
		pairs[i] = [2]string{w.Payer, w.Pot}
	}
	b, err := json.Marshal(pairs)
	return string(b), err
}

// decodeWishes reads what another node wrote. What it cannot read, of a version to come, it
// leaves out: a wish that is not heard costs time, a poll that fails stops the node (R32).
func decodeWishes(s string) (wishes []quota.PotRef) {
	var pairs [][2]string
	if s == "" || json.Unmarshal([]byte(s), &pairs) != nil {
		return nil
	}
	for _, pair := range pairs[:min(len(pairs), quota.MaxWishes)] {
		wishes = append(wishes, quota.PotRef{Payer: pair[0], Pot: pair[1]})
	}
	return wishes
}

// readChanges reads one change more than a poll returns, to know whether there are more.
func readChanges(ctx context.Context, tx Tx, since int64) (changes []quota.Change, err error) {
	err = each(ctx, tx, selectChanges, []any{since, int64(maxChanges + 1)}, func(rows Rows) error {
		var c quota.Change
		var kind int16
		err := rows.Scan(&c.Revision, &kind, &c.ID)
		c.Kind = quota.ChangeKind(kind)
		changes = append(changes, c)
		return err
	})
	return changes, err
}

func readNotes(ctx context.Context, tx Tx, lanes []quota.LaneID) (notes []quota.Note, err error) {
	for _, lane := range lanes {
		if len(notes) >= maxNotes {
			break
		}
		err := each(ctx, tx, selectNotes, []any{int64(lane), int64(maxNotes - len(notes))}, func(rows Rows) error {
			var guest, no int64
			var body []byte
			if err := rows.Scan(&guest, &no, &body); err != nil {
				return err
			}
			n, err := quota.DecodeNote(lane, quota.LaneID(guest), no, body)
			notes = append(notes, n)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read notes: %w", err)
		}
	}
	return notes, nil
}

// Drain see [quota.LeaseStore].
func (s *Store) Drain(ctx context.Context, incarnation string, holdUntil int64) error {
	return s.write(ctx, "drain", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, updateDrain, incarnation, holdUntil, now)
		if err != nil || n > 0 {
			return err
		}
		row, found, err := readLease(ctx, tx, incarnation)
		if err != nil || found && row.state == int16(quota.IncarnationDrained) {
			return err // sent again
		}
		return fenced("the incarnation is not LIVE any more")
	})
}

// Unacked see [quota.LeaseStore].
func (s *Store) Unacked(ctx context.Context, revision int64) (count int, err error) {
	err = s.read(ctx, "count unacknowledged", func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		_, err = queryRow(ctx, tx, countUnacked, []any{now, revision}, &count)
		return err
	})
	return count, err
}
