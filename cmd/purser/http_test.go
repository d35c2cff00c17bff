package main

import (
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/purser-io/purser/examples"
)

// ask sends a request and returns status and body.
func ask(t *testing.T, method, url, key, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+key)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

// TestServeHTTP reserves as JSON, and commits while the node drains: it says so from the
// moment it is told to stop, on both ports that a load balancer may ask.
func TestServeHTTP(t *testing.T) {
	p, address, keyFile := serve(t, sqliteStore(t), "--pprof-listen=127.0.0.1:0", "--max-hold=60s", "--drain-for=60s")
	web := p.await(t, `HTTP on (http://\S+)\n`)
	metrics := strings.TrimSuffix(p.await(t, `metrics on (http://\S+)\n`), "/metrics")
	profiles := p.await(t, `profiles on (http://\S+)\n`)
	if body := get(t, profiles+"goroutine?debug=1"); !strings.Contains(body, "goroutine profile") {
		t.Errorf("profiles: %.200s", body)
	}
	secrets := t.TempDir()
	must(t, "apply", "-f", writeFile(t, "catalog.yaml", string(examples.Catalog)), "--server", address, "--key-file", keyFile, "--secrets-dir", secrets)
	key, err := readSecret(filepath.Join(secrets, "gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	code, body := ask(t, http.MethodPost, web+"/purser.v1.AuthorityService/CheckAndReserve", key,
		`{"account": "globex", "candidates": ["chat.gpt-small"], "ttl": "60s", "estimates": [{"meter": "input_tokens", "quantity": 1000}]}`)
	var held struct{ Reservation struct{ Token string } }
	if err := json.Unmarshal([]byte(body), &held); err != nil || code != http.StatusOK || held.Reservation.Token == "" {
		t.Fatalf("reserve: %d %s, %v", code, body, err)
	}
	for _, base := range []string{web, metrics} {
		if code, body := ask(t, http.MethodGet, base+"/readyz", "", ""); code != http.StatusOK || body != "ready\n" {
			t.Errorf("%s/readyz: %d %q", base, code, body)
		}
	}
	p.stop()
	for _, base := range []string{web, metrics} {
		for code, body = ask(t, http.MethodGet, base+"/readyz", "", ""); code == http.StatusOK; { // until the signal has come through
			code, body = ask(t, http.MethodGet, base+"/readyz", "", "")
		}
		if code != http.StatusServiceUnavailable || !strings.HasPrefix(body, "draining: ") {
			t.Errorf("%s/readyz: %d %q", base, code, body)
		}
		if code, _ := ask(t, http.MethodGet, base+"/livez", "", ""); code != http.StatusOK {
			t.Errorf("%s/livez: %d", base, code)
		}
	}
	if code, body := ask(t, http.MethodPost, web+"/purser.v1.AuthorityService/Commit", key,
		`{"token": "`+held.Reservation.Token+`", "usage": [{"meter": "input_tokens", "quantity": 1000}]}`); code != http.StatusOK || !strings.Contains(body, `"15000"`) {
		t.Errorf("commit while draining: %d %s", code, body)
	}
	if code := p.end(t); code != exitOK {
		t.Errorf("serve ended with %d\n%s", code, p.log)
	}
}

func TestBadHTTPSettings(t *testing.T) {
	for what, c := range map[string]struct {
		want []string
		flag string
	}{
		"profiles for all":    {[]string{"--pprof-listen", "listen on loopback"}, "--pprof-listen=0.0.0.0:0"},
		"plain text for all":  {[]string{"TLS", "--insecure"}, "--http-listen=0.0.0.0:0"},
		"no address":          {[]string{"--http-listen"}, "--http-listen=nowhere"},
		"an origin with path": {[]string{"https://app.example.com/x", "no web origin"}, "--http-allow-origin=https://app.example.com/x"},
	} {
		t.Run(what, func(t *testing.T) {
			fails(t, exitFailure, c.want, "serve", "--store", sqliteStore(t), "--listen=127.0.0.1:0", "--metrics-listen=", "--http-listen=127.0.0.1:0", c.flag)
		})
	}
}
