package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
)

func TestHealthOfANode(t *testing.T) {
	node := start(t, "serve", "--store", "sqlite:"+filepath.Join(t.TempDir(), "p.db"), "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--http-listen=")
	metrics := node.await(t, `metrics on (http://\S+)/metrics`)
	if got := must(t, "health", "--url", metrics+"/readyz"); got != "ready\n" {
		t.Errorf("health of a node that serves = %q", got)
	}
	if code := node.end(t); code != exitOK {
		t.Errorf("the node ended with %d", code)
	}
	fails(t, exitFailure, []string{"connection refused", "is the node running"}, "health", "--url", metrics+"/readyz")
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "draining", http.StatusServiceUnavailable)
	}))
	defer sick.Close()
	fails(t, exitFailure, []string{"503", "draining"}, "health", "--url", sick.URL)
}
