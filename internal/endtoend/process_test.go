package endtoend

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds everything that is waited for. It is no expectation: what is waited for
// usually takes a fraction of it.
const patience = 60 * time.Second

// exited is how a process ended, with all it wrote.
type exited struct {
	code   int // -1 if by a signal
	output string
}

// process is a child of the test.
type process struct {
	cmd  *exec.Cmd
	out  *tap
	done chan struct{}
	code int // once done is closed
}

// start starts a program; the test kills it, by its own pid, if it is still there at the end.
func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{cmd: cmd, out: newTap(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.out, p.out
	cmd.SysProcAttr = orphan()
	if err := launcher()(cmd); err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	go func() {
		_ = cmd.Wait() // the code says how it ended
		p.code = cmd.ProcessState.ExitCode()
		p.out.close()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		p.wait(t)
		if t.Failed() {
			t.Logf("process %d wrote:\n%.20000s", cmd.Process.Pid, p.out)
		}
	})
	return p
}

// launcher starts children on a thread that lives as long as this process, so that they end
// when it does, whatever ends it.
var launcher = sync.OnceValue(func() func(*exec.Cmd) error {
	type launch struct {
		cmd *exec.Cmd
		err chan error
	}
	launches := make(chan launch)
	go func() {
		runtime.LockOSThread()
		for l := range launches {
			l.err <- l.cmd.Start()
		}
	}()
	return func(cmd *exec.Cmd) error {
		l := launch{cmd, make(chan error, 1)}
		launches <- l
		return <-l.err
	}
})

// command is the program under test with arguments, and nothing in the environment that is
// meant for it.
func command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PURSER_") && !strings.HasPrefix(v, "OTEL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	return cmd
}

// purserCmd runs the program to its end.
func purserCmd(t *testing.T, args ...string) exited {
	t.Helper()
	p := start(t, command(args...))
	p.wait(t)
	return exited{p.code, p.out.String()}
}

// must runs the program to a good end and returns what it wrote.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := purserCmd(t, args...)
	if r.code != 0 {
		t.Fatalf("purser %s: exit %d\n%s", strings.Join(args, " "), r.code, r.output)
	}
	return r.output
}

// refused runs the program to an end with code, its output naming all of want.
func refused(t *testing.T, code int, want []string, args ...string) string {
	t.Helper()
	r := purserCmd(t, args...)
	if r.code != code {
		t.Errorf("purser %s: exit %d, want %d\n%s", strings.Join(args, " "), r.code, code, r.output)
	}
	for _, w := range want {
		if !strings.Contains(r.output, w) {
			t.Errorf("purser %s: output lacks %q:\n%s", strings.Join(args, " "), w, r.output)
		}
	}
	return r.output
}

// signal sends a signal; a process that has ended gets none.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal %v to process %d: %v", s, p.cmd.Process.Pid, err)
	}
}

// wait waits for the end of the process and returns its code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(patience):
		p.signal(t, syscall.SIGKILL)
		<-p.done
		t.Errorf("process %d did not end within %v, and was killed:\n%s", p.cmd.Process.Pid, patience, p.out)
		return p.code
	}
}

// await waits until pattern is in the output, and returns its first group. It fails the test
// if the process ends without.
func (p *process) await(t *testing.T, pattern string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := p.out.await(ctx, regexp.MustCompile(pattern))
	if m == nil {
		t.Fatalf("no %q in the output of process %d:\n%s", pattern, p.cmd.Process.Pid, p.out)
	}
	return m[1]
}

// tap keeps what is written, and lets it be waited for.
type tap struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed and replaced with every write
	closed  bool
}

func newTap() *tap { return &tap{changed: make(chan struct{})} }

// Write implements io.Writer.
func (t *tap) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(t.changed)
	t.changed = make(chan struct{})
	return t.buf.Write(b)
}

func (t *tap) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	close(t.changed)
	t.changed = make(chan struct{})
}

// String is all that was written so far.
func (t *tap) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

func (t *tap) await(ctx context.Context, pattern *regexp.Regexp) []string {
	for {
		t.mu.Lock()
		m, closed, changed := pattern.FindStringSubmatch(t.buf.String()), t.closed, t.changed
		t.mu.Unlock()
		if m != nil || closed {
			return m
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// eventually polls until done says yes; state is what to print if it never does.
func eventually(t *testing.T, what string, done func() (ok bool, state any)) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, state := done()
		if ok {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v; at the end: %v", what, patience, state)
		case <-tick.C:
		}
	}
}
