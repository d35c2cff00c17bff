package testdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a private PostgreSQL in a folder of its own, reached by a Unix socket in it.
type Server struct {
	bin     string // folder of the programs
	dir     string
	attr    *syscall.SysProcAttr
	mu      sync.Mutex
	process *exec.Cmd // nil = stopped
	done    chan error
	log     *lockedBuffer
	guard   io.Closer // closing it, or the end of this process, ends everything
	guarded *exec.Cmd
}

// NewServer starts a server for t alone, which may stop, start and crash it.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := s.remove(); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return s
}

// URL names the server's own database, postgres.
func (s *Server) URL() string {
	u := url.URL{Scheme: "postgresql", User: url.User("postgres"), Path: "/postgres",
		RawQuery: url.Values{"host": {s.dir}, "sslmode": {"disable"}}.Encode()}
	return u.String()
}

// Database makes an empty database, dropped when t ends, and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	return newDatabase(t, s.URL(), "")
}

// Stop shuts the server down, disconnecting everybody, and waits until it has.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.signal(syscall.SIGINT); err != nil {
		t.Fatalf("stop PostgreSQL: %v", err)
	}
}

// Crash ends the server without any shutdown; the next Start recovers from its log.
func (s *Server) Crash(t testing.TB) {
	t.Helper()
	if err := s.signal(syscall.SIGQUIT); err != nil {
		t.Fatalf("crash PostgreSQL: %v", err)
	}
}

// Start starts a stopped server and waits until it serves.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.run(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
}

// Restart is Stop and Start.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.Start(t)
}

// start makes a database cluster and starts a server over it.
func start() (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "purser-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, log: &lockedBuffer{}}
	if err := s.setUp(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := s.run(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, nil
}

func (s *Server) setUp() error {
	var err error
	if s.attr, err = unprivileged(s.dir); err != nil {
		return err
	}
	if err := s.watch(); err != nil {
		return err
	}
	initdb := exec.Command(filepath.Join(s.bin, "initdb"), "--pgdata="+s.data(), "--username=postgres",
		"--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = s.attr, s.dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// watchdog outlives a test process that is killed: when its input ends, it kills the server
// and removes the folder. An initdb may still be writing there: it fails soon, so removing is
// tried until it is done. A server whose pid file goes before it was read ends by itself.
const watchdog = `cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
for m in "$1"/small-*; do [ -d "$m" ] && umount "$m" 2>/dev/null; done
until rm -rf "$1" 2>/dev/null && [ ! -e "$1" ]; do sleep 0.1; done`

// watch starts the watchdog, in a session of its own so that an interrupt from the terminal
// does not end it before its work is done.
func (s *Server) watch() error {
	cmd := exec.Command("/bin/sh", "-c", watchdog, "watchdog", s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the watchdog: %w", err)
	}
	s.guard, s.guarded = in, cmd
	return nil
}

// run starts the server process. Nothing is synced to disk: a test's data does not outlive
// the machine. A crash of the server alone loses what was committed last, unless the sessions
// say synchronous_commit=on.
func (s *Server) run() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		return errors.New("it is running")
	}
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=",
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off",
		"-c", "max_connections=300", "-c", "shared_buffers=64MB", "-c", "max_pred_locks_per_transaction=256",
		"-c", "log_min_messages=fatal", "-c", "log_min_error_statement=fatal")
	cmd.SysProcAttr, cmd.Dir = s.attr, s.dir
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	s.process, s.done = cmd, done
	return s.ready()
}

// ready waits until the server answers, or has ended.
func (s *Server) ready() error {
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if exec.Command(filepath.Join(s.bin, "pg_isready"), "--quiet", "--host="+s.dir, "--username=postgres").Run() == nil {
			return nil
		}
		select {
		case err := <-s.done:
			s.process = nil
			return fmt.Errorf("the server ended: %w\n%s", err, s.log.String())
		case <-deadline:
			return fmt.Errorf("the server is not ready after %v\n%s", patience, s.log.String())
		case <-tick.C:
		}
	}
}

// signal ends the server with sig and waits for it; one that is stopped stays so.
func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-s.done: // how it ended does not matter: it was told to
		s.process = nil
		return nil
	case <-time.After(patience):
		return fmt.Errorf("the server is still there after %v", patience)
	}
}

// remove ends the server and removes its folder; the watchdog does both.
func (s *Server) remove() error {
	if s.guarded == nil { // nothing was started
		return os.RemoveAll(s.dir)
	}
	err := errors.Join(s.signal(syscall.SIGQUIT), s.guard.Close())
	return errors.Join(err, s.guarded.Wait())
}

// lockedBuffer keeps the server's log while it is being read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is what was written so far.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
