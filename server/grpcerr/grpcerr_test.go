package grpcerr_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/server/grpcerr"
)

// internalReasons never leave the engine; everything else in quota is in the contract.
var internalReasons = map[quota.Reason]bool{
	quota.ReasonFenced: true, quota.ReasonPolicyChanged: true, quota.ReasonSchema: true,
	quota.ReasonStoreLocked: true, quota.ReasonStoreDamaged: true,
}

func TestEveryReasonOfTheContractHasARow(t *testing.T) {
	for n, name := range purserv1.ErrorReason_name {
		reason := quota.Reason(strings.TrimPrefix(name, "ERROR_REASON_"))
		_, ok := grpcerr.Lookup(reason)
		if ok == (n == 0) {
			t.Errorf("%s: has a row: %v", name, ok)
		}
		if len(reason) > 63 {
			t.Errorf("%s is longer than ErrorInfo allows", name)
		}
	}
}

func TestEveryReasonOfTheDomainIsInTheContract(t *testing.T) {
	reasons := domainReasons(t)
	if len(reasons) < 30 {
		t.Fatalf("found only %d reasons in the source", len(reasons))
	}
	for _, r := range reasons {
		_, inContract := purserv1.ErrorReason_value["ERROR_REASON_"+string(r)]
		_, hasRow := grpcerr.Lookup(r)
		if want := !internalReasons[r]; inContract != want || hasRow != want {
			t.Errorf("%s: in the contract %v, has a row %v, want %v", r, inContract, hasRow, want)
		}
	}
}

// domainReasons reads the constants out of the source, so that none can be forgotten.
func domainReasons(t *testing.T) (reasons []quota.Reason) {
	file, err := parser.ParseFile(token.NewFileSet(), "../../quota/errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Reason" {
			for _, v := range spec.Values {
				s, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				reasons = append(reasons, quota.Reason(s))
			}
		}
		return true
	})
	return reasons
}

func TestCodes(t *testing.T) {
	cases := []struct {
		err  error
		want codes.Code
	}{
		{nil, codes.OK},
		{quota.Errorf(quota.ReasonAmountInvalid, ""), codes.InvalidArgument},
		{quota.Errorf(quota.ReasonCredentialsInvalid, ""), codes.Unauthenticated},
		{quota.Errorf(quota.ReasonTokenInvalid, ""), codes.PermissionDenied},
		{quota.Errorf(quota.ReasonGrantNotFound, ""), codes.NotFound},
		{quota.Errorf(quota.ReasonIdempotencyKeyReused, ""), codes.AlreadyExists},
		{quota.Errorf(quota.ReasonReservationCommitted, ""), codes.FailedPrecondition},
		{quota.Errorf(quota.ReasonETagMismatch, ""), codes.Aborted},
		{quota.Errorf(quota.ReasonStoreFull, ""), codes.ResourceExhausted},
		{quota.Errorf(quota.ReasonOutcomeUnknown, ""), codes.Unavailable},
		{quota.Errorf(quota.ReasonFeatureDisabled, ""), codes.Unimplemented},
		{fmt.Errorf("commit: %w", quota.Errorf(quota.ReasonShuttingDown, "")), codes.Unavailable},
		{quota.Errorf(quota.ReasonFenced, ""), codes.Internal},
		{errors.New("anything"), codes.Internal},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), codes.DeadlineExceeded},
		{context.Canceled, codes.Canceled},
		{quota.Wrap(quota.ReasonStoreUnavailable, "", context.DeadlineExceeded), codes.Unavailable},
		{status.Error(codes.Unimplemented, "unknown method"), codes.Unimplemented},
	}
	for _, c := range cases {
		if got := grpcerr.CodeOf(c.err); got != c.want {
			t.Errorf("%v: code %v, want %v", c.err, got, c.want)
		}
		st := grpcerr.New(slog.New(slog.DiscardHandler)).Status(t.Context(), "/m", c.err)
		if got := status.Code(st); got != c.want {
			t.Errorf("%v: sent with %v, want %v", c.err, got, c.want)
		}
	}
}

type parts struct {
	info  *errdetails.ErrorInfo
	retry *errdetails.RetryInfo
	bad   *errdetails.BadRequest
}

func send(t *testing.T, err error) (*status.Status, parts, string) {
	t.Helper()
	var log bytes.Buffer
	st := status.Convert(grpcerr.New(slog.New(slog.NewTextHandler(&log, nil))).Status(t.Context(), "/m", err))
	var p parts
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			p.info = d
		case *errdetails.RetryInfo:
			p.retry = d
		case *errdetails.BadRequest:
			p.bad = d
		default:
			t.Errorf("detail %T", d)
		}
	}
	return st, p, log.String()
}

