package gatehttp

import "net/http"

// writer watches a reply go by.
type writer struct {
	http.ResponseWriter
	chunk  func([]byte)
	status int // 0 = nothing was written yet
	bytes  int64
}

// WriteHeader implements http.ResponseWriter. Informational headers may come before it.
func (w *writer) WriteHeader(code int) {
	if w.status == 0 && (code >= http.StatusOK || code == http.StatusSwitchingProtocols) {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

// Write implements http.ResponseWriter. What could not be written is counted too: it was made.
func (w *writer) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.bytes += int64(len(b))
	w.chunk(b)
	return w.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, for handlers that stream.
func (w *writer) Flush() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	// Writers that cannot are rare, and Flusher has no way to say so.
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap leads http.ResponseController to the rest of what the writer can do.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// code is the status that went out; a handler that writes nothing means 200.
func (w *writer) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}
