package main

import (
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
	"github.com/purser-io/purser/cmd/purser/internal/usage"
)

// usageCmd adds up what an account used.
type usageCmd struct {
	Account    string     `arg:"" completion:"account" help:"Account id. Accounts below it have usage of their own."`
	By         string     `default:"feature" placeholder:"WHAT" help:"What to add up by: feature, hour, label=KEY, or label for all labels together."`
	Since      string     `default:"24h" placeholder:"WHEN" help:"From when: how long ago, such as 24h or 7d, or a time or date (UTC)."`
	Until      string     `placeholder:"WHEN" help:"Until when, exclusive; default: now."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (usageCmd) Help() string {
	return `Sums are exact, to the micro, and follow settlements within about a second. By feature or hour they are of whole hours: the start is rounded down to one. By label every event is read, which takes longer. "events" are the settlements that used the meter.

Examples:
  purser usage acme
  purser usage acme --by label=team --since 7d
  purser usage acme --by hour --since 2026-01-31 --until 2026-02-01 -o json`
}

// Run adds up.
func (u *usageCmd) Run(e *env) error {
	q, err := u.query(e)
	if err != nil {
		return usageError{err}
	}
	return u.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		reader := &usage.Reader{Server: resource.Connect(conn, e.clock.Now())}
		stop := terminal.Progress(e.stderr, func() string { return fmt.Sprintf("%d usage events read", reader.Events()) })
		report, err := reader.Read(e.ctx, q)
		stop()
		if err != nil {
			return fmt.Errorf("usage of %s: %w", u.Account, err)
		}
		return e.out.emit(report, func(w io.Writer) { report.Write(w, terminal.Is(w)) })
	})
}

func (u *usageCmd) query(e *env) (q usage.Query, err error) {
	q.Account = u.Account
	if q.By, err = usage.ParseBy(u.By); err != nil {
		return q, fmt.Errorf("--by: %w", err)
	}
	now := e.clock.Now()
	if q.From, err = usage.ParseSince(u.Since, now); err != nil {
		return q, fmt.Errorf("--since: %w", err)
	}
	if u.Until == "" {
		return q, nil
	}
	if q.Until, err = usage.ParseSince(u.Until, now); err != nil {
		return q, fmt.Errorf("--until: %w", err)
	}
	if !q.Until.After(q.From) {
		return q, fmt.Errorf("--until %s is not after --since %s", u.Until, u.Since)
	}
	return q, nil
}
