package repolint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// checkSource applies the rules about what is written in the files of a package. Tests are
// not among them.
func checkSource(p *Package) ([]Finding, error) {
	folder := inModule(p.ImportPath)
	var banned []string
	if !within(folder, "cmd") {
		banned = []string{"Now", "Since", "Until"}
	}
	core := within(folder, "quota/escrow")
	if core {
		banned = append(banned, "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick")
	}
	var findings []Finding
	for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		where := func(pos token.Pos) string {
			return fmt.Sprintf("%s/%s:%d", p.ImportPath, name, files.Position(pos).Line)
		}
		findings = append(findings, checkClock(file, banned, where)...)
		if core {
			findings = append(findings, checkConcurrency(file, where)...)
		}
	}
	return findings, nil
}

// checkClock finds the clock in any form: called, passed as a value, under another name.
func checkClock(file *ast.File, banned []string, where func(token.Pos) string) []Finding {
	clock, dotted := importedAs(file, "time")
	if dotted != token.NoPos {
		return []Finding{{where(dotted), "time may not be imported with a dot: its clock could not be found"}}
	}
	if clock == "" {
		return nil
	}
	var findings []Finding
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := selector.X.(*ast.Ident); ok && x.Name == clock && slices.Contains(banned, selector.Sel.Name) {
			findings = append(findings, Finding{where(selector.Pos()),
				"time." + selector.Sel.Name + ": time is an argument or an injected clock here (R44)"})
		}
		return true
	})
	return findings
}

// importedAs is the name by which file knows the package path, "" if it does not.
func importedAs(file *ast.File, path string) (name string, dotted token.Pos) {
	for _, spec := range file.Imports {
		if value, err := strconv.Unquote(spec.Path.Value); err != nil || value != path {
			continue
		}
		switch {
		case spec.Name == nil:
			return path, token.NoPos
		case spec.Name.Name == ".":
			return "", spec.Pos()
		}
		return spec.Name.Name, token.NoPos
	}
	return "", token.NoPos
}

// checkConcurrency keeps the protocol core a state machine: a seed must replay a bug exactly.
func checkConcurrency(file *ast.File, where func(token.Pos) string) []Finding {
	var findings []Finding
	ast.Inspect(file, func(n ast.Node) bool {
		var what string
		switch n.(type) {
		case *ast.GoStmt:
			what = "a goroutine"
		case *ast.ChanType:
			what = "a channel"
		case *ast.SelectStmt:
			what = "a select"
		default:
			return true
		}
		findings = append(findings, Finding{where(n.Pos()), what + " in the core, which is a state machine without I/O"})
		return true
	})
	return findings
}
