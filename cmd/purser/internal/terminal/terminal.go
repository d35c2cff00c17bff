// Package terminal is what is for eyes only: colour, and a line that says how far long work is.
// None of it reaches a file or a pipe.
package terminal

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
)

// Is reports whether stream, a reader or writer, is a terminal.
func Is(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// Paint colours text, if on.
type Paint bool

// PaintFor is on for a terminal that shows colours, unless NO_COLOR is set (no-color.org).
func PaintFor(w io.Writer) Paint {
	return Paint(Is(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

// Red is for what goes, and for refusals.
func (p Paint) Red(s string) string { return p.in("31", s) }

// Green is for what comes.
func (p Paint) Green(s string) string { return p.in("32", s) }

// Yellow is for warnings, and for what changes.
func (p Paint) Yellow(s string) string { return p.in("33", s) }

// Faint is for what matters less.
func (p Paint) Faint(s string) string { return p.in("2", s) }

func (p Paint) in(code, s string) string {
	if !p || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// every is how often the line is drawn.
const every = 100 * time.Millisecond

// wipe goes to the start of the line and clears it.
const wipe = "\r\x1b[K"

// Progress draws what line says on w, again and again, until the function returned is called,
// which wipes it. If w is no terminal nothing is drawn, and line is never called. line runs
// beside the work: it has to be safe for that.
func Progress(w io.Writer, line func() string) (stop func()) {
	if !Is(w) {
		return func() {}
	}
	done := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprint(w, wipe, line())
			case <-done:
				fmt.Fprint(w, wipe)
				return
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		drawing.Wait()
	})
}
