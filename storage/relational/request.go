package relational

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/purser-io/purser/quota"
)

// requestTries bounds how often a repeatable request runs: twice after an unknown outcome or
// a race of two first uses, so that a second accident is still mended.
const requestTries = 3

// errValidated rolls back a transaction that was only to be tried.
var errValidated = errors.New("validated only")

// errRaced says that another transaction used the same request id for the first time.
var errRaced = errors.New("request id used at the same time")

// admin runs an admin write in one transaction. The same request again is answered with
// what was kept of the first, an unknown outcome included: the request's row is written
// before anything else, so two runs of one request never both apply.
func admin[T any](ctx context.Context, s *Store, m quota.Mutation, fn func(*adminTx) (T, error)) (T, error) {
	var result T
	var err error
	for range requestTries {
		err = s.Write(ctx, func(tx Tx) (err error) {
			result, err = runAdmin(ctx, tx, m, fn)
			return err
		})
		again := errors.Is(err, errRaced) || m.RequestID != "" && errors.Is(err, quota.ReasonOutcomeUnknown)
		if !again {
			break
		}
	}
	switch {
	case errors.Is(err, errValidated):
		return result, nil
	case err != nil:
		var none T
		return none, err
	}
	return result, nil
}

func runAdmin[T any](ctx context.Context, tx Tx, m quota.Mutation, fn func(*adminTx) (T, error)) (result T, err error) {
	if m.RequestID != "" {
		done, err := claimRequest(ctx, tx, m, &result)
		if done || err != nil {
			return result, err
		}
	}
	if result, err = fn(&adminTx{Tx: tx, ctx: ctx, now: m.Now}); err != nil {
		return result, err
	}
	if m.RequestID != "" {
		if err := keepResult(ctx, tx, m, result); err != nil {
			return result, err
		}
	}
	if m.ValidateOnly {
		return result, errValidated
	}
	return result, nil
}

const (
	findRequestSQL = `SELECT digest, result FROM requests WHERE principal = $1 AND request_id = $2`

	claimRequestSQL = `INSERT INTO requests (principal, request_id, digest, result, create_time)
VALUES ($1, $2, $3, '', $4)`

	keepResultSQL = `UPDATE requests SET result = $3 WHERE principal = $1 AND request_id = $2`
)

// claimRequest reads the kept result of an earlier request with this id, or takes the id.
func claimRequest(ctx context.Context, tx Tx, m quota.Mutation, result any) (done bool, err error) {
	var digest []byte
	var kept string
	found, err := queryRow(ctx, tx, findRequestSQL, []any{m.Principal, m.RequestID}, &digest, &kept)
	switch {
	case err != nil:
		return false, fmt.Errorf("find request: %w", err)
	case !found:
		_, err := tx.Exec(ctx, claimRequestSQL, m.Principal, m.RequestID, m.Digest[:], m.Now)
		if errors.Is(err, ErrDuplicate) {
			return false, fmt.Errorf("%w: %w", errRaced, err)
		}
		return false, err
	case !bytes.Equal(digest, m.Digest[:]):
		return false, quota.Errorf(quota.ReasonIdempotencyKeyReused,
			"this request_id was used for a request with other content: choose a new one")
	}
	if err := json.Unmarshal([]byte(kept), result); err != nil {
		return false, fmt.Errorf("read kept result: %w", err)
	}
	return true, nil
}

func keepResult(ctx context.Context, tx Tx, m quota.Mutation, result any) error {
	kept, err := json.Marshal(result)
	if err != nil {
		return fmt.Errorf("keep result: %w", err)
	}
	_, err = tx.Exec(ctx, keepResultSQL, m.Principal, m.RequestID, string(kept))
	return err
}

// adminTx is the transaction of one admin write.
type adminTx struct {
	Tx
	ctx context.Context
	now int64
}

// exec runs a statement whose effect is not in doubt.
func (a *adminTx) exec(sql string, args ...any) error {
	_, err := a.Exec(a.ctx, sql, args...)
	return err
}

// insert runs an INSERT of a resource that must be new.
func (a *adminTx) insert(what, id, sql string, args ...any) error {
	err := a.exec(sql, args...)
	if errors.Is(err, ErrDuplicate) {
		return refuse(quota.ReasonResourceExists, what+" "+quoted(id)+" exists already", strings.ReplaceAll(what, " ", "_"), id)
	}
	return err
}

// change bumps the revision for a resource and returns it (R32).
func (a *adminTx) change(kind quota.ChangeKind, id string) (int64, error) {
	return bumpRevision(a.ctx, a.Tx, kind, id)
}

// checkETag compares the revision a caller saw with the one in force; 0 is not checked.
func checkETag(etag, current int64) error {
	if etag == 0 || etag == current {
		return nil
	}
	return refuse(quota.ReasonETagMismatch,
		fmt.Sprintf("it was changed since you read it: its etag is %d now; read it again", current), "etag", strconv.FormatInt(current, 10))
}

// refuse is a definite answer with the ids it is about, in pairs of key and value.
func refuse(reason quota.Reason, message string, about ...string) error {
	meta := make(map[string]string, len(about)/2)
	for i := 0; i+1 < len(about); i += 2 {
		meta[about[i]] = about[i+1]
	}
	return &quota.Error{Reason: reason, Message: message, Meta: meta, NotApplied: true}
}

// quoted shows an id in a message, cut if it is absurdly long.
func quoted(id string) string { return fmt.Sprintf("%.80q", id) }

// asJSON is how lists and maps are stored. Values here always have a JSON form.
func asJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// limitOf is a page's size; one that bounds nothing would read everything.
func limitOf(p quota.Page) (int64, error) {
	if p.Size <= 0 {
		return 0, quota.Errorf(quota.ReasonRequestInvalid, "the page size must be at least 1")
	}
	return int64(p.Size), nil
}
