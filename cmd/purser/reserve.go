package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/purser-io/purser/cmd/purser/internal/denial"
	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/quantity"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// reserveCmd asks whether work may start.
type reserveCmd struct {
	Account        string            `arg:"" completion:"account" help:"Account that uses the feature."`
	Features       []string          `arg:"" name:"feature" completion:"feature" help:"Features in order of preference: the first whose minimum is affordable is granted."`
	Estimate       []string          `placeholder:"METER=QUANTITY[:LEAST]" help:"Expected use of a meter. With :LEAST less may be granted, but not less than that. Repeat it, or separate by commas."`
	Label          map[string]string `placeholder:"KEY=VALUE" help:"Labels that the usage is attributed to; separate by semicolons, or repeat."`
	TTL            time.Duration     `name:"ttl" placeholder:"DURATION" help:"How long to hold, 1s to 60s; default: 30s."`
	IdempotencyKey string            `placeholder:"KEY" help:"The same key with the same request finds the same reservation."`
	TokenFile      string            `type:"path" placeholder:"FILE" help:"Write the token there, mode 0600, for commit, extend and release."`
	Connection     connection        `embed:"" group:"Server"`
}

// Help is shown by --help.
func (reserveCmd) Help() string {
	return `The token is all that is needed to settle the reservation, here or elsewhere. -o name prints it alone.

Exit codes: 0 allowed, 3 denied, 1 no answer, 2 not understood.

Examples:
  purser reserve globex chat.gpt-large --estimate input_tokens=1200 --estimate output_tokens=800:50 --label user=ann
  token=$(purser reserve globex chat.gpt-large chat.gpt-small --estimate input_tokens=1200 -o name)
  purser commit "$token" --usage input_tokens=1200
  purser reserve globex chat.gpt-large --estimate input_tokens=1200 --ttl 60s --token-file r.token`
}

func (reserveCmd) formats() []string { return []string{formatName} }

// Run reserves.
func (r *reserveCmd) Run(e *env) error {
	estimates, err := quantity.Estimates(r.Estimate)
	if err != nil {
		return usageError{fmt.Errorf("--estimate: %w", err)}
	}
	request := &purserv1.CheckAndReserveRequest{Account: r.Account, Candidates: r.Features, Estimates: estimates,
		Labels: r.Label, IdempotencyKey: r.IdempotencyKey, Ttl: holdFor(r.TTL)}
	return r.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		answer, err := purserv1.NewAuthorityServiceClient(conn).CheckAndReserve(e.ctx, request)
		if err != nil {
			return fmt.Errorf("reserve for %s: %w", r.Account, err)
		}
		return printDecision(e, decision{Answer: answer, Denial: answer.GetDenial(), Warnings: answer.GetWarnings(),
			Reservation: answer.GetReservation(), done: "reserved", file: r.TokenFile})
	})
}

// holdFor leaves out a TTL that was not said.
func holdFor(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// decision is an answer with a reservation, or a denial.
type decision struct {
	Answer interface {
		GetDecision() purserv1.Decision
		proto.Message
	}
	Denial      *purserv1.Denial
	Warnings    []*purserv1.Warning
	Reservation *purserv1.Reservation
	done        string // "reserved", "extended", "unchanged"
	file        string // for the token; "" = none
}

func printDecision(e *env, d decision) error {
	if d.Answer.GetDecision() != purserv1.Decision_DECISION_ALLOWED {
		err := e.out.emit(document.Answer{Message: d.Answer}, func(w io.Writer) {
			if e.out.format == formatName { // there is no name: what is printed must not be taken for one
				w = e.stderr
			}
			denial.Write(w, e.out.paint, d.Denial)
			denial.WriteWarnings(w, e.out.paint, d.Warnings)
		})
		if err != nil {
			return err
		}
		return errDenied
	}
	token := base64.RawURLEncoding.EncodeToString(d.Reservation.GetToken())
	if d.file != "" {
		if err := writeSecret(d.file, token); err != nil {
			return err
		}
	}
	return e.out.emit(document.Answer{Message: d.Answer}, func(w io.Writer) {
		if e.out.format == formatName {
			printLine(w, "%s", token)
			return
		}
		d.write(w, e, token)
	})
}

func (d *decision) write(w io.Writer, e *env, token string) {
	r := d.Reservation
	line := func(name, value string) {
		if value != "" {
			printLine(w, "  %-12s %s", name, value)
		}
	}
	printLine(w, "%s %s", e.out.paint.Green(d.done), r.GetFeature())
	line("reservation", r.GetReservationId())
	granted := quantity.Words(r.GetGranted())
	switch {
	case r.GetExhausted():
		granted += " (less than asked for, and no more will come)"
	case r.GetPartial():
		granted += " (less than asked for)"
	}
	line("granted", granted)
	line("held", amount.FormatCredits(r.GetHeldMicros())+" credits")
	line("until", r.GetExpireTime().AsTime().Format(time.RFC3339))
	for _, left := range r.GetRemaining() {
		line("left", quantity.Of(left.GetUnit(), left.GetAmount())+" in "+denial.Level(left.GetLevel()))
	}
	if d.file != "" {
		line("token", "written to "+d.file)
	} else {
		line("token", token)
	}
	denial.WriteWarnings(w, e.out.paint, d.Warnings)
}
