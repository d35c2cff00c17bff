package apitest

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/authz"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// talk is a session as a client has it: it numbers operations and collects answers.
type talk struct {
	*world
	stream  purserv1.AuthorityService_SessionClient
	end     context.CancelFunc // breaks it
	last    uint64
	results map[uint64]*purserv1.OperationResult
	notice  *purserv1.DrainNotice
}

// talks opens a session; it is broken at the end of the test if it has not ended.
func (w *world) talks(who string) *talk {
	w.t.Helper()
	ctx, end := context.WithTimeout(w.as(who), patience)
	w.t.Cleanup(end)
	stream, err := w.authority.Session(ctx)
	if err != nil {
		w.t.Fatalf("open session: %v", err)
	}
	return &talk{world: w, stream: stream, end: end, results: map[uint64]*purserv1.OperationResult{}}
}

// op is an operation that does what req asks.
func op(req proto.Message) *purserv1.Operation {
	switch r := req.(type) {
	case *purserv1.CheckAndReserveRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_CheckAndReserve{CheckAndReserve: r}}
	case *purserv1.CommitRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_Commit{Commit: r}}
	case *purserv1.ReleaseRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_Release{Release: r}}
	case *purserv1.ExtendRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_Extend{Extend: r}}
	case *purserv1.CheckRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_Check{Check: r}}
	case *purserv1.GetBalanceRequest:
		return &purserv1.Operation{Call: &purserv1.Operation_GetBalance{GetBalance: r}}
	}
	return &purserv1.Operation{}
}

// send sends operations in one message and returns their ids.
func (s *talk) send(ops ...*purserv1.Operation) []uint64 {
	s.t.Helper()
	ids := make([]uint64, len(ops))
	for i, o := range ops {
		s.last++
		o.Id, ids[i] = s.last, s.last
	}
	if err := s.stream.Send(&purserv1.SessionRequest{Operations: ops}); err != nil {
		s.t.Fatalf("send: %v", s.broken(err))
	}
	return ids
}

// broken is what the stream ended with: Send only says that it has.
func (s *talk) broken(err error) error {
	for errors.Is(err, io.EOF) {
		if _, err = s.stream.Recv(); errors.Is(err, io.EOF) {
			return errors.New("the stream ended with OK")
		}
	}
	return err
}

// receive takes in one message.
func (s *talk) receive() error {
	m, err := s.stream.Recv()
	if err != nil {
		return err
	}
	if m.GetDrainNotice() != nil {
		if s.notice != nil {
			return errors.New("a second drain notice")
		}
		s.notice = m.GetDrainNotice()
	}
	for _, r := range m.GetResults() {
		if s.results[r.GetId()] != nil {
			return errors.New("a second answer to one operation")
		}
		s.results[r.GetId()] = r
	}
	return nil
}

// answer waits for the answer to an operation.
func (s *talk) answer(id uint64) *purserv1.OperationResult {
	s.t.Helper()
	for s.results[id] == nil {
		if err := s.receive(); err != nil {
			s.t.Fatalf("operation %d: %v", id, err)
		}
	}
	return s.results[id]
}

// do sends operations in one message and waits for all their answers.
func (s *talk) do(reqs ...proto.Message) []*purserv1.OperationResult {
	s.t.Helper()
	ops := make([]*purserv1.Operation, len(reqs))
	for i, r := range reqs {
		ops[i] = op(r)
	}
	results := make([]*purserv1.OperationResult, len(ops))
	for i, id := range s.send(ops...) {
		results[i] = s.answer(id)
	}
	return results
}

// ended waits for the stream's end and returns what it ended with; nil is OK.
func (s *talk) ended() error {
	for {
		if err := s.receive(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// close half-closes, and wants the end to be OK.
func (s *talk) close() {
	s.t.Helper()
	if err := s.stream.CloseSend(); err != nil {
		s.t.Fatalf("half-close: %v", err)
	}
	if err := s.ended(); err != nil {
		s.t.Errorf("session ended with %v; want OK", err)
	}
}

// says sends operations in one message, and writes it and the answers down by their ids.
func (c *conversation) says(s *talk, ops ...*purserv1.Operation) []*purserv1.OperationResult {
	c.t.Helper()
	ids := s.send(ops...)
	c.asked(asGate, &purserv1.SessionRequest{Operations: ops})
	answers := &purserv1.SessionResponse{}
	for _, id := range ids {
		answers.Results = append(answers.Results, s.answer(id))
	}
	slices.SortFunc(answers.Results, func(a, b *purserv1.OperationResult) int { return int(a.GetId()) - int(b.GetId()) })
	c.answered(answers)
	return answers.GetResults()
}

func sessionOfAllOperations(c *conversation) {
	c.shop()
	c.account("acme", "", 100*credit)
	s := c.talks(asGate)
	c.say("every operation is answered as the single call would be")
	c.says(s, op(&purserv1.CheckRequest{Account: "acme", Candidates: []string{"small"}}))
	got := c.says(s, op(work("acme", "large", 1000)), op(work("acme", "small", 1000)), op(work("nobody", "large", 1)),
		op(work("acme", "forbidden", 1)))
	large, small := got[0].GetCheckAndReserve().GetReservation().GetToken(), got[1].GetCheckAndReserve().GetReservation().GetToken()
	c.say("settlements of a message are durable when they are answered; order on one reservation is kept")
	c.says(s, op(used(large, 1000, 500)), op(&purserv1.ReleaseRequest{Token: small}), op(used(large, 1000, 500)),
		op(used(large, 1000, 501)), op(used(small, 1000, 1)), op(&purserv1.ReleaseRequest{Token: large}))
	c.say("an operation that fails has the reason and metadata of the call's error, and the others go on")
	wrong := op(work("acme", "large", -1))
	hasty := op(work("acme", "large", 1))
	hasty.Timeout = durationpb.New(0)
	c.says(s, wrong, op(used([]byte("no token of this authority"), 1, 1)), op(&purserv1.CommitRequest{}), hasty, op(nil),
		op(&purserv1.GetBalanceRequest{Account: "nobody"}), op(work("acme", "small", 1000)))
	c.quiesce()
	c.say("what a single call knows, a session knows, and the other way round")
	token := c.reserve(work("acme", "large", 1000))
	c.says(s, op(sofar(token, 5, 5)), op(used(token, 10, 10)), op(sofar(token, 11, 11)))
	c.commit(token, 10, 10)
	s.close()
	c.balance(asGate, "acme")
}

// asBytes sends and receives messages as they are on the wire.
func asBytes() grpc.CallOption { return grpc.ForceCodec(bytesCodec{}) }

type bytesCodec struct{}

func (bytesCodec) Marshal(v any) ([]byte, error) { return v.([]byte), nil }
func (bytesCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = data
	return nil
}
func (bytesCodec) Name() string { return "proto" }

func gateKey(until time.Time) authz.Key {
	return authz.Key{Role: authz.RoleGate, Principal: asGate, ExpireTime: until.UnixNano()}
}
