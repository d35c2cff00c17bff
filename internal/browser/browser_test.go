package browser

import (
	"bufio"
	"context"
	_ "embed"
	"html/template"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds everything that is waited for; a browser takes seconds to start.
const patience = 2 * time.Minute

//go:embed page.html
var page string

// site serves the page, from an origin that is not the API's.
type site struct {
	*httptest.Server
	API, Key string
	done     chan struct{}
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{done: make(chan struct{})}
	text := template.Must(template.New("page").Parse(page))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if err := text.Execute(w, s); err != nil {
			t.Error(err)
		}
	})
	over := sync.OnceFunc(func() { close(s.done) })
	mux.HandleFunc("POST /done", func(http.ResponseWriter, *http.Request) { over() })
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.done:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// chromium is where the browser is; scripts/ensure-chromium installs it.
func chromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("TEST_CHROMIUM"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no Chromium: scripts/ensure-chromium installs it, make test calls that")
	return ""
}

// load has a browser load a page, and returns it as it stands when it is done.
func load(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	// No sandbox: tests may run as root, and load their own page only.
	c := exec.CommandContext(ctx, chromium(t), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
		"--user-data-dir="+t.TempDir(), "--dump-dom", url)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, said.String())
	}
	shown := regexp.MustCompile(`(?s)<pre id="shown">(.*?)</pre>`).FindSubmatch(out)
	if shown == nil {
		t.Fatalf("the page shows nothing:\n%s", out)
	}
	return strings.TrimSpace(string(shown[1]))
}

// build builds the program.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "purser")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/purser-io/purser/cmd/purser").CombinedOutput(); err != nil {
		t.Fatalf("build purser: %v\n%s", err, out)
	}
	return binary
}

// serve runs a node with the catalogue of examples, and returns where it serves HTTP and a
// gate's key.
func serve(t *testing.T, binary string, more ...string) (api, key string) {
	t.Helper()
	dir := t.TempDir()
	adminKey := filepath.Join(dir, "admin.key")
	c := exec.Command(binary, append([]string{"serve", "--store", "sqlite:" + filepath.Join(dir, "purser.db"), "--bootstrap-key-file", adminKey,
		"--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--metrics-listen=", "--drain-for=0s"}, more...)...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("serve ended: %v", err)
		}
	})
	var grpc string
	for lines := bufio.NewScanner(out); api == "" && lines.Scan(); {
		if at, ok := strings.CutPrefix(lines.Text(), "HTTP on "); ok {
			api = at
		}
		if _, at, ok := strings.Cut(lines.Text(), " on "); ok && strings.HasPrefix(lines.Text(), "serving ") {
			grpc = at
		}
	}
	if api == "" {
		t.Fatal("the node did not say where it serves HTTP")
	}
	if out, err := exec.Command(binary, "apply", "-f", "../../examples/catalog.yaml", "--server", grpc, "--key-file", adminKey, "--secrets-dir", dir).CombinedOutput(); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	secret, err := os.ReadFile(filepath.Join(dir, "gateway.key"))
	if err != nil {
		t.Fatal(err)
	}
	return api, strings.TrimSpace(string(secret))
}

// balance asks for the account's, as a program that no browser holds back.
func (s *site) balance(t *testing.T) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.API+"/purser.v1.AuthorityService/GetBalance", strings.NewReader(`{"account": "globex"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+s.Key)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestPage: a page of an origin that is allowed reserves, commits and reads an error; one that
// is not allowed is stopped by the browser, and nothing is held.
func TestPage(t *testing.T) {
	binary := build(t)
	t.Run("allowed", func(t *testing.T) {
		s := newSite(t)
		s.API, s.Key = serve(t, binary, "--http-allow-origin", s.URL)
		want := `200 DECISION_ALLOWED of chat.gpt-large, held 650000
200 RESERVATION_STATE_COMMITTED, charged 750000
400 failed_precondition RESERVATION_COMMITTED, not applied: true`
		if got := load(t, s.URL); got != want {
			t.Errorf("the page shows\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		s := newSite(t)
		s.API, s.Key = serve(t, binary, "--http-allow-origin", "https://app.example.com")
		if got := load(t, s.URL); got != "refused: TypeError: Failed to fetch" {
			t.Errorf("the page shows\n%s\nwant that the browser refused", got)
		}
		if balance := s.balance(t); strings.Contains(balance, "heldMicros") || !strings.Contains(balance, `"globex"`) {
			t.Errorf("balance %s; want that nothing is held", balance)
		}
	})
}
