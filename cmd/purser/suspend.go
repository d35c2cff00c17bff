package main

import (
	"fmt"
	"io"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// suspendCmd denies new work to an account.
type suspendCmd struct {
	Account    string     `arg:"" completion:"account" help:"Account id."`
	Reason     string     `placeholder:"TEXT" help:"Why; denials say it."`
	Sync       bool       `help:"Answer only when every node has stopped issuing for it."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (suspendCmd) Help() string {
	return `New reservations of the account, and of all accounts below it, are denied. What is reserved can still be settled. Nodes follow within about a second; with --sync the answer comes when all have.

Examples:
  purser suspend acme --reason "unpaid invoice"
  purser suspend acme --sync`
}

// Run suspends.
func (s *suspendCmd) Run(e *env) error {
	return s.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		r, err := purserv1.NewAccountServiceClient(conn).SuspendAccount(e.ctx,
			&purserv1.SuspendAccountRequest{Account: s.Account, Reason: s.Reason, Sync: s.Sync})
		return printAccount(e, r.GetAccount(), "suspended", err)
	})
}

// resumeCmd ends a suspension.
type resumeCmd struct {
	Account    string     `arg:"" completion:"account" help:"Account id."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (resumeCmd) Help() string {
	return `Examples:
  purser resume acme`
}

// Run resumes.
func (r *resumeCmd) Run(e *env) error {
	return r.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		answer, err := purserv1.NewAccountServiceClient(conn).ResumeAccount(e.ctx, &purserv1.ResumeAccountRequest{Account: r.Account})
		return printAccount(e, answer.GetAccount(), "active", err)
	})
}

func printAccount(e *env, a *purserv1.Account, state string, err error) error {
	if err != nil {
		return fmt.Errorf("account: %w", err)
	}
	return e.out.emit(document.Answer{Message: a}, func(w io.Writer) { printLine(w, "account %s is %s", a.GetId(), state) })
}
