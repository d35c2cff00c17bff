package main

import (
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/quantity"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// extendCmd asks for more of a reservation that is live.
type extendCmd struct {
	From       tokenSource   `embed:""`
	Estimate   []string      `placeholder:"METER=TOTAL[:LEAST]" help:"New total of a meter since the reservation was made, never what is added. With :LEAST less may be granted, but not less than that. Repeat it, or separate by commas."`
	TTL        time.Duration `name:"ttl" placeholder:"DURATION" help:"How long to hold from now, 1s to 60s; default: 30s. It never shortens."`
	Connection connection    `embed:"" group:"Server"`
}

// Help is shown by --help.
func (extendCmd) Help() string {
	return `Totals, never increments, so that the same command twice is one. Without --estimate only the time is extended. What is held is never lowered, and a denial leaves it as it is.

The answer has a new token, to use from here on; a --token-file is given it. Only the node that issued the reservation can extend it: say --server of that one.

Exit codes: 0 allowed, 3 denied, 1 no answer, 2 not understood.

Examples:
  purser extend "$token"
  purser extend "$token" --estimate output_tokens=1600:50 --ttl 60s
  purser extend --token-file r.token --estimate output_tokens=2400
  token=$(purser extend "$token" --estimate output_tokens=1600 -o name)`
}

func (extendCmd) formats() []string { return []string{formatName} }

// Run extends.
func (c *extendCmd) Run(e *env) error {
	estimates, err := quantity.Estimates(c.Estimate)
	if err != nil {
		return usageError{fmt.Errorf("--estimate: %w", err)}
	}
	token, err := c.From.read(e.in)
	if err != nil {
		return err
	}
	request := &purserv1.ExtendRequest{Token: token, Estimates: estimates, Ttl: holdFor(c.TTL)}
	return c.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		answer, err := purserv1.NewAuthorityServiceClient(conn).Extend(e.ctx, request)
		if err != nil {
			return fmt.Errorf("extend: %w", err)
		}
		done := "extended"
		if answer.GetReplayed() {
			done = "unchanged"
		}
		return printDecision(e, decision{Answer: answer, Denial: answer.GetDenial(), Warnings: answer.GetWarnings(),
			Reservation: answer.GetReservation(), done: done, file: c.From.TokenFile})
	})
}
