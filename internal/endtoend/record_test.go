package endtoend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// record is a file of JSON lines, each on disk when write returns.
type record struct {
	mu sync.Mutex
	f  *os.File
}

func newRecord(name string) (*record, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &record{f: f}, nil
}

func (r *record) write(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.f.Write(append(line, '\n')); err != nil {
		return err
	}
	return r.f.Sync()
}

// persist calls send until it is answered with anything but an error that leaves its outcome
// open or says that it may be sent again.
func persist(send func(ctx context.Context, try int) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for try := 0; ; try++ {
		attempt, done := context.WithTimeout(ctx, 3*time.Second)
		err := send(attempt, try)
		done()
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.Aborted, codes.ResourceExhausted:
		default:
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("given up after %d tries: %w", try+1, err)
		}
	}
}

// gatewayProcess is a gateway as its test sees it.
type gatewayProcess struct {
	*process
	t        *testing.T
	settings settings
	input    io.Closer
	progress *bufio.Reader // over the acknowledgements
	file     *os.File
	seen     int
}

// startGateway starts a gateway with files of its own.
func startGateway(t *testing.T, s settings) *gatewayProcess {
	t.Helper()
	dir := t.TempDir()
	s.Intents, s.Acknowledged, s.Abandoned = filepath.Join(dir, "intents.jsonl"), filepath.Join(dir, "acknowledged.jsonl"), filepath.Join(dir, "abandoned.jsonl")
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), gatewayEnv+"="+string(text))
	input, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	g := &gatewayProcess{process: start(t, cmd), t: t, settings: s, input: input}
	g.await(t, `(gateway is working)\n`)
	if g.file, err = os.Open(s.Acknowledged); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.file.Close() })
	g.progress = bufio.NewReader(g.file)
	return g
}

// awaitMore waits until n more settlements have been acknowledged.
func (g *gatewayProcess) awaitMore(n int) {
	g.t.Helper()
	want := g.seen + n
	eventually(g.t, fmt.Sprintf("%d more acknowledgements", n), func() (bool, any) {
		for {
			line, err := g.progress.ReadSlice('\n')
			if err == nil {
				g.seen++
			} else if err == io.EOF {
				// The start of a line is read again with the rest of it.
				if _, err := g.file.Seek(-int64(len(line)), io.SeekCurrent); err != nil {
					g.t.Fatal(err)
				}
				return g.seen >= want, fmt.Sprintf("%d of %d\n%s", g.seen, want, g.out)
			} else {
				g.t.Fatal(err)
			}
		}
	})
}

// finish ends the gateway once it knows the outcome of everything it sent.
func (g *gatewayProcess) finish() {
	g.t.Helper()
	if err := g.input.Close(); err != nil {
		g.t.Fatal(err)
	}
	if code := g.wait(g.t); code != 0 {
		g.t.Errorf("the gateway ended with %d:\n%s", code, g.out)
	}
}

// crash kills the gateway, and returns what it had not heard of.
func (g *gatewayProcess) crash() (open []intent) {
	g.t.Helper()
	g.signal(g.t, syscall.SIGKILL)
	g.wait(g.t)
	answered := map[string]bool{}
	for _, name := range []string{g.settings.Acknowledged, g.settings.Abandoned} {
		for _, a := range readLines[acknowledgement](g.t, name) {
			answered[a.ID] = true
		}
	}
	for _, i := range readLines[intent](g.t, g.settings.Intents) {
		if !answered[i.ID] {
			open = append(open, i)
		}
	}
	return open
}

// readLines reads a record. A last line that its writer did not live to finish is cut off.
func readLines[T any](t *testing.T, name string) (out []T) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	if len(whole) < len(b) {
		if err := os.Truncate(name, int64(len(whole))); err != nil {
			t.Fatal(err)
		}
	}
	for line := range bytes.Lines(whole) {
		var v T
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, v)
	}
	return out
}

// account adds up what gateways were told of: every intent to commit must have been answered,
// and each reservation may be charged once, the price of its usage; one that was abandoned, the
// price of what was reported of it. It returns the sum for each payer.
func account(t *testing.T, gateways ...*gatewayProcess) (charged map[string]int64) {
	t.Helper()
	charged = map[string]int64{}
	intents, answers, late, abandoned := map[string]intent{}, map[string]acknowledgement{}, 0, 0
	for _, g := range gateways {
		for _, i := range readLines[intent](t, g.settings.Intents) {
			intents[i.ID] = i
		}
	}
	for _, g := range gateways {
		for _, a := range readLines[acknowledgement](t, g.settings.Acknowledged) {
			b, twice := answers[a.ID]
			answers[a.ID] = a
			if twice && b.Charged != a.Charged {
				t.Errorf("I5: reservation %s was acknowledged for %d micros and for %d", a.ID, b.Charged, a.Charged)
			}
			if twice {
				continue
			}
			if a.Late {
				late++
			}
			i, sent := intents[a.ID]
			price := i.price()
			// A late commit of a stream says what it charged beyond what its expiry did (R23).
			if sent && a.Charged != price && !(i.Stream && a.Late && a.Charged < price) {
				t.Errorf("the commit of %s was acknowledged for %d micros, its usage costs %d", a.ID, a.Charged, price)
			}
			charged[payers[a.Account]] += price
		}
		for _, a := range readLines[acknowledgement](t, g.settings.Abandoned) {
			abandoned++
			charged[payers[a.Account]] += a.Charged
			answers[a.ID] = a
		}
	}
	for id, i := range intents {
		if _, ok := answers[id]; !ok && !i.Release {
			t.Errorf("nobody ever learnt what became of the commit of %s", id)
		}
	}
	t.Logf("%d settlements sent, %d reservations acknowledged, %d of them late, %d abandoned behind interim usage, charged %v",
		len(intents), len(answers), late, abandoned, charged)
	return charged
}

// files are the gateways' records of acknowledgements.
func files(gateways ...*gatewayProcess) (names []string) {
	for _, g := range gateways {
		names = append(names, g.settings.Acknowledged)
	}
	return names
}
