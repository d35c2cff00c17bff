package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// healthCmd asks a node how it is, for containers that have no other program to do it.
type healthCmd struct {
	URL     string        `default:"http://127.0.0.1:7412/readyz" help:"What to ask: /readyz, or /livez, of the node's --metrics-listen."`
	Timeout time.Duration `default:"2s" help:"How long to wait for the answer."`
}

// Help is shown by --help.
func (healthCmd) Help() string {
	return `Exit code 0 if the node answers 200, else 1 with what it said. A node that drains, or that cannot reach its store for longer than its lease, is alive and not ready.

Examples:
  purser health
  purser health --url http://127.0.0.1:7412/livez`
}

// healthAnswerMost bounds what is shown of an answer.
const healthAnswerMost = 4 << 10

// Run asks once.
func (h *healthCmd) Run(e *env) error {
	ctx, cancel := context.WithTimeout(e.ctx, h.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w: is the node running, with --metrics-listen?", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, healthAnswerMost))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("health: %w", err)
	}
	said := string(bytes.TrimSpace(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s: %s", resp.Status, said)
	}
	return e.out.emit(map[string]string{"status": said}, func(w io.Writer) { printLine(w, "%s", said) })
}
