// Package completion completes command lines in a shell. The shell calls the program back, with
// [Command] and the words so far; everything it can say comes from the commands themselves.
package completion

import (
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/purser-io/purser/cmd/purser/internal/resource"
)

// Command is the first argument by which a shell asks.
const Command = "__complete"

// Files, instead of candidates, tells the shell to complete names of files.
const Files = ":files"

// Line is a command line as far as it is written.
type Line struct {
	node  *kong.Node
	flags map[string]string
	args  []string // positional
}

// Flag is the value of a flag: as written, by environment, or by default.
func (l Line) Flag(name string) string {
	if v, ok := l.flags[name]; ok {
		return v
	}
	f := find(l.node, "--"+name)
	if f == nil {
		return ""
	}
	for _, env := range f.Envs {
		if v := os.Getenv(env); v != "" {
			return v
		}
	}
	return f.Default
}

// Arg is a positional argument, from 0; empty if it is not there.
func (l Line) Arg(i int) string {
	if i >= len(l.args) {
		return ""
	}
	return l.args[i]
}

// Complete lists what the last of words may become, one candidate to a line: the word, and for
// some a tab and what it means. ask lists ids of a kind of resource; "id" is one of the kind
// that the line names.
func Complete(root *kong.Node, words []string, ask func(what string, l Line) []string) []string {
	if len(words) == 0 {
		words = []string{""}
	}
	l := Line{node: root, flags: map[string]string{}}
	words = joined(words)
	word := words[len(words)-1]
	pending := l.read(words[:len(words)-1])
	switch name, value, ok := strings.Cut(word, "="); {
	case pending != nil:
		return matching(l.values(pending.Value, ask), word, "")
	case ok && strings.HasPrefix(word, "--"):
		if f := find(l.node, name); f != nil {
			return matching(l.values(f.Value, ask), value, name+"=")
		}
		return nil
	case strings.HasPrefix(word, "-"):
		return matching(flags(l.node), word, "")
	case len(l.node.Children) > 0:
		return matching(commands(l.node), word, "")
	}
	positional := l.node.Positional
	if len(positional) == 0 {
		return nil
	}
	return matching(l.values(positional[min(len(l.args), len(positional)-1)], ask), word, "")
}

// joined puts back together what bash splits at = signs: --output = yaml.
func joined(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		last := len(out) - 1
		if words[i] != "=" || last < 0 || !strings.HasPrefix(out[last], "--") {
			out = append(out, words[i])
			continue
		}
		// What is completed is the value alone, as bash sees it: a word of its own.
		if i++; i < len(words) {
			out = append(out, words[i])
		} else {
			out = append(out, "")
		}
	}
	return out
}

// read takes in the words before the last. It returns the flag whose value comes next, if any.
func (l *Line) read(words []string) (pending *kong.Flag) {
	for _, w := range words {
		switch {
		case pending != nil:
			l.flags[pending.Name] = w
			pending = nil
		case strings.HasPrefix(w, "-") && w != "-":
			name, value, ok := strings.Cut(w, "=")
			f := find(l.node, name)
			switch {
			case f == nil:
			case ok:
				l.flags[f.Name] = value
			case f.IsBool():
				l.flags[f.Name] = "true"
			default:
				pending = f
			}
		default:
			i := slices.IndexFunc(l.node.Children, func(n *kong.Node) bool { return n.Name == w })
			if i < 0 {
				l.args = append(l.args, w)
				continue
			}
			l.node = l.node.Children[i]
		}
	}
	return pending
}

// find is a flag of a command or of those above it.
func find(n *kong.Node, word string) *kong.Flag {
	for ; n != nil; n = n.Parent {
		for _, f := range n.Flags {
			if word == "--"+f.Name || f.Short != 0 && word == "-"+string(f.Short) {
				return f
			}
		}
	}
	return nil
}

// values are what a flag or argument may be.
func (l *Line) values(v *kong.Value, ask func(string, Line) []string) []string {
	switch what := v.Tag.Get("completion"); {
	case what == "file" || v.Tag.Type == "path":
		return []string{Files}
	case what == "kind":
		var out []string
		for _, k := range resource.Kinds() {
			out = append(out, k.About().Plural)
		}
		return append(out, "all")
	case what != "":
		return ask(what, *l)
	case v.IsBool():
		return nil
	}
	return v.EnumSlice()
}

func flags(n *kong.Node) (out []string) {
	for ; n != nil; n = n.Parent {
		for _, f := range n.Flags {
			if !f.Hidden {
				out = append(out, "--"+f.Name+"\t"+f.Help)
			}
		}
	}
	return out
}

func commands(n *kong.Node) (out []string) {
	for _, c := range n.Children {
		if !c.Hidden {
			out = append(out, c.Name+"\t"+c.Help)
		}
	}
	return out
}

// matching are the candidates that begin as the word does, each with the part of the word in
// front that is not completed.
func matching(candidates []string, word, front string) (out []string) {
	for _, c := range candidates {
		if c == Files || c != "" && strings.HasPrefix(c, word) {
			if c != Files {
				c = front + c
			}
			out = append(out, c)
		}
	}
	return out
}