func TestDetails(t *testing.T) {
	st, p, log := send(t, fmt.Errorf("settle: %w", &quota.Error{Reason: quota.ReasonServerOverloaded, Message: "the queue is full",
		Meta: map[string]string{"bound": "settle_queue"}, RetryAfter: 250 * time.Millisecond, NotApplied: true, Err: errors.New("secret")}))
	if st.Message() != "the queue is full" || log != "" {
		t.Errorf("message %q, log %q", st.Message(), log)
	}
	if p.info.GetReason() != "SERVER_OVERLOADED" || p.info.GetDomain() != "purser" ||
		p.info.GetMetadata()["bound"] != "settle_queue" || p.info.GetMetadata()["not_applied"] != "true" {
		t.Errorf("info %v", p.info)
	}
	if p.retry.GetRetryDelay().AsDuration() != 250*time.Millisecond {
		t.Errorf("retry %v", p.retry)
	}
	if strings.Contains(st.Proto().String(), "secret") {
		t.Error("the cause was sent")
	}
}

func TestDefinite(t *testing.T) {
	cases := []struct {
		err  *quota.Error
		want bool
	}{
		{&quota.Error{Reason: quota.ReasonRequestInvalid}, true},
		{&quota.Error{Reason: quota.ReasonAccountNotFound}, true},
		{&quota.Error{Reason: quota.ReasonStoreUnavailable}, false},
		{&quota.Error{Reason: quota.ReasonStoreUnavailable, NotApplied: true}, true},
		{&quota.Error{Reason: quota.ReasonStoreFull}, false},
		{&quota.Error{Reason: quota.ReasonShuttingDown}, false},
		{&quota.Error{Reason: quota.ReasonOutcomeUnknown}, false},
		{&quota.Error{Reason: quota.ReasonOutcomeUnknown, NotApplied: true}, false},
		{&quota.Error{Reason: quota.ReasonOutcomeUnknown, Meta: map[string]string{"not_applied": "true"}}, false},
		{&quota.Error{Reason: quota.ReasonInternal}, false},
		{&quota.Error{Reason: quota.ReasonFenced, NotApplied: true}, false},
	}
	for _, c := range cases {
		_, p, _ := send(t, c.err)
		if got := p.info.GetMetadata()["not_applied"] == "true"; got != c.want {
			t.Errorf("%v (not applied %v): definite %v, want %v", c.err, c.err.NotApplied, got, c.want)
		}
	}
}

func TestFaultsKeepTheirCauseInTheLog(t *testing.T) {
	for _, err := range []error{
		errors.New("dsn=secret"),
		quota.Wrap(quota.ReasonInvariantViolated, "pot secret is out of balance", errors.New("secret")),
		quota.Wrap(quota.ReasonStoreDamaged, "secret path", nil),
	} {
		st, p, log := send(t, err)
		if st.Code() != codes.Internal || strings.Contains(st.Proto().String(), "secret") {
			t.Errorf("%v: sent %v", err, st)
		}
		id := p.info.GetMetadata()["request_id"]
		if id == "" || !strings.Contains(log, id) || !strings.Contains(log, "secret") {
			t.Errorf("%v: request id %q does not lead to the cause in %q", err, id, log)
		}
		if p.retry != nil {
			t.Errorf("%v: a fault advises a retry", err)
		}
	}
}

func TestViolations(t *testing.T) {
	st, p, _ := send(t, grpcerr.Invalid(quota.ReasonRequestInvalid,
		grpcerr.Violation{Field: "candidates[1]", Description: "it is listed twice"}, grpcerr.Violation{Description: "a before b"}))
	if st.Message() != "candidates[1]: it is listed twice; a before b" {
		t.Errorf("message %q", st.Message())
	}
	v := p.bad.GetFieldViolations()
	if len(v) != 2 || v[0].GetField() != "candidates[1]" || v[0].GetDescription() != "it is listed twice" {
		t.Errorf("violations %v", v)
	}
	_, p, _ = send(t, &quota.Error{Reason: quota.ReasonAmountInvalid, Message: "too much", Meta: map[string]string{"field": "cap"}})
	if v := p.bad.GetFieldViolations(); len(v) != 1 || v[0].GetField() != "cap" || v[0].GetDescription() != "too much" {
		t.Errorf("violations %v", v)
	}
}

func TestRetryAdvice(t *testing.T) {
	cases := []struct {
		err  *quota.Error
		want time.Duration
	}{
		{&quota.Error{Reason: quota.ReasonServerOverloaded}, 100 * time.Millisecond},
		{&quota.Error{Reason: quota.ReasonStoreUnavailable, RetryAfter: time.Second}, time.Second},
		{&quota.Error{Reason: quota.ReasonStoreUnavailable}, 0},
		{&quota.Error{Reason: quota.ReasonRequestInvalid, RetryAfter: time.Second}, 0},
	}
	for _, c := range cases {
		_, p, _ := send(t, c.err)
		if got := p.retry.GetRetryDelay().AsDuration(); got != c.want {
			t.Errorf("%v: retry after %v, want %v", c.err, got, c.want)
		}
	}
}
