package web

import (
	"context"
	"errors"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/quota"
)

// toConnect carries a status over, with all its details. Codes are numbered alike.
func toConnect(err error) *connect.Error {
	st := status.Convert(err)
	out := connect.NewError(connect.Code(st.Code()), errors.New(st.Message()))
	for _, d := range st.Proto().GetDetails() {
		if detail, err := connect.NewErrorDetail(d); err == nil {
			out.AddDetail(detail)
		}
	}
	return out
}

// refused tells errors that are ready for the wire.
func refused(err error) bool {
	var e *connect.Error
	return errors.As(err, &e)
}

// door writes refusals of what never becomes a call.
type door struct {
	// refuse maps an error of the domain to a status, counts and logs it.
	refuse func(ctx context.Context, method string, err error) error
	writer *connect.ErrorWriter
}

// shut refuses r in the form its protocol has for errors, as JSON if it has none. Where that
// is an HTTP status, it is code.
func (d *door) shut(w http.ResponseWriter, r *http.Request, method string, code int, err error) {
	out := toConnect(d.refuse(r.Context(), method, err))
	// Who does not get the answer is not there any more.
	_ = d.writer.Write(&response{ResponseWriter: w, failure: code}, r, out)
}

// notServed refuses what there is no method for.
func notServed(text string, meta map[string]string) error {
	return &quota.Error{Reason: quota.ReasonFeatureDisabled, NotApplied: true, Message: text, Meta: meta}
}

// response puts an HTTP status of its own on errors that have one. Connect knows a handful,
// and takes the code from the body; proxies and people look at the status.
type response struct {
	http.ResponseWriter
	failure int // 0 = as it comes
}

// WriteHeader implements http.ResponseWriter.
func (w *response) WriteHeader(status int) {
	if status >= http.StatusBadRequest && w.failure != 0 {
		status = w.failure
	}
	w.ResponseWriter.WriteHeader(status)
}

// Flush implements http.Flusher.
func (w *response) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap lets http.ResponseController through.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
