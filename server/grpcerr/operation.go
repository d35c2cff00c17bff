package grpcerr

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Operation is what the caller of a session gets for err, which is not nil: the same as Status
// says of a single call, from the same table.
func (m *Mapper) Operation(ctx context.Context, method string, err error) *purserv1.OperationStatus {
	said := m.message(ctx, method, err)
	if said == nil {
		st := foreign(err)
		return &purserv1.OperationStatus{Code: int32(st.Code()), Message: st.Message()}
	}
	out := &purserv1.OperationStatus{
		Code: int32(said.row.Code), Message: said.text, Metadata: said.meta,
		Reason: purserv1.ErrorReason(purserv1.ErrorReason_value["ERROR_REASON_"+string(said.Reason)]),
	}
	if wait := said.wait(); wait > 0 {
		out.RetryAfter = durationpb.New(wait)
	}
	return out
}
