// Package resource is what people look after by hand: features, plans, rate cards, accounts,
// grants, budgets and keys.
//
// A kind is one row of [Kinds]: how it is called, listed, shown, described, written to a file
// and removed. The commands get, describe and delete know nothing else of it.
package resource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/table"
)

// Kind is a kind of resource.
type Kind interface {
	About() *About
	// Columns are those of the table that lists it; the first is the id.
	Columns() []table.Column
	// List reads all there are: of an account, if the kind is scoped.
	List(ctx context.Context, s *Server, account string) ([]Object, error)
	// Get reads one by its id: of an account, if the kind is scoped.
	Get(ctx context.Context, s *Server, account, id string) (Object, error)
}

// About is how a kind is called and what can be done with it.
type About struct {
	Name    string   // one of them, as in `purser get account`
	Plural  string   // several, as in `purser get accounts`
	Aliases []string // shorter, or written otherwise
	Scoped  bool     // it stands in an account
	Shared  bool     // scoped, and an account has those of its payer
	Removal string   // what delete does to it: "deleted"; empty if nothing
	Warning string   // what that means
	Refusal string   // why it is never deleted, and what to do instead
}

// Object is one resource.
type Object interface {
	Kind() Kind
	// ID is how people name it; with its account in front, if it stands in one.
	ID() string
	// Cells are its row in a table of Columns.
	Cells(s *Server) []string
	// AddTo writes it to a file.
	AddTo(m *manifest.Manifest)
	// Describe reads what there is to say of it.
	Describe(ctx context.Context, s *Server) (*Description, error)
	// Remove ends it, or checks whether it could, if dry.
	Remove(ctx context.Context, s *Server, dry bool) error
}

// kind is a row of the table of kinds, with the type that the server has for it.
type kind[T any] struct {
	about    About
	columns  []column[T]
	list     func(ctx context.Context, s *Server, account string) ([]T, error)
	get      func(ctx context.Context, s *Server, id string) (T, error) // nil: looked for in the list
	id       func(T) string
	document func(m *manifest.Manifest, v T)
	describe func(ctx context.Context, s *Server, v T, d *Description) error // nil: the columns say it all
	remove   func(ctx context.Context, s *Server, v T, dry bool) error
}

type column[T any] struct {
	table.Column
	cell func(s *Server, v T) string
}

// col, right and wide are columns: of words, of numbers, and of what is shown only if asked for.
func col[T any](name string, cell func(*Server, T) string) column[T] {
	return column[T]{table.Column{Name: name}, cell}
}

func right[T any](name string, cell func(*Server, T) string) column[T] {
	return column[T]{table.Column{Name: name, Right: true}, cell}
}

func wide[T any](name string, cell func(*Server, T) string) column[T] {
	return column[T]{table.Column{Name: name, Wide: true}, cell}
}

// said makes a cell of what the resource itself says.
func said[T any](value func(T) string) func(*Server, T) string {
	return func(_ *Server, v T) string { return value(v) }
}

// About implements [Kind].
func (k *kind[T]) About() *About { return &k.about }

// Columns implements [Kind].
func (k *kind[T]) Columns() []table.Column {
	var out []table.Column
	for _, c := range k.columns {
		out = append(out, c.Column)
	}
	return out
}

// List implements [Kind].
func (k *kind[T]) List(ctx context.Context, s *Server, account string) ([]Object, error) {
	values, err := k.list(ctx, s, account)
	var out []Object
	for _, v := range values {
		out = append(out, object[T]{k, v})
	}
	return out, err
}

// Get implements [Kind].
func (k *kind[T]) Get(ctx context.Context, s *Server, account, id string) (Object, error) {
	if k.get != nil {
		v, err := k.get(ctx, s, id)
		if err != nil {
			return nil, fmt.Errorf("get %s %s: %w", k.about.Name, id, err)
		}
		return object[T]{k, v}, nil
	}
	values, err := k.list(ctx, s, account)
	if err != nil {
		return nil, err
	}
	for _, v := range values {
		if full := k.id(v); full == id || k.about.Scoped && strings.HasSuffix(full, "/"+id) {
			return object[T]{k, v}, nil
		}
	}
	if k.about.Scoped {
		return nil, fmt.Errorf("%s has no %s %q: see purser get %s --account %s", account, k.about.Name, id, k.about.Plural, account)
	}
	return nil, fmt.Errorf("there is no %s %q: see purser get %s", k.about.Name, id, k.about.Plural)
}

type object[T any] struct {
	k *kind[T]
	v T
}

// Kind implements [Object].
func (o object[T]) Kind() Kind { return o.k }

// ID implements [Object].
func (o object[T]) ID() string { return o.k.id(o.v) }

// Cells implements [Object].
func (o object[T]) Cells(s *Server) []string {
	var out []string
	for _, c := range o.k.columns {
		out = append(out, c.cell(s, o.v))
	}
	return out
}

// AddTo implements [Object].
func (o object[T]) AddTo(m *manifest.Manifest) { o.k.document(m, o.v) }

// Describe implements [Object].
func (o object[T]) Describe(ctx context.Context, s *Server) (*Description, error) {
	d := &Description{}
	for i, c := range o.k.columns {
		switch {
		case i == 0:
			d.field("id", c.cell(s, o.v))
		case c.Name != "age": // "created" says it better
			d.field(c.Name, c.cell(s, o.v))
		}
	}
	if o.k.describe == nil {
		return d, nil
	}
	return d, o.k.describe(ctx, s, o.v, d)
}

// Remove implements [Object].
func (o object[T]) Remove(ctx context.Context, s *Server, dry bool) error {
	if o.k.remove == nil {
		return fmt.Errorf("%s %s: %s", o.k.about.Name, o.ID(), o.k.about.Refusal)
	}
	return o.k.remove(ctx, s, o.v, dry)
}

// Kinds lists the kinds of resources, in the order in which they can be made.
func Kinds() []Kind {
	return []Kind{features(), rateCards(), plans(), accounts(), grants(), budgets(), keys()}
}

// Find is the kind of a name: singular, plural or short, in any case.
func Find(name string) (Kind, error) {
	var names []string
	for _, k := range Kinds() {
		a := k.About()
		if all := append([]string{a.Name, a.Plural}, a.Aliases...); slices.Contains(all, strings.ToLower(name)) {
			return k, nil
		}
		names = append(names, a.Plural)
	}
	return nil, fmt.Errorf("there is no kind of resource %q: want one of %s", name, strings.Join(names, ", "))
}
