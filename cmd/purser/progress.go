package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"github.com/purser-io/purser/cmd/purser/internal/demo"
)

// progressEvery is how often the line is drawn.
const progressEvery = 100 * time.Millisecond

// showProgress draws a line on w while a replay runs, if w is a terminal. The function
// returned wipes it.
func showProgress(w io.Writer, t *demo.Tally, rows int) (stop func()) {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return func() {}
	}
	done := make(chan struct{})
	var drawing sync.WaitGroup
	drawing.Go(func() {
		ticker := time.NewTicker(progressEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				fmt.Fprint(w, "\r\x1b[K", progressLine(t.Total(), rows))
			case <-done:
				fmt.Fprint(w, "\r\x1b[K")
				return
			}
		}
	})
	return func() {
		close(done)
		drawing.Wait()
	}
}

func progressLine(c demo.Counts, rows int) string {
	return fmt.Sprintf("%3d%%  %d of %d requests  allowed %d  degraded %d  partial %d  denied %d",
		c.Requests*100/max(rows, 1), c.Requests, rows, c.Allowed, c.Degraded, c.Partial, c.Denials())
}
