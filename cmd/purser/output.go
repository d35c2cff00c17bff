package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/quota"
)

// printer writes results as text or as JSON.
type printer struct {
	w    io.Writer
	json bool
}

// emit prints value as JSON, or what text writes.
func (p printer) emit(value any, text func(w io.Writer)) error {
	if !p.json {
		text(p.w)
		return nil
	}
	e := json.NewEncoder(p.w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// emitText prints what has no place in JSON.
func (p printer) emitText(text func(w io.Writer)) {
	if !p.json {
		text(p.w)
	}
}

// printf prints text that has no place in JSON.
func (p printer) printf(format string, args ...any) {
	if !p.json {
		fmt.Fprintf(p.w, format, args...)
	}
}

// explain is an error for people: a server's answer in its own words, an error of the domain
// with its cause.
func explain(err error) string {
	st, ok := status.FromError(err)
	if !ok || st.Code() == 0 {
		if e, is := errors.AsType[*quota.Error](err); is && e.Message != "" {
			return e.Message + because(e.Err)
		}
		return err.Error()
	}
	text := fmt.Sprintf("%s: %s", st.Code(), st.Message())
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			text += " (" + d.GetReason() + ")"
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				text += fmt.Sprintf("\n  %s: %s", v.GetField(), v.GetDescription())
			}
		}
	}
	return text
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return " (" + err.Error() + ")"
}
