package main

import (
	"fmt"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/demo"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
)

// showProgress draws how far a replay is, on a terminal. The function returned wipes it.
func showProgress(e *env, t *demo.Tally, rows int) (stop func()) {
	return terminal.Progress(e.stderr, func() string { return progressLine(t.Total(), rows) })
}

// showElapsed draws what is being done and for how long, on a terminal.
func showElapsed(e *env, what string) (stop func()) {
	begun := e.clock.Now()
	return terminal.Progress(e.stderr, func() string {
		return fmt.Sprintf("%s, %s", what, e.clock.Now().Sub(begun).Round(time.Second))
	})
}

func progressLine(c demo.Counts, rows int) string {
	return fmt.Sprintf("%3d%%  %d of %d requests  allowed %d  degraded %d  partial %d  denied %d",
		c.Requests*100/max(rows, 1), c.Requests, rows, c.Allowed, c.Degraded, c.Partial, c.Denials())
}
