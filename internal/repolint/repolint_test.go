package repolint

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestThisRepository(t *testing.T) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", Module).Output()
	if err != nil {
		t.Fatalf("find the module: %v", err)
	}
	packages, err := Load(strings.TrimSpace(string(root)))
	if err != nil {
		t.Fatal(err)
	}
	// A checker that sees nothing finds nothing.
	for _, must := range []string{"authz", "quota", "quota/escrow", "proto/purser/v1", "internal/repolint"} {
		if !slices.ContainsFunc(packages, func(p Package) bool { return inModule(p.ImportPath) == must }) {
			t.Fatalf("package %s was not listed", must)
		}
	}
	findings, err := Check(packages)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		t.Error(f)
	}
}

func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "go.mod", "module broken\n\ngo 1.26.0\n")
	write(t, dir, "a.go", "package a\n\nimport _ \"broken/missing\"\n")
	if _, err := Load(dir); err == nil {
		t.Fatal("a package with an import that is not there was loaded")
	}
}

func TestCheckImports(t *testing.T) {
	tests := []struct {
		name string
		pkg  Package
		want string // part of the only finding; "" = none
	}{
		{"quota knows authz", pkg("quota/authority", "authz", "quota/escrow"), ""},
		{"authz knows values", pkg("authz", "quota/window", "quota/label"), ""},
		{"authz knows no quota", pkg("authz", "quota"), "authz may not import quota"},
		{"authz knows no other part of quota", pkg("authz", "quota/escrow"), "authz may not import quota/escrow"},
		{"values know no quota", pkg("quota/label", "quota"), "quota/label may not import quota"},
		{"a longer name is no folder", pkg("quota", "quotabook"), "quota may not import quotabook"},
		{"quota knows no storage", pkg("quota/authority", "storage/sqlite"), "quota may not import storage/sqlite"},
		{"quota knows no server", pkg("quota", "server"), "quota may not import server"},
		{"storage knows quota", pkg("storage/sqlite", "storage/relational", "quota", "authz"), ""},
		{"storage knows no contract", pkg("storage/sqlite", "proto/purser/v1"), "storage may not import proto/purser/v1"},
		{"storage knows no test database", pkg("storage/sqlite", "internal/testdb"), "storage may not import internal/testdb"},
		{"the suite does", pkg("storage/storagetest", "internal/testdb", "quota"), ""},
		{"server knows the contract", pkg("server/authority", "proto/purser/v1", "quota"), ""},
		{"server knows no storage", pkg("server", "storage/cockroach"), "server may not import storage/cockroach"},
		{"clients know the contract only", pkg("clients/go", "proto/purser/v1"), ""},
		{"clients know no domain", pkg("clients/go", "quota"), "clients may not import quota"},
		{"cmd wires", pkg("cmd/purser", "server", "storage/sqlite", "quota", "clients/go", "examples"), ""},
		{"nobody knows cmd", pkg("server", "cmd/purser"), "server may not import cmd/purser"},
		{"a new folder has to be placed", pkg("billing", "quota"), "no place in the layers"},
		{"the vague name", pkg("server/util"), "is no name"},
		{"others' packages are not our layers", Package{ImportPath: Module + "/server", Name: "server",
			Imports: []string{"google.golang.org/grpc", "net"}, Deps: []string{"net"}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { expect(t, tt.pkg, tt.want) })
	}
}

func TestCheckVagueClause(t *testing.T) {
	expect(t, Package{ImportPath: Module + "/server/money", Name: "types"}, "is no name")
}

func TestCheckPure(t *testing.T) {
	for _, dep := range []string{"net", "net/http", "database/sql", "database/sql/driver",
		"google.golang.org/grpc", "google.golang.org/grpc/codes", "google.golang.org/protobuf/proto",
		"github.com/jackc/pgx/v5", "modernc.org/sqlite", "go.opentelemetry.io/otel/sdk/trace"} {
		for _, folder := range []string{"quota", "quota/escrow", "authz"} {
			t.Run(folder+" "+dep, func(t *testing.T) {
				expect(t, Package{ImportPath: Module + "/" + folder, Name: "p", Deps: []string{"fmt", dep}}, dep)
			})
		}
	}
	expect(t, Package{ImportPath: Module + "/quota", Name: "quota", Deps: []string{"time", "network", "netip"}}, "")
}

func TestCheckSource(t *testing.T) {
	tests := []struct {
		name, folder, file, source, want string
	}{
		{"called", "server", "a.go", "import \"time\"\nvar x = time.Now()", "a.go:3: time.Now"},
		{"as a value", "storage/sqlite", "a.go", "import \"time\"\nvar x = time.Now", "time.Now"},
		{"under another name", "quota", "a.go", "import clock \"time\"\nvar x = clock.Now()", "time.Now"},
		{"with a dot", "quota", "a.go", "import . \"time\"\nvar x = Now()", "with a dot"},
		{"since", "clients/go", "a.go", "import \"time\"\nvar x = time.Since(time.Time{})", "time.Since"},
		{"on another system", "server", "a_windows.go", "import \"time\"\nvar x = time.Now()", "time.Now"},
		{"in cmd", "cmd/purser", "a.go", "import \"time\"\nvar x = time.Now()", ""},
		{"in a test", "server", "a_test.go", "import \"time\"\nvar x = time.Now()", ""},
		{"something else's Now", "server", "a.go", "type c struct{ Now int }\nvar clock c\nvar x = clock.Now", ""},
		{"a duration", "quota/escrow", "a.go", "import \"time\"\nvar x = time.Second", ""},
		{"timer in the shell", "quota/authority", "a.go", "import \"time\"\nvar x = time.NewTimer(1)", ""},
		{"timer in the core", "quota/escrow", "a.go", "import \"time\"\nvar x = time.NewTimer(1)", "time.NewTimer"},
		{"goroutine in the core", "quota/escrow", "a.go", "func f() { go f() }", "a goroutine"},
		{"channel in the core", "quota/escrow", "a.go", "var c chan int", "a channel"},
		{"select in the core", "quota/escrow", "a.go", "func f() { select {} }", "a select"},
		{"goroutine in the shell", "quota/authority", "a.go", "func f() { go f() }", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.file, "package p\n"+tt.source+"\n")
			expect(t, Package{ImportPath: Module + "/" + tt.folder, Name: "p", Dir: dir, IgnoredGoFiles: []string{tt.file}}, tt.want)
		})
	}
}

func TestCheckReportsWhatIsNoGo(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.go", "package")
	if _, err := Check([]Package{{ImportPath: Module + "/server", Dir: dir, GoFiles: []string{"a.go"}}}); err == nil {
		t.Fatal("a file that does not parse was passed over")
	}
}

// pkg is a package of this module that imports others of it.
func pkg(folder string, imports ...string) Package {
	p := Package{ImportPath: Module + "/" + folder, Name: filepath.Base(folder)}
	for _, i := range imports {
		p.Imports = append(p.Imports, Module+"/"+i)
	}
	return p
}

func expect(t *testing.T, p Package, want string) {
	t.Helper()
	findings, err := Check([]Package{p})
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case want == "" && len(findings) > 0:
		t.Errorf("found %v, want nothing", findings)
	case want != "" && (len(findings) != 1 || !strings.Contains(findings[0].String(), want)):
		t.Errorf("found %v, want one finding with %q", findings, want)
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
