// Package repolint holds the repository's rules that no compiler checks: which folder may
// import which, what the domain may not know, and where a clock may be read. Its test applies
// them to this repository; it is not a style checker.
package repolint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"strings"
)

// Module is the path of the module whose packages are checked.
const Module = "github.com/purser-io/purser"

// Package is what `go list -json` says of a package, as far as the rules need it.
type Package struct {
	ImportPath     string
	Name           string
	Dir            string
	GoFiles        []string // without tests
	CgoFiles       []string
	IgnoredGoFiles []string // built on other systems only
	Imports        []string
	Deps           []string // imports of imports too
	Incomplete     bool     // something imported could not be loaded
	DepsErrors     []struct{ Err string }
}

// Finding is one breach of a rule.
type Finding struct {
	Where string // import path, or file:line
	What  string
}

// String is the finding as one line.
func (f Finding) String() string { return f.Where + ": " + f.What }

// Load lists the packages of the module in dir. It runs the go command, and fails if any
// package cannot be loaded: its imports would be unknown, not allowed.
func Load(dir string) ([]Package, error) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Dir,GoFiles,CgoFiles,IgnoredGoFiles,Imports,Deps,Incomplete,DepsErrors", "./...")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return nil, fmt.Errorf("list packages: %w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("list packages: %w", err)
	}
	var packages []Package
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("list packages: %w", err)
		}
		if p.Incomplete {
			return nil, fmt.Errorf("list packages: %s is incomplete: %v", p.ImportPath, p.DepsErrors)
		}
		packages = append(packages, p)
	}
}

// Check applies all rules to packages, reading their source files.
func Check(packages []Package) ([]Finding, error) {
	var findings []Finding
	for i := range packages {
		p := &packages[i]
		findings = append(findings, checkName(p)...)
		findings = append(findings, checkDirection(p)...)
		findings = append(findings, checkPure(p)...)
		inSource, err := checkSource(p)
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", p.ImportPath, err)
		}
		findings = append(findings, inSource...)
	}
	return findings, nil
}

// vague names say nothing of what is inside, and so attract everything.
var vague = []string{"util", "utils", "common", "helper", "helpers", "types", "models", "misc"}

func checkName(p *Package) []Finding {
	for _, name := range vague {
		if p.Name == name || path.Base(p.ImportPath) == name {
			return []Finding{{p.ImportPath, fmt.Sprintf("%q is no name for a package: name the noun it is about", name)}}
		}
	}
	return nil
}

// layers says what the packages under each folder may import of this module: these folders.
// A folder that is not listed may import nothing of it, so a new one has to be placed here.
var layers = []struct {
	folder string
	may    []string
}{
	// The values that an entitlement is made of, below authz though they stand under quota.
	{"quota/amount", []string{"quota/amount"}},
	{"quota/label", []string{"quota/label"}},
	{"quota/window", []string{"quota/window"}},

	{"authz", []string{"authz", "quota/amount", "quota/label", "quota/window"}},
	{"quota", []string{"quota", "authz"}},
	{"storage/storagetest", []string{"storage", "quota", "authz", "internal"}},
	{"storage", []string{"storage", "quota", "authz"}},
	{"proto", []string{"proto"}},
	{"server", []string{"server", "quota", "authz", "proto"}},
	{"clients", []string{"clients", "proto"}},
	{"cmd", []string{"cmd", "server", "storage", "quota", "authz", "clients", "proto", "examples"}},
	{"examples", []string{"clients", "proto"}},
	// A node for the tests of clients.
	{"internal/testnode", []string{"internal", "server", "storage", "quota", "authz", "proto"}},
	{"internal", []string{"internal"}},
}

func checkDirection(p *Package) []Finding {
	folder, may := layerOf(inModule(p.ImportPath))
	var findings []Finding
	for _, imported := range p.Imports {
		if !within(imported, Module) || underAny(inModule(imported), may) {
			continue
		}
		what := fmt.Sprintf("%s may not import %s", folder, inModule(imported))
		if folder == "" {
			what = "its folder has no place in the layers of repolint, so it may not import " + inModule(imported)
		}
		findings = append(findings, Finding{p.ImportPath, what})
	}
	return findings
}

func layerOf(folder string) (name string, may []string) {
	for _, l := range layers {
		if within(folder, l.folder) {
			return l.folder, l.may
		}
	}
	return "", nil
}

// impure is what the domain may not know, even through others: gRPC, protobuf, SQL, network, and
// where telemetry goes.
var impure = []string{
	"google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto",
	"buf.build/gen", "buf.build/go/protovalidate", "github.com/grpc-ecosystem",
	"database/sql", "github.com/jackc", "github.com/cockroachdb", "modernc.org/sqlite", "github.com/pressly",
	"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/exporters", "go.opentelemetry.io/contrib",
	"net",
}

func checkPure(p *Package) []Finding {
	folder := inModule(p.ImportPath)
	if !underAny(folder, []string{"quota", "authz"}) {
		return nil
	}
	var findings []Finding
	for _, dep := range p.Deps {
		if underAny(dep, impure) {
			findings = append(findings, Finding{p.ImportPath, "the domain may not depend on " + dep})
		}
	}
	return findings
}

// inModule is an import path without the module's.
func inModule(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, Module), "/")
}

// within reports whether an import path is folder or below it.
func within(importPath, folder string) bool {
	return importPath == folder || strings.HasPrefix(importPath, folder+"/")
}

func underAny(importPath string, folders []string) bool {
	for _, folder := range folders {
		if within(importPath, folder) {
			return true
		}
	}
	return false
}
