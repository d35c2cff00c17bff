package apitest

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server"
	"github.com/purser-io/purser/storage/faultstore"
)

// faulty is b with stores that can be made to fail; the last one opened is in f.
func faulty(b backend, f **faultstore.Store) backend {
	open := b.open
	b.open = func(t testing.TB) quota.Store {
		*f = faultstore.New(open(t))
		return *f
	}
	return b
}

// shopWithFaults is a world on SQLite with the account acme, whose store can fail.
func shopWithFaults(t *testing.T) (*world, *faultstore.Store) {
	t.Helper()
	return shopWithin(t, server.Limits{})
}

// shopWithin is such a world with limits of its own.
func shopWithin(t *testing.T, l server.Limits) (*world, *faultstore.Store) {
	t.Helper()
	var f *faultstore.Store
	b := faulty(onSQLite(), &f)
	b.limits = l
	w := newWorld(t, b)
	w.shop()
	w.account("acme", "", 1_000_000*credit)
	return w, f
}

// hold makes calls of the store hang until the function returned is called, at the end of the
// test at the latest. What others hold stays held.
func hold(t *testing.T, f *faultstore.Store, op faultstore.Op) func() {
	i := f.Inject(faultstore.Fault{Op: op, Many: -1, Kind: faultstore.Hold})
	t.Cleanup(i.Release)
	return i.Release
}

// reserved reserves n times and returns the tokens.
func (s *talk) reserved(n int) [][]byte {
	s.t.Helper()
	var tokens [][]byte
	for len(tokens) < n {
		ops := make([]proto.Message, min(n-len(tokens), 256))
		for i := range ops {
			ops[i] = holdFor(work("acme", "small", 1), time.Minute)
		}
		for _, r := range s.do(ops...) {
			v := r.GetCheckAndReserve().GetReservation()
			if v == nil {
				s.t.Fatalf("no reservation: %v", r)
			}
			tokens = append(tokens, v.GetToken())
		}
	}
	return tokens
}

