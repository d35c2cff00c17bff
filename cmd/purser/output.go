package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
	"github.com/purser-io/purser/quota"
)

// Formats of --output.
const (
	formatText = "text"
	formatWide = "wide"
	formatJSON = "json"
	formatYAML = "yaml"
	formatName = "name"
)

// lister is a command that lists things, and so has more formats.
type lister interface{ formats() []string }

// printer writes results as text, or for machines.
type printer struct {
	w      io.Writer
	format string
	paint  terminal.Paint
}

func newPrinter(w io.Writer, format string, command *kong.Node) (printer, error) {
	formats := []string{formatText, formatJSON, formatYAML}
	if format == "table" { // what kubectl calls it
		format = formatText
	}
	if l, ok := command.Target.Interface().(lister); ok {
		formats = append(formats, l.formats()...)
	}
	if !slices.Contains(formats, format) {
		return printer{}, fmt.Errorf("%s has no output %q: want one of %s", command.FullPath(), format, strings.Join(formats, ", "))
	}
	return printer{w: w, format: format, paint: terminal.PaintFor(w)}, nil
}

// machine reports whether a program reads the output.
func (p printer) machine() bool { return p.format == formatJSON || p.format == formatYAML }

// emit prints value for machines, or what text writes.
func (p printer) emit(value any, text func(w io.Writer)) error {
	switch p.format {
	case formatJSON:
		return document.JSON(p.w, value)
	case formatYAML:
		return document.YAML(p.w, value)
	default:
		text(p.w)
		return nil
	}
}

// emitText prints what has no place in what machines read.
func (p printer) emitText(text func(w io.Writer)) {
	if !p.machine() {
		text(p.w)
	}
}

// printf prints text that has no place in what machines read.
func (p printer) printf(format string, args ...any) {
	if !p.machine() {
		fmt.Fprintf(p.w, format, args...)
	}
}

// explain is an error for people: what was tried, a server's answer in its own words with its
// reason, and what to do. An error of the domain comes with its cause, in what was tried.
func explain(err error) string {
	answer, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err)
	if !ok || answer.GRPCStatus().Code() == codes.OK {
		if e, is := errors.AsType[*quota.Error](err); is && e.Message != "" {
			return strings.Replace(err.Error(), e.Error(), e.Message+because(e.Err), 1)
		}
		return err.Error()
	}
	st := answer.GRPCStatus()
	reason, violations, allowed := st.Code().String(), "", true
	definite := st.Code() != codes.Unavailable && st.Code() != codes.DeadlineExceeded && st.Code() != codes.Canceled &&
		st.Code() != codes.Unknown && st.Code() != codes.Internal
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason() + facts(d.GetMetadata())
			allowed = d.GetReason() != "CALLER_NOT_ALLOWED"
			definite = definite || d.GetMetadata()[notApplied] == "true"
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				if line := v.GetField() + ": " + v.GetDescription(); line != st.Message() {
					violations += "\n  " + line
				}
			}
		}
	}
	tried := strings.TrimSuffix(err.Error(), answer.Error()) // "get account acme: "
	text := fmt.Sprintf("%s%s (%s)%s%s", tried, st.Message(), reason, violations, advice(st.Code(), allowed))
	if !definite && errors.As(err, new(settling)) {
		text += "\nIt is not known whether it was done. Do it again, with the same token: a reservation is charged once."
	}
	return text
}

// facts are what a reason is about, such as how much was charged before.
func facts(metadata map[string]string) string {
	var out string
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		if name != notApplied {
			out += fmt.Sprintf(", %s %s", name, metadata[name])
		}
	}
	return out
}

// notApplied is the key by which a server says that an error is definite (R52).
const notApplied = "not_applied"

// advice is what to do about an error whose message cannot know where it came from.
func advice(code codes.Code, allowed bool) string {
	switch {
	case code == codes.Unauthenticated:
		return "\nCheck --key-file: the key must be one of this server's, neither revoked nor expired."
	case !allowed:
		return "\nThe key of --key-file may not do this: see its role with purser get keys, or take an admin's."
	case code == codes.Unavailable:
		return "\nIs the node up at --server? It can be tried again."
	default:
		return ""
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return " (" + err.Error() + ")"
}
