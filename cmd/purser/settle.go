package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/quantity"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// tokenSource is where a token comes from.
type tokenSource struct {
	Token     string `arg:"" optional:"" help:"Token of the reservation, as reserve printed it, or as JSON has it; - reads standard input."`
	TokenFile string `type:"path" placeholder:"FILE" help:"Read the token from a file."`
}

// maxToken bounds what is read of a token: 2048 bytes, in base64, with room for spaces.
const maxToken = 4096

// read is the token's bytes.
func (s *tokenSource) read(stdin io.Reader) ([]byte, error) {
	text := s.Token
	switch {
	case s.Token != "" && s.TokenFile != "":
		return nil, usageError{errors.New("there are two tokens: want either TOKEN or --token-file")}
	case s.Token == "" && s.TokenFile == "":
		return nil, usageError{errors.New("which reservation? Want a TOKEN, --token-file FILE, or - for standard input")}
	case s.TokenFile != "":
		f, err := os.Open(s.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read token: %w", err)
		}
		defer f.Close()
		if text, err = readToken(f); err != nil {
			return nil, fmt.Errorf("read token of %s: %w", s.TokenFile, err)
		}
	case s.Token == "-":
		var err error
		if text, err = readToken(stdin); err != nil {
			return nil, fmt.Errorf("read token of standard input: %w", err)
		}
	}
	// Both alphabets, with padding or without: JSON has the one, a command line the other.
	token, err := base64.RawURLEncoding.DecodeString(strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(text))
	if err == nil && len(token) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("that is no token: %w: want what reserve printed", err)}
	}
	return token, nil
}

func readToken(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxToken+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxToken {
		return "", fmt.Errorf("it has more than %d bytes", maxToken)
	}
	lines := strings.Fields(string(b))
	if len(lines) > 1 {
		return "", fmt.Errorf("there are %d tokens: want one", len(lines))
	}
	return strings.Join(lines, ""), nil
}

// outcome is a word for what became of the work.
func outcome(word string) purserv1.Outcome {
	return purserv1.Outcome(purserv1.Outcome_value["OUTCOME_"+strings.ToUpper(strings.ReplaceAll(word, "-", "_"))])
}

// settling is the failure of a call that is safe to repeat.
type settling struct{ error }

// Unwrap yields the failure.
func (s settling) Unwrap() error { return s.error }

// commitCmd settles with usage.
type commitCmd struct {
	From           tokenSource       `embed:""`
	Usage          []string          `placeholder:"METER=QUANTITY" help:"What was used since the reservation was made; a meter not named was not used. Repeat it, or separate by commas."`
	Outcome        string            `enum:"success,refused,error,user-cancelled" default:"success" help:"What became of the work: ${enum}."`
	Label          map[string]string `placeholder:"KEY=VALUE" help:"Labels learnt since, for attribution only."`
	Interim        bool              `help:"Report what was used so far, and settle nothing: it is charged if the reservation expires. At the node that issued it."`
	UsageDelivered bool              `help:"Charge usage that was delivered although the reservation was released."`
	Connection     connection        `embed:"" group:"Server"`
}

// Help is shown by --help.
func (commitCmd) Help() string {
	return `Safe to repeat, on any node: a reservation is charged once. Usage above the hold is charged too.

Examples:
  purser commit "$token" --usage input_tokens=1200 --usage output_tokens=311
  purser commit --token-file r.token --usage input_tokens=1200,output_tokens=311
  purser commit "$token" --usage output_tokens=120 --interim
  purser reserve globex chat.gpt-small --estimate input_tokens=10 -o name | purser commit - --usage input_tokens=10`
}

// Run commits.
func (c *commitCmd) Run(e *env) error {
	used, err := quantity.Used(c.Usage)
	if err != nil {
		return usageError{fmt.Errorf("--usage: %w", err)}
	}
	token, err := c.From.read(e.in)
	if err != nil {
		return err
	}
	request := &purserv1.CommitRequest{Token: token, Usage: used, Outcome: outcome(c.Outcome), Labels: c.Label, UsageDelivered: c.UsageDelivered}
	if c.Interim {
		request.Final = new(bool)
	}
	return c.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		r, err := purserv1.NewAuthorityServiceClient(conn).Commit(e.ctx, request)
		if err != nil {
			return settling{fmt.Errorf("commit: %w", err)}
		}
		return e.out.emit(document.Answer{Message: r}, func(w io.Writer) { printReceipt(w, e, r) })
	})
}

func printReceipt(w io.Writer, e *env, r *purserv1.CommitResponse) {
	if r.GetState() == purserv1.ReservationState_RESERVATION_STATE_HELD {
		printLine(w, "%s", e.out.paint.Green("noted")+": nothing is charged yet; this will be if nobody settles the reservation")
		return
	}
	text := e.out.paint.Green("committed") + ": " + amount.FormatCredits(r.GetChargedMicros()) + " credits charged"
	for _, part := range []struct {
		micros int64
		words  string
	}{
		{r.GetOverageMicros(), "above the hold"},
		{r.GetUncoveredMicros(), "not covered by what was set aside: debited from open grants, then as debt"},
	} {
		if part.micros > 0 {
			text += fmt.Sprintf(", %s of them %s", amount.FormatCredits(part.micros), part.words)
		}
	}
	if r.GetLate() {
		text += "; the reservation had ended before"
	}
	if r.GetReplayed() {
		text += "; this was known: it had been committed before"
	}
	printLine(w, "%s", text)
}

// releaseCmd settles without usage.
type releaseCmd struct {
	From       tokenSource `embed:""`
	Outcome    string      `enum:"success,refused,error,user-cancelled" default:"user-cancelled" help:"Why nothing was used: ${enum}."`
	Connection connection  `embed:"" group:"Server"`
}

// Help is shown by --help.
func (releaseCmd) Help() string {
	return `What was held goes back. Safe to repeat, on any node.

Examples:
  purser release "$token"
  purser release --token-file r.token --outcome error`
}

// Run releases.
func (c *releaseCmd) Run(e *env) error {
	token, err := c.From.read(e.in)
	if err != nil {
		return err
	}
	return c.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		r, err := purserv1.NewAuthorityServiceClient(conn).Release(e.ctx, &purserv1.ReleaseRequest{Token: token, Outcome: outcome(c.Outcome)})
		if err != nil {
			return settling{fmt.Errorf("release: %w", err)}
		}
		return e.out.emit(document.Answer{Message: r}, func(w io.Writer) {
			text := e.out.paint.Green(strings.ToLower(resource.Word(r.GetState())))
			if r.GetReplayed() {
				text += "; this was known: it had ended before"
			}
			printLine(w, "%s", text)
		})
	})
}
