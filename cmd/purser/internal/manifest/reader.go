package manifest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/purser-io/purser/quota/amount"
	"github.com/purser-io/purser/quota/label"
)

const maxAmount = amount.Max

// visit reads one node into what it was made for; problems go to the reader.
type visit func(*yaml.Node)

type field struct {
	visit    visit
	required bool
}

type fields map[string]field

// reader collects every problem of a file, so that one run shows all of them.
type reader struct {
	name string
	errs []error
}

func (r *reader) errorf(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s:%d:%d: %s", r.name, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

// mapping reads a mapping with exactly the keys of f.
func (r *reader) mapping(f fields) visit {
	return func(n *yaml.Node) {
		n = resolved(n)
		if n.Kind != yaml.MappingNode {
			r.errorf(n, "want a mapping with the keys %s", f.names())
			return
		}
		seen := make(map[string]bool, len(f))
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			known, ok := f[key.Value]
			switch {
			case !ok:
				r.errorf(key, "unknown key %q, want one of %s", key.Value, f.names())
			case seen[key.Value]:
				r.errorf(key, "the key %q is there twice", key.Value)
			default:
				seen[key.Value] = true
				known.visit(resolved(value))
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f)) {
			if f[name].required && !seen[name] {
				r.errorf(n, "the key %q is missing", name)
			}
		}
	}
}

// at is mapping, keeping the position.
func (r *reader) at(p *Pos, f fields) visit {
	read := r.mapping(f)
	return func(n *yaml.Node) {
		*p = Pos{n.Line, n.Column}
		read(n)
	}
}

// list reads a sequence, each item by what item makes for it.
func list[T any](r *reader, to *[]T, item func(*T) visit) visit {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			r.errorf(n, "want a list")
			return
		}
		*to = make([]T, len(n.Content))
		for i, child := range n.Content {
			item(&(*to)[i])(resolved(child))
		}
	}
}

// scalar hands on the text of a plain or quoted value.
func (r *reader) scalar(what string, take func(text string) error) visit {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
			r.errorf(n, "want %s", what)
			return
		}
		if err := take(n.Value); err != nil {
			r.errorf(n, "%v", err)
		}
	}
}

func (r *reader) text(to *string) visit {
	return r.scalar("text", func(text string) error {
		*to = text
		return nil
	})
}

var (
	idForm      = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	accountForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$`)
)

func (r *reader) id(to *string) visit { return r.matching(to, idForm, "an id") }

func (r *reader) accountID(to *string) visit {
	return r.matching(to, accountForm, "an account or principal id")
}

func (r *reader) matching(to *string, form *regexp.Regexp, what string) visit {
	return r.scalar(what, func(text string) error {
		if !form.MatchString(text) {
			return fmt.Errorf("%q is not %s: it must match %s", text, what, form)
		}
		*to = text
		return nil
	})
}

func (r *reader) oneOf(to *string, values ...string) visit {
	names := strings.Join(values, ", ")
	return r.scalar("one of "+names, func(text string) error {
		if !slices.Contains(values, strings.ToUpper(text)) {
			return fmt.Errorf("%q is not one of %s", text, names)
		}
		*to = strings.ToUpper(text)
		return nil
	})
}

func (r *reader) window(to *string) visit {
	return r.oneOf(to, "HOUR", "DAY", "WEEK", "MONTH", "LIFETIME")
}

func (r *reader) integer(to *int64, least, most int64) visit {
	return r.scalar("a whole number", func(text string) error {
		v, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64)
		if err != nil || v < least || v > most {
			return fmt.Errorf("%q is not a whole number from %d to %d", text, least, most)
		}
		*to = v
		return nil
	})
}

// credits reads the text, never a float: 0.1 has to be a tenth.
func (r *reader) credits(micros *int64, least int64) visit {
	return r.scalar("a number of credits", func(text string) error {
		v, err := amount.ParseCredits(text)
		switch {
		case err != nil:
			return err
		case v < least || v > maxAmount:
			return fmt.Errorf("%s credits are out of range: %s to %s", text, amount.FormatCredits(least), amount.FormatCredits(maxAmount))
		}
		*micros = v
		return nil
	})
}

func (r *reader) boolean(to *bool) visit {
	return r.scalar("true or false", func(text string) error {
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is not true or false", text)
		}
		*to = text == "true"
		return nil
	})
}

// passOver reads nothing, and finds nothing wrong.
func passOver(*yaml.Node) {}

func (r *reader) time(to *time.Time) visit {
	return r.scalar("a time", func(text string) error {
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return fmt.Errorf("%q is not a time such as 2026-01-31T15:04:05Z", text)
		}
		*to = t
		return nil
	})
}

func (r *reader) timeZone(to *string) visit {
	return r.scalar("a time zone", func(text string) error {
		if _, err := time.LoadLocation(text); err != nil || text == "" || text == "Local" {
			return fmt.Errorf("%q is not a time zone such as Europe/Berlin", text)
		}
		*to = text
		return nil
	})
}

// selector reads `team=search`, or `user` for each value of the label.
func (r *reader) selector(key, value *string) visit {
	return r.scalar("a label: user, or team=search", func(text string) error {
		k, v, _ := strings.Cut(text, "=")
		if _, err := label.New(map[string]string{k: v}); err != nil {
			return err
		}
		*key, *value = k, v
		return nil
	})
}

func (r *reader) labels(to *map[string]string) visit {
	return func(n *yaml.Node) {
		if n.Kind != yaml.MappingNode {
			r.errorf(n, "want labels as a mapping")
			return
		}
		m := make(map[string]string, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			var value string
			r.text(&value)(resolved(n.Content[i+1]))
			m[n.Content[i].Value] = value
		}
		if _, err := label.New(m); err != nil {
			r.errorf(n, "%v", err)
		}
		*to = m
	}
}

func (f fields) names() string { return strings.Join(slices.Sorted(maps.Keys(f)), ", ") }

// resolved follows an alias to what it stands for. YAML itself refuses cycles of them.
func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func has(n *yaml.Node, key string) bool {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return true
		}
	}
	return false
}
