package main

import (
	"github.com/purser-io/purser/server/telemetry"
)

// observed runs a command that serves with telemetry as the environment asks for. What could
// not be sent at the end is said in the log; it is no reason to fail.
func observed(e *env, node string, fn func(*telemetry.Telemetry) error) error {
	local := e.log
	t, err := telemetry.New(e.ctx, telemetry.Config{Version: programVersion().Version, Instance: node, Logger: local})
	if err != nil {
		return err
	}
	e.log = t.Logger(local)
	err = fn(t)
	if lost := t.Shutdown(e.ctx); lost != nil {
		local.Warn("telemetry not exported", "error", lost)
	}
	return err
}
