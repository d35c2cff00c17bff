package main

import (
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// balanceCmd shows what an account has.
type balanceCmd struct {
	Account    string     `arg:"" completion:"account" help:"Account id."`
	Connection connection `embed:"" group:"Server"`
}

// Help is shown by --help.
func (balanceCmd) Help() string {
	return `The wallet is that of the account's payer. "available" is what can be reserved at this node, "held" what its reservations hold, "elsewhere" what is out on other nodes; "total" and "debt" follow settlements within moments. Below it stand the open grants in the order in which they are spent, and the budget windows that are open.

Examples:
  purser balance acme
  purser balance acme -o json`
}

// Run shows the balance.
func (b *balanceCmd) Run(e *env) error {
	return b.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		r, err := purserv1.NewAuthorityServiceClient(conn).GetBalance(e.ctx, &purserv1.GetBalanceRequest{Account: b.Account})
		if err != nil {
			return fmt.Errorf("balance of %s: %w", b.Account, err)
		}
		return e.out.emit(document.Answer{Message: r}, func(w io.Writer) {
			printLine(w, "wallet of %s, in credits, at %s", r.GetPayer(), r.GetAsOf().AsTime().Format(time.RFC3339))
			for _, figure := range resource.Wallet(r) {
				text := figure[1]
				if figure[0] == "debt" && r.GetDebtMicros() > 0 {
					text = e.out.paint.Red(text)
				}
				printLine(w, "  %-10s %s", figure[0], text)
			}
			resource.GrantSection(r).Write(w)
			resource.BudgetSection(r, nil).Write(w)
		})
	})
}
