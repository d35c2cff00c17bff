package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// tailCmd follows a node.
type tailCmd struct {
	Account    string     `arg:"" optional:"" completion:"account" help:"Only events of this account."`
	Feature    string     `completion:"feature" help:"Only events of this feature."`
	Denied     bool       `help:"Only denials."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (tailCmd) Help() string {
	return `Shows decisions and settlements of the node at --server as they happen, one line each; with -o json a JSON object a line. It is for eyes: who reads too slowly misses events and is told how many. Usage that counts is shown by purser usage.

Needs a key with the role viewer or admin. Ends with Ctrl-C, or when the node drains.

Examples:
  purser tail --key-file purser.db.admin-key
  purser tail globex --denied --key-file purser.db.admin-key
  purser tail -o json --key-file purser.db.admin-key | jq .account`
}

// Run follows until the user or the node ends it.
func (c *tailCmd) Run(e *env) error {
	return c.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		stream, err := purserv1.NewEventServiceClient(conn).WatchEvents(e.ctx,
			&purserv1.WatchEventsRequest{Account: c.Account, Feature: c.Feature, DeniedOnly: c.Denied})
		if err != nil {
			return fmt.Errorf("tail: %w", err)
		}
		if md, err := stream.Header(); err == nil && md != nil {
			fmt.Fprintf(e.stderr, "following %s; Ctrl-C ends\n", c.Connection.Server)
		}
		for {
			m, err := stream.Recv()
			if status.Code(err) == codes.Canceled && e.ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return fmt.Errorf("tail: %w", err)
			}
			if err := printEvents(e, m); err != nil {
				return err
			}
		}
	})
}

func printEvents(e *env, m *purserv1.WatchEventsResponse) error {
	if m.GetMissed() > 0 {
		fmt.Fprintf(e.stderr, "missed %d events: too many to show\n", m.GetMissed())
	}
	for _, event := range m.GetEvents() {
		switch e.out.format {
		case formatJSON:
			line, err := json.Marshal(document.Answer{Message: event})
			if err != nil {
				return err
			}
			printLine(e.out.w, "%s", line)
		case formatYAML:
			printLine(e.out.w, "---")
			if err := document.YAML(e.out.w, document.Answer{Message: event}); err != nil {
				return err
			}
		default:
			printEvent(e.out.w, e.out.paint, event)
		}
	}
	return nil
}

// printEvent writes one line: when, what, whose, and what it came to.
func printEvent(w io.Writer, paint terminal.Paint, e *purserv1.Event) {
	kind := strings.TrimPrefix(e.GetKind().String(), "EVENT_KIND_")
	word, what := fmt.Sprintf("%-9s", kind), ""
	switch e.GetKind() {
	case purserv1.EventKind_EVENT_KIND_DENIED:
		word = paint.Red(word)
		d := e.GetDenial()
		what = strings.TrimPrefix(d.GetReason().String(), "DENIAL_REASON_") + ": " + d.GetMessage()
	case purserv1.EventKind_EVENT_KIND_RESERVED, purserv1.EventKind_EVENT_KIND_EXTENDED:
		word = paint.Green(word)
		what = "held " + amount.FormatCredits(e.GetAmountMicros()) + " " + quantitiesOf(e)
		if e.GetPartial() {
			what += " " + paint.Yellow("partial")
		}
	case purserv1.EventKind_EVENT_KIND_COMMITTED:
		what = "charged " + amount.FormatCredits(e.GetAmountMicros()) + " " + quantitiesOf(e)
		if e.GetUncoveredMicros() > 0 {
			what += " " + paint.Yellow("uncovered "+amount.FormatCredits(e.GetUncoveredMicros()))
		}
		if e.GetLate() {
			what += " " + paint.Yellow("late")
		}
	}
	line := fmt.Sprintf("%s  %s  %s  %s", paint.Faint(e.GetTime().AsTime().Format(time.TimeOnly)), word, e.GetAccount(), e.GetFeature())
	printLine(w, "%s", strings.TrimRight(line+"  "+what, " "))
}

func quantitiesOf(e *purserv1.Event) string {
	list := make([]string, len(e.GetQuantities()))
	for i, q := range e.GetQuantities() {
		list[i] = fmt.Sprintf("%s=%d", q.GetMeter(), q.GetQuantity())
	}
	return strings.Join(list, " ")
}
