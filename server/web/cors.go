package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	connectcors "connectrpc.com/cors"
	"github.com/rs/cors"
)

// preflightSeconds is how long a browser may remember what a page may do: two hours, the most
// that Chromium keeps.
const preflightSeconds = 7200

// crossOrigin lets pages of the origins given call, by the CORS protocol. Keys are sent as a
// header that the page sets; cookies play no part, so credentials are not allowed.
func crossOrigin(origins []string) (func(http.Handler) http.Handler, error) {
	var errs []error
	for _, o := range origins {
		errs = append(errs, checkOrigin(o))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(origins) == 0 {
		return func(h http.Handler) http.Handler { return h }, nil
	}
	return cors.New(cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodPost},
		AllowedHeaders: slices.Concat(connectcors.AllowedHeaders(), []string{
			"Authorization", "Content-Encoding", "Connect-Accept-Encoding", "Connect-Content-Encoding", "Traceparent", "Tracestate"}),
		ExposedHeaders: connectcors.ExposedHeaders(),
		MaxAge:         preflightSeconds,
	}).Handler, nil
}

// checkOrigin says what is wrong with an origin: browsers compare it letter by letter.
func checkOrigin(o string) error {
	if o == "*" {
		return nil
	}
	u, err := url.Parse(o)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || o != u.Scheme+"://"+u.Host {
		return fmt.Errorf("%q is no web origin: it has a scheme and a host, and a port if it is not the scheme's, such as https://app.example.com; or it is *", o)
	}
	return nil
}
