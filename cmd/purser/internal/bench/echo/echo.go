// Package echo serves the data plane's methods without doing anything: what gRPC alone costs
// for messages of these sizes.
package echo

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Service answers every call with an answer that it was given.
type Service struct {
	purserv1.UnimplementedAuthorityServiceServer
	answer atomic.Pointer[purserv1.CheckAndReserveResponse]
}

// SetAnswer says what CheckAndReserve is answered from now on: a real answer, so that it has
// the size of one.
func (s *Service) SetAnswer(r *purserv1.CheckAndReserveResponse) { s.answer.Store(r) }

// CheckAndReserve answers.
func (s *Service) CheckAndReserve(context.Context, *purserv1.CheckAndReserveRequest) (*purserv1.CheckAndReserveResponse, error) {
	return s.answer.Load(), nil
}

// Session answers each message with one that has as many answers.
func (s *Service) Session(stream purserv1.AuthorityService_SessionServer) error {
	var out purserv1.SessionResponse
	answer := &purserv1.OperationResult_CheckAndReserve{CheckAndReserve: s.answer.Load()}
	for {
		in, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for len(out.Results) < len(in.GetOperations()) {
			out.Results = append(out.Results, &purserv1.OperationResult{Result: answer})
		}
		out.Results = out.Results[:len(in.GetOperations())]
		for i, op := range in.GetOperations() {
			out.Results[i].Id = op.GetId()
		}
		if err := stream.Send(&out); err != nil { // it is encoded when Send returns
			return err
		}
	}
}
