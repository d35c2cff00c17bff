package purser

import (
	"context"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// CheckAndReserve implements the call over the session. Call options are those of the stream.
func (s *session) CheckAndReserve(ctx context.Context, r *purserv1.CheckAndReserveRequest, o ...grpc.CallOption) (*purserv1.CheckAndReserveResponse, error) {
	result, single, err := s.do(ctx, &purserv1.Operation{Call: &purserv1.Operation_CheckAndReserve{CheckAndReserve: r}})
	if single {
		return s.AuthorityServiceClient.CheckAndReserve(ctx, r, o...)
	}
	return answer(result.GetCheckAndReserve(), err)
}

// Commit implements the call over the session.
func (s *session) Commit(ctx context.Context, r *purserv1.CommitRequest, o ...grpc.CallOption) (*purserv1.CommitResponse, error) {
	result, single, err := s.do(ctx, &purserv1.Operation{Call: &purserv1.Operation_Commit{Commit: r}})
	if single {
		return s.AuthorityServiceClient.Commit(ctx, r, o...)
	}
	return answer(result.GetCommit(), err)
}

// Release implements the call over the session.
func (s *session) Release(ctx context.Context, r *purserv1.ReleaseRequest, o ...grpc.CallOption) (*purserv1.ReleaseResponse, error) {
	result, single, err := s.do(ctx, &purserv1.Operation{Call: &purserv1.Operation_Release{Release: r}})
	if single {
		return s.AuthorityServiceClient.Release(ctx, r, o...)
	}
	return answer(result.GetRelease(), err)
}

// Extend implements the call over the session.
func (s *session) Extend(ctx context.Context, r *purserv1.ExtendRequest, o ...grpc.CallOption) (*purserv1.ExtendResponse, error) {
	result, single, err := s.do(ctx, &purserv1.Operation{Call: &purserv1.Operation_Extend{Extend: r}})
	if single {
		return s.AuthorityServiceClient.Extend(ctx, r, o...)
	}
	return answer(result.GetExtend(), err)
}

// answer takes an answer of the wrong kind for none: whether it was applied is not known.
func answer[T any](result *T, err error) (*T, error) {
	if err == nil && result == nil {
		err = status.Error(codes.Internal, "the answer does not fit the operation: client and server do not fit together")
	}
	return result, err
}

// errorDomain is that of the authority's google.rpc.ErrorInfo.
const errorDomain = "purser"

// fromStatus is the status that a single call would have failed with.
func fromStatus(s *purserv1.OperationStatus) error {
	info := &errdetails.ErrorInfo{Domain: errorDomain, Metadata: s.GetMetadata(),
		Reason: strings.TrimPrefix(s.GetReason().String(), "ERROR_REASON_")}
	if s.GetReason() == purserv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		info.Reason = ""
	}
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(info)}
	if s.GetRetryAfter() != nil {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: s.GetRetryAfter()}))
	}
	return withDetails(status.New(codes.Code(s.GetCode()), s.GetMessage()), details...)
}

// refuse is the error of an operation that was never sent.
func refuse(code codes.Code, reason, message string) error {
	return withDetails(status.New(code, message), protoadapt.MessageV1Of(
		&errdetails.ErrorInfo{Domain: errorDomain, Reason: reason, Metadata: map[string]string{notApplied: "true"}}))
}

// asDefinite is a refusal of the whole stream as that of each operation.
func asDefinite(e *Error) error {
	err := refuse(e.Code, e.Reason, "open a session: "+e.Message)
	if e.retryAfter > 0 {
		err = withDetails(status.Convert(err), protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.retryAfter)}))
	}
	return err
}

func withDetails(s *status.Status, details ...protoadapt.MessageV1) error {
	full, err := s.WithDetails(details...)
	if err != nil { // code OK, which is none of these
		return status.Error(codes.Internal, "the answer has an error without a code")
	}
	return full.Err()
}
