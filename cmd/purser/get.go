package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/table"
)

// selection is how the commands that work on resources name them.
type selection struct {
	Kind        string     `arg:"" completion:"kind" help:"Kind of resource, singular, plural or short: features, plans, ratecards, accounts, grants, budgets, keys. KIND/ID names one."`
	IDs         []string   `arg:"" optional:"" name:"id" completion:"id" help:"Ids. Grants and budgets are ACCOUNT/ID, or with --account only ID. A plan or rate card may have a version behind it: pro@2."`
	Account     string     `placeholder:"ID" completion:"account" help:"The account whose grants or budgets are meant."`
	AllAccounts bool       `short:"A" help:"Grants or budgets of all accounts."`
	Connection  connection `embed:"" group:"Server"`
}

// chosen is kinds with the ids wanted of them.
type chosen struct {
	kinds []resource.Kind
	ids   []string // empty: all of them
}

// choose reads kind and ids, without a server.
func (s *selection) choose() (c chosen, err error) {
	names, id, single := strings.Cut(s.Kind, "/")
	c.ids = s.IDs
	if single {
		if len(s.IDs) > 0 {
			return c, usageError{fmt.Errorf("%s names one already: want either KIND ID... or KIND/ID", s.Kind)}
		}
		c.ids = []string{id}
	}
	if names == "all" {
		c.kinds = resource.Kinds()
		s.AllAccounts = s.AllAccounts || s.Account == ""
	} else {
		for _, name := range strings.Split(names, ",") {
			kind, err := resource.Find(name)
			if err != nil {
				return c, usageError{err}
			}
			c.kinds = append(c.kinds, kind)
		}
	}
	if len(c.ids) > 0 && len(c.kinds) > 1 {
		return c, usageError{errors.New("ids go with one kind of resource only")}
	}
	if s.Account != "" && s.AllAccounts {
		return c, usageError{errors.New("--account and --all-accounts exclude each other")}
	}
	return c, nil
}

// read reads what was chosen.
func (s *selection) read(e *env, server *resource.Server, c chosen) ([]resource.Object, error) {
	var out []resource.Object
	for _, kind := range c.kinds {
		objects, err := s.readKind(e, server, kind, c.ids)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, nil
}

func (s *selection) readKind(e *env, server *resource.Server, kind resource.Kind, ids []string) (out []resource.Object, err error) {
	about := kind.About()
	if len(ids) == 0 {
		if about.Scoped && s.AllAccounts {
			return everyAccount(e, server, kind)
		}
		if about.Scoped && s.Account == "" {
			return nil, usageError{fmt.Errorf("%s stand in an account: say --account ID, or --all-accounts", about.Plural)}
		}
		return kind.List(e.ctx, server, s.Account)
	}
	for _, id := range ids {
		account := s.Account
		if in, rest, ok := strings.Cut(id, "/"); ok && about.Scoped {
			if account != "" && account != in {
				return nil, usageError{fmt.Errorf("%s %s is not of --account %s", about.Name, id, account)}
			}
			account, id = in, rest
		}
		if about.Scoped && account == "" {
			return nil, usageError{fmt.Errorf("%s %s stands in an account: say --account ID, or name it ACCOUNT/%s", about.Name, id, id)}
		}
		o, err := kind.Get(e.ctx, server, account, id)
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// everyAccount lists what stands in accounts, of all of them.
func everyAccount(e *env, server *resource.Server, kind resource.Kind) (out []resource.Object, err error) {
	stop := showElapsed(e, "reading the "+kind.About().Plural+" of all accounts")
	defer stop()
	accounts, err := server.ListAccounts(e.ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range accounts {
		if kind.About().Shared && a.GetPayer() != a.GetId() {
			continue // they are its payer's
		}
		objects, err := kind.List(e.ctx, server, a.GetId())
		if err != nil {
			return nil, fmt.Errorf("%s of account %s: %w", kind.About().Plural, a.GetId(), err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

// with runs fn with a server to read from.
func (s *selection) with(e *env, fn func(*resource.Server) error) error {
	return s.Connection.with(e, "", func(conn grpc.ClientConnInterface) error {
		return fn(resource.Connect(conn, e.clock.Now()))
	})
}

// getCmd lists resources.
type getCmd struct {
	Select selection `embed:""`
}

// Help is shown by --help.
func (getCmd) Help() string {
	return `"purser get all" is everything. With -o yaml or json the result is a file for purser apply: applying it changes nothing, and what the server alone knows stands under status. Amounts of credits are strings in it, so that no reader makes floats of them.

Kinds, with their short names: features (f), ratecards (rc), plans (p), accounts (a), grants (g), budgets (b), keys (k).

Examples:
  purser get accounts
  purser get account acme globex -o yaml
  purser get plans,ratecards -o wide
  purser get plan pro@2 -o yaml
  purser get grants --account acme
  purser get budgets --all-accounts -o json
  purser get all -o yaml > backup.yaml
  purser get keys -o name`
}

func (getCmd) formats() []string { return []string{formatWide, formatName} }

// Run lists.
func (g *getCmd) Run(e *env) error {
	chosen, err := g.Select.choose()
	if err != nil {
		return err
	}
	return g.Select.with(e, func(server *resource.Server) error {
		objects, err := g.Select.read(e, server, chosen)
		if err != nil {
			return err
		}
		if e.out.format == formatName {
			for _, o := range objects {
				e.out.printf("%s/%s\n", o.Kind().About().Name, o.ID())
			}
			return nil
		}
		var m manifest.Manifest
		for _, o := range objects {
			o.AddTo(&m)
		}
		return e.out.emit(&m, func(w io.Writer) { printObjects(w, e, server, chosen, objects) })
	})
}

// printObjects writes a table for each kind.
func printObjects(w io.Writer, e *env, server *resource.Server, c chosen, objects []resource.Object) {
	first := true
	for _, kind := range c.kinds {
		t := table.Table{Columns: kind.Columns()}
		for _, o := range objects {
			if o.Kind().About().Name == kind.About().Name {
				t.Rows = append(t.Rows, o.Cells(server))
			}
		}
		if len(t.Rows) == 0 {
			fmt.Fprintf(e.stderr, "no %s\n", kind.About().Plural)
			continue
		}
		if !first {
			printLine(w, "")
		}
		first = false
		t.Write(w, e.out.format == formatWide)
	}
}
