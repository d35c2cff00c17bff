package sqlgrammar

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	crdb "github.com/cockroachdb/cockroachdb-parser/pkg/sql/parser"
)

// The packages whose SQL CockroachDB gets to see, each without the one file that it does not.
var packages = []struct{ dir, except string }{
	{dir: "../../storage/relational"},
	{dir: "../../storage/cockroach"},
	{dir: "../../cmd/purser/internal/bench/naive", except: "sqlite.go"},
}

// verb is how every statement begins. Go code has no other strings of that form, and if it
// had, they would be parsed too and fail the test.
var verb = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|UPSERT|DELETE|MERGE|WITH|VALUES|TABLE|CREATE|ALTER|DROP|TRUNCATE|` +
	`SHOW|SET|RESET|BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|LOCK|EXPLAIN|CALL|DO|LISTEN|NOTIFY|PREPARE|EXECUTE|COPY|` +
	`GRANT|REVOKE|COMMENT|ANALYZE|VACUUM)\s`)

// statement is SQL with the place it stands at.
type statement struct{ place, sql string }

// source is one package's Go code.
type source struct {
	set    *token.FileSet
	files  []*ast.File
	consts map[string]ast.Expr
}

func readSource(t *testing.T, dir, except string) *source {
	t.Helper()
	s := &source{set: token.NewFileSet(), consts: map[string]ast.Expr{}}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == except {
			continue
		}
		f, err := parser.ParseFile(s.set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		s.add(f)
	}
	return s
}

// add takes in a file and the constants it declares, at any level.
func (s *source) add(f *ast.File) {
	s.files = append(s.files, f)
	ast.Inspect(f, func(n ast.Node) bool {
		if d, ok := n.(*ast.GenDecl); ok && d.Tok == token.CONST {
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for i, value := range v.Values {
					s.consts[v.Names[i].Name] = value
				}
			}
		}
		return true
	})
}

// statements finds every string, folded over + and constants, that begins with a verb.
func (s *source) statements() (found []statement) {
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			sql, ok := s.fold(e)
			if !ok {
				return true
			}
			if verb.MatchString(sql) {
				found = append(found, statement{s.set.Position(e.Pos()).String(), sql})
			}
			return false
		})
	}
	return found
}

// fold evaluates a string expression. Of what is not constant, the one thing allowed is the
// transaction's suffix that locks rows, which is FOR UPDATE on CockroachDB.
func (s *source) fold(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.Ident:
		value, ok := s.consts[e.Name]
		if !ok {
			return "", false
		}
		return s.fold(value)
	case *ast.ParenExpr:
		return s.fold(e.X)
	case *ast.CallExpr:
		if f, ok := e.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "ForUpdate" {
			return " FOR UPDATE", true
		}
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		left, ok := s.fold(e.X)
		if !ok {
			return "", false
		}
		right, ok := s.fold(e.Y)
		return left + right, ok
	}
	return "", false
}

func TestStatements(t *testing.T) {
	total := 0
	for _, p := range packages {
		found := readSource(t, p.dir, p.except).statements()
		if len(found) == 0 {
			t.Errorf("%s: no statements found", p.dir)
		}
		for _, s := range found {
			if err := parse(s.sql); err != nil {
				t.Errorf("%s: %v\n%s", s.place, err, s.sql)
			}
		}
		total += len(found)
	}
	t.Logf("%d statements", total)
}

func TestMigrations(t *testing.T) {
	names, err := filepath.Glob("../../storage/cockroach/migrations/*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("no migrations: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := parse(string(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the driver library sends on our behalf.
func TestTransactionStatements(t *testing.T) {
	for _, sql := range []string{
		"begin isolation level serializable", "begin isolation level serializable read only", "commit", "rollback",
	} {
		if err := parse(sql); err != nil {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

// parse accepts exactly one statement.
func parse(sql string) error {
	_, err := crdb.ParseOne(sql)
	return err
}

// The test is worth nothing if it accepts everything, or if a way to write SQL escapes it.
func TestTheTestCanFail(t *testing.T) {
	for _, sql := range []string{
		"SELECT FROM WHERE", "SELECT 1; SELECT 2", "", "INSERT INTO t (a) VALUES (%s)",
		"DELETE FROM t USING u WHERE", "SELECT a FROM t FOR UPDATE OF",
	} {
		if parse(sql) == nil {
			t.Errorf("accepted: %q", sql)
		}
	}
	const code = "package p\n" +
		"const a = `SELECT ` + b\n" +
		"const b = \"1\"\n" +
		"func f(tx tx) {\n" +
		"\tconst inner = `UPDATE t SET a = 1`\n" +
		"\ttx.Exec(inner, \"not SQL\", x+`DELETE FROM t`)\n" +
		"\ttx.Exec(`INSERT INTO t (a) VALUES (1)`)\n" +
		"\ttx.Query(a + tx.ForUpdate())\n" +
		"\ttx.Query(`SELECT ` + variable)\n" +
		"}\n"
	s := &source{set: token.NewFileSet(), consts: map[string]ast.Expr{}}
	f, err := parser.ParseFile(s.set, "p.go", code, 0)
	if err != nil {
		t.Fatal(err)
	}
	s.add(f)
	got := map[string]bool{}
	for _, st := range s.statements() {
		got[st.sql] = true
	}
	for _, want := range []string{"SELECT 1", "SELECT 1 FOR UPDATE", "UPDATE t SET a = 1", "DELETE FROM t",
		"INSERT INTO t (a) VALUES (1)", "SELECT "} {
		if !got[want] {
			t.Errorf("not found: %q", want)
		}
	}
	if got["not SQL"] {
		t.Error("found what is not SQL")
	}
}
