package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
)

// asProgram in the environment makes the test binary the program itself: for what needs a
// process, such as a terminal or a shell that calls back.
const asProgram = "PURSER_TEST_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	testdb.Main(m)
}

// result is a command that has ended.
type result struct {
	code        int
	out, stderr string
}

// purserCmd runs the program to its end.
func purserCmd(t *testing.T, args ...string) result {
	t.Helper()
	return purserReading(t, "", args...)
}

// purserReading runs the program with something to read on standard input.
func purserReading(t *testing.T, in string, args ...string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(in), &out, &stderr)
	return result{code, out.String(), stderr.String()}
}

// must runs a command that has to end well.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := purserCmd(t, args...)
	if r.code != exitOK {
		t.Fatalf("purser %s: exit %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.stderr)
	}
	return r.out
}

// fails runs a command that has to fail with a message that has all of want in it.
func fails(t *testing.T, code int, want []string, args ...string) {
	t.Helper()
	r := purserCmd(t, args...)
	if r.code != code {
		t.Errorf("purser %s: exit %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.stderr)
	}
	for _, w := range want {
		if !strings.Contains(r.stderr+r.out, w) {
			t.Errorf("purser %s: output %q, want it to contain %q", strings.Join(args, " "), r.stderr+r.out, w)
		}
	}
}

// process is a command that runs beside the test.
type process struct {
	stop context.CancelFunc // what a signal does
	out  *tap
	log  *tap
	done chan int
}

// start begins a command; the test ends it if nobody has.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{stop: cancel, out: newTap(), log: newTap(), done: make(chan int, 1)}
	go func() {
		p.done <- run(ctx, args, strings.NewReader(""), p.out, p.log)
		p.out.close()
	}()
	t.Cleanup(func() { p.end(t) })
	return p
}

// end sends the signal and waits for the exit code.
func (p *process) end(t *testing.T) int {
	t.Helper()
	p.stop()
	code := <-p.done
	p.done <- code // for whoever asks again
	return code
}

// await returns the first group of pattern in the output, once it is there.
func (p *process) await(t *testing.T, pattern string) string {
	t.Helper()
	m := p.out.await(regexp.MustCompile(pattern))
	if m == nil {
		t.Fatalf("the program ended without %q in its output:\n%s%s", pattern, p.out, p.log)
	}
	return m[1]
}

// tap is a writer that can be watched.
type tap struct {
	mu     sync.Mutex
	more   *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newTap() *tap {
	t := &tap{}
	t.more = sync.NewCond(&t.mu)
	return t
}

func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.more.Broadcast()
	return t.buf.Write(b)
}

func (t *tap) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.more.Broadcast()
}

func (t *tap) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

func (t *tap) await(pattern *regexp.Regexp) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		if m := pattern.FindStringSubmatch(t.buf.String()); m != nil {
			return m
		}
		if t.closed {
			return nil
		}
		t.more.Wait()
	}
}

// quickly are engine settings for tests.
var quickly = []string{"--lease=2s", "--max-hold=2s", "--grace=500ms", "--poll=50ms", "--skew=50ms", "--drain-for=2s"}

// serve starts a node on a store and returns where, with the file of its admin key.
func serve(t *testing.T, store string, more ...string) (p *process, address, keyFile string) {
	t.Helper()
	keyFile = filepath.Join(t.TempDir(), "admin.key")
	args := append([]string{"serve", "--store", store, "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0",
		"--bootstrap-key-file", keyFile, "--log-level=warn"}, quickly...)
	p = start(t, append(args, more...)...)
	return p, p.await(t, `serving .* on (127\.0\.0\.1:\d+)\n`), keyFile
}

func sqliteStore(t *testing.T) string {
	t.Helper()
	return "sqlite:" + filepath.Join(t.TempDir(), "purser.db")
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
