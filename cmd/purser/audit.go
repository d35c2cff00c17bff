package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/audit"
	"github.com/purser-io/purser/quota/token"
)

// auditCmd audits a store.
type auditCmd struct {
	Store       storeURL `required:"" placeholder:"URL" help:"sqlite:PATH or postgresql://..."`
	Quiescent   bool     `help:"Every node has drained: nothing may be set aside any more, everything must be projected (I15)."`
	Against     []string `type:"path" placeholder:"FILE" help:"A client's own record of acknowledgements, JSON lines; the store must have each (I10)."`
	MaxFindings int      `default:"100" help:"Most findings named."`
}

// Help is shown by --help.
func (auditCmd) Help() string {
	return `Reads one consistent state of the store, writes nothing, and disturbs no server that runs on it. Every finding is named by its invariant, and the exit code is 1 if there is one.

A line of a file for --against is {"reservation_id": "...", "state": "COMMITTED", "charged_micros": 1250}; state may be left out, RELEASED is the other one. Other keys are ignored.

Examples:
  purser audit --store sqlite:purser.db
  purser audit --store postgresql://purser@db/purser --against acknowledged.jsonl`
}

// Run audits.
func (a *auditCmd) Run(e *env) error {
	store, err := a.Store.openReadOnly(e.ctx, e.log, e.clock)
	if err != nil {
		return err
	}
	options := audit.Options{Quiescent: a.Quiescent, MaxFindings: a.MaxFindings}
	if len(a.Against) > 0 {
		options.Acknowledged = acknowledged(a.Against)
	}
	stop := showElapsed(e, "auditing "+a.Store.String())
	report, err := audit.Run(e.ctx, store, options)
	stop()
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}
	if err := e.out.emit(report, func(w io.Writer) { printAudit(w, report) }); err != nil {
		return err
	}
	if !report.OK() {
		return errFindings
	}
	return nil
}

// booksBalance is the last line of a good audit.
const booksBalance = "audit: ok, books balance"

func printAudit(w io.Writer, r *audit.Report) {
	printLine(w, "audited %d pots, %d allotments, %d lanes, %d settlements in %d batches, %d usage events, %d acknowledgements",
		r.Pots, r.Allotments, r.Lanes, r.Entries, r.Batches, r.UsageEvents, r.Acknowledged)
	for _, f := range r.Findings {
		printLine(w, "finding: %s", f)
	}
	if r.OK() {
		printLine(w, booksBalance)
		return
	}
	printLine(w, "audit: %d findings, the books do not balance", len(r.Findings)+r.More)
}

func printLine(w io.Writer, format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

// acknowledged reads files of acknowledgements one after the other.
func acknowledged(files []string) iter.Seq2[audit.Acknowledged, error] {
	return func(yield func(audit.Acknowledged, error) bool) {
		for _, name := range files {
			f, err := os.Open(name)
			if err != nil {
				yield(audit.Acknowledged{}, err)
				return
			}
			more := readAcknowledged(name, f, yield)
			if err := f.Close(); err != nil && more {
				more = yield(audit.Acknowledged{}, err)
			}
			if !more {
				return
			}
		}
	}
}

func readAcknowledged(name string, r io.Reader, yield func(audit.Acknowledged, error) bool) (more bool) {
	s := bufio.NewScanner(r)
	line := 0
	for s.Scan() {
		line++
		a, err := parseAcknowledged(s.Bytes())
		if err != nil {
			err = fmt.Errorf("%s:%d: %w", name, line, err)
		}
		if !yield(a, err) || err != nil {
			return false
		}
	}
	if err := s.Err(); err != nil {
		yield(audit.Acknowledged{}, fmt.Errorf("%s:%d: %w", name, line+1, err))
		return false
	}
	return true
}

func parseAcknowledged(line []byte) (audit.Acknowledged, error) {
	var in struct {
		ID      string `json:"reservation_id"`
		State   string `json:"state"`
		Charged int64  `json:"charged_micros"`
	}
	if err := json.Unmarshal(line, &in); err != nil {
		return audit.Acknowledged{}, fmt.Errorf("want a JSON object with reservation_id and charged_micros: %w", err)
	}
	lane, sequence, nonce, err := token.ParseReservationID(in.ID)
	if err != nil {
		return audit.Acknowledged{}, err
	}
	out := audit.Acknowledged{Lane: quota.LaneID(lane), Sequence: sequence, Nonce: nonce, Charged: in.Charged, Kind: quota.Committed}
	switch in.State {
	case "", "COMMITTED":
	case "RELEASED":
		out.Kind = quota.Released
	default:
		return out, fmt.Errorf("state is %q, want COMMITTED or RELEASED", in.State)
	}
	return out, nil
}
