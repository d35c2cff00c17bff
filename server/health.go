package server

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/purser-io/purser/quota"
)

// condition is what /readyz says.
type condition struct {
	Status string `json:"status"`           // ready, draining or unavailable
	Reason string `json:"reason,omitempty"` // why it is not ready
}

// condition looks whether new reservations should come here.
func (s *Server) condition() condition {
	err := s.deps.Authority.Ready()
	switch {
	case err == nil:
		return condition{Status: "ready"}
	case errors.Is(err, quota.ReasonShuttingDown):
		return condition{"draining", err.Error() + "; settlements are served until it stops"}
	}
	return condition{"unavailable", err.Error()}
}

// healthEndpoints serves what load balancers and Kubernetes ask, without a key:
//
//   - /livez: 200 as long as the process answers; restart it otherwise.
//   - /readyz: 200 if this node takes reservations, else 503. It turns "draining" as soon as a
//     drain begins. Settlements are served all the same.
//   - /healthz: as /livez, for those who ask by that name.
//
// Answers are a line of text, or JSON if that is accepted or ?verbose is asked for.
func (s *Server) healthEndpoints(mux *http.ServeMux) {
	alive := func(w http.ResponseWriter, r *http.Request) { say(w, r, http.StatusOK, condition{Status: "ok"}) }
	mux.HandleFunc("GET /livez", alive)
	mux.HandleFunc("GET /healthz", alive)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		c, code := s.condition(), http.StatusOK
		if c.Status != "ready" {
			code = http.StatusServiceUnavailable
		}
		say(w, r, code, c)
	})
}

func say(w http.ResponseWriter, r *http.Request, code int, c condition) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if strings.Contains(r.Header.Get("Accept"), "application/json") || r.URL.Query().Has("verbose") {
		h.Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(c) // who asked may be gone
		return
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	text := c.Status
	if c.Reason != "" {
		text += ": " + c.Reason
	}
	_, _ = w.Write([]byte(text + "\n"))
}
