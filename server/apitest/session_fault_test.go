package apitest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/token"
	"github.com/purser-io/purser/storage/cockroach"
)

// job is one piece of work of the script below, as its client keeps it: what it was told, and
// what it has to ask again after a stream broke.
type job struct {
	key     string
	id      string
	token   []byte
	release bool
	settled bool
	charged int64
}

// script works off jobs over sessions: some are in flight as reservations while others settle.
type script struct {
	t    *testing.T
	jobs []*job
}

// next is what a client sends next: settlements of what it holds, or reservations.
func (c *script) next() (ops []*purserv1.Operation, of []*job) {
	for _, j := range c.jobs {
		if len(ops) == 3 {
			break
		}
		switch {
		case j.settled:
			continue
		case j.token == nil:
			r := work("acme", "large", 1000)
			r.IdempotencyKey = j.key
			ops = append(ops, op(r))
		case j.release:
			ops = append(ops, op(&purserv1.ReleaseRequest{Token: j.token}))
		default:
			ops = append(ops, op(used(j.token, 1000, 500)))
		}
		of = append(of, j)
	}
	return ops, of
}

// heard takes in an answer.
func (j *job) heard(r *purserv1.OperationResult) error {
	switch {
	case r.GetCheckAndReserve().GetReservation() != nil && j.token == nil:
		v := r.GetCheckAndReserve().GetReservation()
		j.token, j.id = v.GetToken(), v.GetReservationId()
	case r.GetCommit() != nil:
		j.settled, j.charged = true, r.GetCommit().GetChargedMicros()
	case r.GetRelease() != nil:
		j.settled = true
	default:
		return fmt.Errorf("job %s: %v", j.key, r)
	}
	return nil
}

// errCut is the script's own end of a stream.
var errCut = errors.New("cut")

// over runs the script over one stream, which breaks behind the given number of messages sent
// or received (negative: never). It is errCut if it came to that.
func (c *script) over(w *world, sends, receives int) error {
	ctx, cancel := context.WithTimeout(w.as(asGate), patience)
	defer cancel() // breaks the stream, with whatever is under way on it
	stream, err := w.authority.Session(ctx)
	if err != nil {
		return err
	}
	last := uint64(0)
	for {
		ops, of := c.next()
		if len(ops) == 0 {
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				return fmt.Errorf("half-closed: %w", err)
			}
			return nil
		}
		waits := make(map[uint64]*job)
		for i, o := range ops {
			last++
			o.Id = last
			waits[last] = of[i]
		}
		if sends == 0 {
			return errCut
		}
		sends--
		if err := stream.Send(&purserv1.SessionRequest{Operations: ops}); err != nil {
			return err
		}
		for len(waits) > 0 {
			if receives == 0 {
				return errCut
			}
			receives--
			m, err := stream.Recv()
			if err != nil {
				return err
			}
			for _, r := range m.GetResults() {
				if err := waits[r.GetId()].heard(r); err != nil {
					return err
				}
				delete(waits, r.GetId())
			}
		}
	}
}

// TestSessionsBrokenAtEveryPoint breaks a session behind its first, second, ... message in
// either direction, until one is not broken any more. Each time the client goes on with what
// it does not know on another stream, at another node where there is one. At the end every
// job is charged once, what was acknowledged is there, and the books balance to the micro.
func TestSessionsBrokenAtEveryPoint(t *testing.T) {
	cut := func(t *testing.T, w, elsewhere *world) {
		charged, acks := int64(0), []audit.Acknowledged(nil)
		for direction := range 2 {
			for at := 0; ; at++ {
				c := &script{t: t}
				for i := range 5 {
					c.jobs = append(c.jobs, &job{key: fmt.Sprintf("%d-%d-%d", direction, at, i), release: i == 3})
				}
				limit := [2]int{-1, -1}
				limit[direction] = at
				first := c.over(w, limit[0], limit[1])
				if first != nil && !errors.Is(first, errCut) {
					t.Fatalf("broken behind message %d of direction %d: %v", at, direction, first)
				}
				if err := c.over(elsewhere, -1, -1); err != nil {
					t.Fatalf("the rest, after a break behind message %d of direction %d: %v", at, direction, err)
				}
				for _, j := range c.jobs {
					charged += j.charged
					acks = append(acks, j.acknowledged(t))
					if want := int64(2_500_000); !j.release && j.charged != want {
						t.Errorf("job %s: charged %d; want %d", j.key, j.charged, want)
					}
				}
				if first == nil {
					break
				}
			}
		}
		// Reservations whose answer got lost hold something until they expire; nothing is charged.
		elsewhere.quiesce()
		w.audited(acks...)
		if got := must(w, asGate, w.authority.GetBalance, &purserv1.GetBalanceRequest{Account: "acme"}); got.GetTotalMicros() != 1_000_000*credit-charged || got.GetDebtMicros() != 0 {
			t.Errorf("balance %v; want %d less %d", got, 1_000_000*credit, charged)
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		w := newWorld(t, onSQLite())
		w.shop()
		w.account("acme", "", 1_000_000*credit)
		cut(t, w, w)
	})
	t.Run("postgresql", func(t *testing.T) {
		u := testdb.PostgreSQL(t)
		if err := cockroach.Migrate(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		shared := backend{name: "postgresql", open: func(t testing.TB) quota.Store { return openShared(t, u) }}
		w := newWorld(t, shared)
		w.shop()
		w.account("acme", "", 1_000_000*credit)
		elsewhere := newWorld(t, shared)
		cut(t, w, elsewhere)
	})
}

func (j *job) acknowledged(t *testing.T) audit.Acknowledged {
	t.Helper()
	lane, sequence, nonce, err := token.ParseReservationID(j.id)
	if err != nil {
		t.Fatal(err)
	}
	kind := quota.Committed
	if j.release {
		kind = quota.Released
	}
	return audit.Acknowledged{Lane: quota.LaneID(lane), Sequence: sequence, Nonce: nonce, Kind: kind, Charged: j.charged}
}
