package interceptor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// Validate holds the requests of the services wanted to the bounds written in the contract.
// The data plane checks by hand, which is faster; a test shows that both agree.
func Validate(v protovalidate.Validator, wanted func(service string) bool) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	unary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if err := valid(v, req); err != nil {
			return nil, err
		}
		return handler(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, &validated{ServerStream: ss, validator: v})
	}
	return selectUnary(unary, include(wanted)), selectStream(stream, include(wanted))
}

// validated checks every message that the caller sends on a stream.
type validated struct {
	grpc.ServerStream
	validator protovalidate.Validator
}

// RecvMsg receives a message that keeps the bounds.
func (s *validated) RecvMsg(req any) error {
	if err := s.ServerStream.RecvMsg(req); err != nil {
		return err
	}
	return valid(s.validator, req)
}

func valid(v protovalidate.Validator, req any) error {
	m, ok := req.(proto.Message)
	if !ok {
		return fmt.Errorf("validate: %T is not a message", req)
	}
	if err := v.Validate(m); err != nil {
		return refusal(err)
	}
	return nil
}

// maxViolations bounds an error; the rest of a message that is wrong in more places will be
// wrong in the same ways.
const maxViolations = 16

func refusal(err error) error {
	var invalid *protovalidate.ValidationError
	if !errors.As(err, &invalid) || len(invalid.Violations) == 0 {
		return fmt.Errorf("validate: %w", err)
	}
	reason := quota.ReasonAmountInvalid
	violations := make([]grpcerr.Violation, 0, min(len(invalid.Violations), maxViolations))
	for _, v := range invalid.Violations {
		if !isAmount(v) {
			reason = quota.ReasonRequestInvalid
		}
		if len(violations) < maxViolations {
			violations = append(violations, grpcerr.Violation{
				Field:       protovalidate.FieldPathString(v.Proto.GetField()),
				Description: describe(v),
			})
		}
	}
	return grpcerr.Invalid(reason, violations...)
}

// isAmount tells amounts, which have a reason of their own, from other fields: they are the
// int64 fields except versions.
func isAmount(v *protovalidate.Violation) bool {
	f := v.FieldDescriptor
	return f != nil && f.Kind() == protoreflect.Int64Kind && !strings.HasSuffix(string(f.Name()), "version")
}

// maxShown bounds how much of a wrong value is sent back.
const maxShown = 64

// describe says what is wrong, with the value if it is one that can be shown in a line.
func describe(v *protovalidate.Violation) string {
	text := v.Proto.GetMessage()
	if text == "" {
		text = v.Proto.GetRuleId()
	}
	if !v.FieldValue.IsValid() || v.FieldDescriptor == nil {
		return text
	}
	switch value := v.FieldValue.Interface().(type) {
	case string:
		if len(value) > maxShown {
			return fmt.Sprintf("%s; it is %.*q... (%d bytes)", text, maxShown, value, len(value))
		}
		return fmt.Sprintf("%s; it is %q", text, value)
	case int32, int64, uint32, uint64, bool:
		return fmt.Sprintf("%s; it is %v", text, value)
	case protoreflect.EnumNumber:
		return fmt.Sprintf("%s; it is %d", text, value)
	}
	return text
}
