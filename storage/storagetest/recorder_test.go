package storagetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// recorder is a testing.TB whose failures are kept, not reported: a broken store is to fail.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) keep(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, text)
}

func (r *recorder) Error(args ...any)                 { r.keep(fmt.Sprint(args...)) }
func (r *recorder) Errorf(format string, args ...any) { r.keep(fmt.Sprintf(format, args...)) }
func (r *recorder) Fail()                             { r.keep("failed") }
func (r *recorder) FailNow()                          { r.keep("failed"); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)                 { r.keep(fmt.Sprint(args...)); runtime.Goexit() }
func (r *recorder) Fatalf(format string, args ...any) {
	r.keep(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

// failures runs one test of the suite and returns what it found.
func failures(t *testing.T, h Harness, test Test) []string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		RunOne(r, h, test)
	}()
	<-done
	return r.failures
}

// find looks a test of the suite up by its name, "Area/Test".
func find(t *testing.T, name string) Test {
	t.Helper()
	area, test, _ := strings.Cut(name, "/")
	for _, a := range Areas() {
		for _, c := range a.Tests {
			if a.Name == area && c.Name == test {
				return c
			}
		}
	}
	t.Fatalf("the suite has no test %s", name)
	return Test{}
}