// settled makes sure that what was sent before has reached the server: the frames of one
// connection arrive in order, and each of these calls is a round trip on it.
func (w *world) settled() {
	w.t.Helper()
	for range 50 {
		if _, err := w.authority.Check(w.as(asGate), &purserv1.CheckRequest{Account: "acme", Candidates: []string{"small"}}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func wantEnd(t *testing.T, err error, code codes.Code, reason string) {
	t.Helper()
	info, _, _ := details(err)
	if status.Code(err) != code || info.GetReason() != reason {
		t.Errorf("the stream ended with %v, reason %q; want %v, %s", err, info.GetReason(), code, reason)
	}
}

func TestSessionEndsWhenABoundIsBroken(t *testing.T) {
	w, f := shopWithFaults(t)
	many := func(n int) []*purserv1.Operation {
		ops := make([]*purserv1.Operation, n)
		for i := range ops {
			ops[i] = op(&purserv1.CheckRequest{Account: "acme", Candidates: []string{"small"}})
			ops[i].Id = uint64(100 + i)
		}
		return ops
	}
	large := many(20)
	for _, o := range large {
		o.GetCheck().ProtoReflect().SetUnknown(append([]byte{0xfa, 0x7f, 0x80, 0x80, 0x04}, make([]byte, 1<<16)...))
	}
	twice := many(2)
	twice[1].Id = twice[0].Id
	commit := func() []*purserv1.Operation {
		o := op(used(w.talks(asGate).reserved(1)[0], 1, 1))
		o.Id = 1
		return []*purserv1.Operation{o}
	}
	cases := []struct {
		name     string
		messages [][]*purserv1.Operation
		says     string
	}{
		{"no operation", [][]*purserv1.Operation{nil}, "there are 0"},
		{"257 operations", [][]*purserv1.Operation{many(257)}, "there are 257"},
		{"more than 1 MiB", [][]*purserv1.Operation{large}, "at most 1048576 are allowed"},
		{"an id twice in a message", [][]*purserv1.Operation{twice}, "operations[1].id"},
		{"the id of one that is not answered", [][]*purserv1.Operation{commit(), {{Id: 1}}}, "1 is the id of another"},
	}
	release := hold(t, f, "Append")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := w.talks(asGate)
			for _, m := range c.messages {
				if err := s.stream.Send(&purserv1.SessionRequest{Operations: m}); err != nil {
					t.Fatal(s.broken(err))
				}
			}
			err := s.ended()
			wantEnd(t, err, codes.InvalidArgument, "REQUEST_INVALID")
			if !strings.Contains(status.Convert(err).Message(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			if len(s.results) > 0 {
				t.Errorf("operations of a refused message were begun: %v", s.results)
			}
		})
	}
	release()
	w.audited()
}

func TestSessionTakesAsMuchAsItsBoundsAllow(t *testing.T) {
	w, _ := shopWithFaults(t)
	s := w.talks(asGate)
	tooLarge := &purserv1.CommitRequest{Token: make([]byte, 65<<10)}
	got := s.do(tooLarge, work("acme", "small", 1))
	if e := got[0].GetError(); e.GetReason() != purserv1.ErrorReason_ERROR_REASON_REQUEST_INVALID || !strings.Contains(e.GetMessage(), "at most 65536") {
		t.Errorf("an operation of 65 KiB: %v", got[0])
	}
	if got[1].GetCheckAndReserve().GetReservation() == nil {
		t.Errorf("the one beside it: %v", got[1])
	}
	s.reserved(256)
	s.close()
}

// TestSessionStopsReading: 1024 commits wait for a flush, and what comes behind them is not
// even begun; none of them has a goroutine.
func TestSessionStopsReading(t *testing.T) {
	w, f := shopWithFaults(t)
	s := w.talks(asGate)
	tokens := s.reserved(1024)
	release := hold(t, f, "Append")
	w.settled()
	before := runtime.NumGoroutine()
	var commits []uint64
	for len(tokens) > 0 {
		ops := make([]*purserv1.Operation, 256)
		for i := range ops {
			ops[i] = op(used(tokens[i], 10, 1))
		}
		tokens = tokens[256:]
		commits = append(commits, s.send(ops...)...)
	}
	w.await("all are queued", func() bool { return w.engine.Status().Queued == 1024 })
	if grown := runtime.NumGoroutine() - before; grown > 16 {
		t.Errorf("1024 operations under way have %d goroutines", grown)
	}
	behind := s.send(op(work("acme", "small", 1)), op(work("acme", "small", 1)))
	w.settled()
	if n := w.engine.Status().Reservations; n != 1024 {
		t.Errorf("%d reservations: an operation beyond the bound was begun", n)
	}
	release()
	for _, id := range commits {
		if r := s.answer(id).GetCommit(); r.GetState() != purserv1.ReservationState_RESERVATION_STATE_COMMITTED {
			t.Fatalf("commit: %v", s.results[id])
		}
	}
	for _, id := range behind {
		if s.answer(id).GetCheckAndReserve().GetReservation() == nil {
			t.Errorf("behind the bound: %v", s.results[id])
		}
	}
	s.close()
	w.audited()
}

// TestSessionKeepsOrder: on one reservation the first wins, whatever is sent behind it while
// the store is slow; others are not kept waiting.
func TestSessionKeepsOrder(t *testing.T) {
	w, f := shopWithFaults(t)
	w.account("beta", "", 1000*credit)
	s := w.talks(asGate)
	tokens := s.reserved(20)
	draw := hold(t, f, "Draw")
	slow := s.send(op(work("beta", "large", 1000)), op(work("beta", "small", 1000)))
	if r := s.do(work("acme", "small", 1))[0]; r.GetCheckAndReserve().GetReservation() == nil {
		t.Errorf("behind a slow draw of another account: %v", r)
	}
	if s.results[slow[0]] != nil || s.results[slow[1]] != nil {
		t.Errorf("answered without a draw: %v", s.results)
	}
	flush := hold(t, f, "Append")
	draw()
	for _, id := range slow {
		if s.answer(id).GetCheckAndReserve().GetReservation() == nil {
			t.Errorf("after the draw: %v", s.results[id])
		}
	}
	var ids [][]uint64
	for i, token := range tokens {
		commit, release := op(used(token, 10, 1)), op(&purserv1.ReleaseRequest{Token: token})
		if i%2 == 0 {
			ids = append(ids, s.send(commit, release, op(used(token, 10, 1))))
		} else {
			ids = append(ids, append(s.send(release), s.send(commit, op(&purserv1.ReleaseRequest{Token: token}))...))
		}
	}
	w.await("the first of each are queued", func() bool { return w.engine.Status().Queued >= 20 })
	flush()
	for i, id := range ids {
		a, b, c := s.answer(id[0]), s.answer(id[1]), s.answer(id[2])
		if i%2 == 0 && (a.GetCommit().GetReplayed() || b.GetError().GetReason() != purserv1.ErrorReason_ERROR_REASON_RESERVATION_COMMITTED || !c.GetCommit().GetReplayed()) ||
			i%2 == 1 && (a.GetRelease().GetReplayed() || b.GetError().GetReason() != purserv1.ErrorReason_ERROR_REASON_RESERVATION_RELEASED || !c.GetRelease().GetReplayed()) {
			t.Errorf("reservation %d: %v, %v, %v", i, a, b, c)
		}
	}
	s.close()
	w.audited()
}

// TestSessionTimeLimits: what is not answered in time says that nobody knows, and may land.
func TestSessionTimeLimits(t *testing.T) {
	w, f := shopWithFaults(t)
	w.account("beta", "", 1000*credit)
	s := w.talks(asGate)
	token := s.reserved(1)[0]
	flush, draw := hold(t, f, "Append"), hold(t, f, "Draw")
	var ops []*purserv1.Operation
	for _, r := range []proto.Message{used(token, 10, 1), &purserv1.ReleaseRequest{Token: token}, work("beta", "small", 1)} {
		o := op(r)
		o.Timeout = durationpb.New(20 * time.Millisecond)
		ops = append(ops, o)
	}
	for _, id := range s.send(ops...) {
		e := s.answer(id).GetError()
		if codes.Code(e.GetCode()) != codes.DeadlineExceeded || e.GetMetadata()["not_applied"] != "" {
			t.Errorf("past its time: %v", s.results[id])
		}
	}
	// Its id is free again though the commit is still on its way.
	again := op(used(token, 10, 1))
	again.Id = ops[0].GetId()
	delete(s.results, again.Id)
	if err := s.stream.Send(&purserv1.SessionRequest{Operations: []*purserv1.Operation{again}}); err != nil {
		t.Fatal(err)
	}
	flush()
	draw()
	if r := s.answer(again.Id).GetCommit(); !r.GetReplayed() || r.GetState() != purserv1.ReservationState_RESERVATION_STATE_COMMITTED {
		t.Errorf("the same commit again: %v; want the replay of the one that ran out of time", s.results[again.Id])
	}
	w.await("what ran out of time holds nothing", func() bool { return w.engine.Status().Reservations == 0 })
	s.close()
	w.audited()
}

// TestSessionHalfClose: all is answered, then OK.
func TestSessionHalfClose(t *testing.T) {
	w, f := shopWithFaults(t)
	s := w.talks(asGate)
	tokens := s.reserved(3)
	flush := hold(t, f, "Append")
	ids := s.send(op(used(tokens[0], 1, 1)), op(&purserv1.ReleaseRequest{Token: tokens[1]}), op(used(tokens[0], 1, 1)),
		op(&purserv1.GetBalanceRequest{Account: "acme"}))
	if err := s.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	w.await("the settlements are queued", func() bool { return w.engine.Status().Queued == 2 })
	flush()
	if err := s.ended(); err != nil {
		t.Errorf("ended with %v; want OK", err)
	}
	for _, id := range ids {
		if r := s.results[id]; r == nil || r.GetError() != nil {
			t.Errorf("operation %d: %v", id, r)
		}
	}
	w.audited()
}

func TestSessionEndsWithItsKey(t *testing.T) {
	w, _ := shopWithFaults(t)
	created := must(w, asAdmin, w.keys.CreateKey, &purserv1.CreateKeyRequest{Role: purserv1.Role_ROLE_GATE, Principal: "gateway"})
	w.secrets["revoked"] = created.GetSecret()
	idle, other := w.talks("revoked"), w.talks(asGate)
	idle.reserved(1)
	other.reserved(1)
	must(w, asAdmin, w.keys.RevokeKey, &purserv1.RevokeKeyRequest{Id: created.GetKey().GetId()})
	wantEnd(t, idle.ended(), codes.Unauthenticated, "CREDENTIALS_INVALID")
	other.reserved(1) // another key's session goes on
	w.secrets["expired"] = w.newKey(gateKey(time.Now().Add(time.Hour)))
	s := w.talks("expired")
	s.reserved(1)
	w.clock.ahead.Store(int64(2 * time.Hour))
	defer w.clock.ahead.Store(0)
	wantEnd(t, s.ended(), codes.Unauthenticated, "CREDENTIALS_INVALID")
}

// TestSessionDrains: the client is told, settles what it has, and gets no more.
func TestSessionDrains(t *testing.T) {
	for _, b := range backends(t) {
		t.Run(b.name, func(t *testing.T) {
			w := newWorld(t, b)
			w.shop()
			w.account("acme", "", 1000*credit)
			s := w.talks(asGate)
			tokens := s.reserved(2)
			drained := make(chan error, 1)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			go func() { drained <- w.engine.Drain(ctx) }()
			for s.notice == nil {
				if err := s.receive(); err != nil {
					t.Fatal(err)
				}
			}
			if left := s.notice.GetSettleFor().AsDuration(); left <= 0 || left > 20*time.Second {
				t.Errorf("settlements are served for %v", left)
			}
			late := w.talks(asGate) // told at once
			for late.notice == nil {
				if err := late.receive(); err != nil {
					t.Fatal(err)
				}
			}
			got := s.do(work("acme", "small", 1), used(tokens[0], 10, 1), &purserv1.ReleaseRequest{Token: tokens[1]})
			if e := got[0].GetError(); e.GetReason() != purserv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN || e.GetMetadata()["not_applied"] != "true" {
				t.Errorf("a reservation of a draining node: %v", got[0])
			}
			if got[1].GetCommit() == nil || got[2].GetRelease() == nil {
				t.Errorf("settlements at a draining node: %v", got[1:])
			}
			if err := <-drained; err != nil {
				t.Errorf("drain: %v", err)
			}
			s.close()
		})
	}
}

// TestSessionOfAClientThatDoesNotRead: it is served as far as answers can be sent, and no
// further, however much it sends.
func TestSessionOfAClientThatDoesNotRead(t *testing.T) {
	w, _ := shopWithFaults(t)
	s := w.talks(asGate)
	const messages, each = 200, 100
	sent := make(chan error, 1)
	go func() {
		for m := range messages {
			ops := make([]*purserv1.Operation, each)
			for i := range ops {
				ops[i] = op(work("acme", "small", 1))
				ops[i].Id = uint64(m*each + i + 1)
			}
			if err := s.stream.Send(&purserv1.SessionRequest{Operations: ops}); err != nil {
				sent <- err
				return
			}
		}
		sent <- s.stream.CloseSend()
	}()
	seen := 0
	w.await("the server has stopped serving it", func() bool {
		w.settled()
		before := seen
		seen = w.engine.Status().Reservations
		return seen > 0 && seen == before
	})
	if seen > messages*each/4 {
		t.Errorf("%d of %d operations were served for a client that reads nothing", seen, messages*each)
	}
	if err := s.ended(); err != nil {
		t.Errorf("ended with %v; want OK", err)
	}
	if err := <-sent; err != nil || len(s.results) != messages*each {
		t.Errorf("sent: %v, %d answers; want %d", err, len(s.results), messages*each)
	}
	for id, r := range s.results {
		if r.GetCheckAndReserve().GetReservation() == nil {
			t.Fatalf("operation %d: %v", id, r)
		}
	}
}

// TestSessionOfNonsense: frames that are no messages end the stream, not the node.
func TestSessionOfNonsense(t *testing.T) {
	w, _ := shopWithFaults(t)
	for i, frame := range [][]byte{{0xff}, []byte("hello"), {0x0a, 0x05, 0x08, 0x01}, {0x0a, 0x02, 0x08, 0x01, 0x12}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(w.as(asGate), patience)
			defer cancel()
			stream, err := w.conn.NewStream(ctx, &purserv1.AuthorityService_ServiceDesc.Streams[0], purserv1.AuthorityService_Session_FullMethodName, asBytes())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.SendMsg(frame); err != nil {
				t.Fatal(err)
			}
			var got []byte
			if err := stream.RecvMsg(&got); status.Code(err) == codes.OK || status.Code(err) == codes.DeadlineExceeded {
				t.Errorf("%x was answered with %x, %v", frame, got, err)
			}
			w.talks(asGate).reserved(1)
		})
	}
}
