package mutation

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is for one test on a machine that has much else to do.
const patience = 2 * time.Minute

// TestEveryMutantIsCaught makes each mistake and expects the named test to find it, for the
// stated reason, within the stated steps. It is the gate: a mistake that nobody notices fails it,
// and so does one that can no longer be made as it is written down here.
func TestEveryMutantIsCaught(t *testing.T) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir, built := t.TempDir(), make(map[string]string)
	for i := range mutants {
		m := &mutants[i]
		t.Run(strconv.Itoa(m.number)+" "+m.rule, func(t *testing.T) {
			name, edits := m.build()
			if built[name] == "" {
				built[name] = compile(t, root, filepath.Join(dir, name), m.pkg, edits)
			}
			out, failed := m.run(t, root, built[name])
			m.judge(t, out, failed)
		})
	}
}

// build names the build with the mistake, and all that is edited for it.
func (m *mutant) build() (name string, edits []edit) {
	if !m.shared || os.Getenv("TEST_MUTATION") == "long" {
		return strconv.Itoa(m.number), m.edits
	}
	for i := range mutants {
		if mutants[i].shared {
			edits = append(edits, mutants[i].edits...)
		}
	}
	return "shared", edits
}

// compile builds the tests of a package, with edits in the product.
func compile(t *testing.T, root, dir, pkg string, edits []edit) (binary string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	texts := make(map[string]string)
	for _, e := range edits {
		path := filepath.Join(root, filepath.FromSlash(e.file))
		text, edited := texts[path]
		if !edited {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		}
		if n := strings.Count(text, e.from); n != 1 {
			t.Fatalf("%s has %q %d times, want once: the rule stands elsewhere now, and so must the mistake", e.file, e.from, n)
		}
		texts[path] = strings.Replace(text, e.from, e.to, 1)
	}
	for path, text := range texts {
		to := filepath.Join(dir, strconv.Itoa(len(overlay.Replace))+".go")
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = to
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "mutant.test")
	// Without symbols the linker has half the work.
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", list, "-o", binary, "./"+pkg)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mistake does not compile: %v\n%s", err, out)
	}
	return binary
}

// run runs the named test alone.
func (m *mutant) run(t *testing.T, root, binary string) (out string, failed bool) {
	t.Helper()
	c := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run", m.pattern(), "-test.timeout", patience.String())
	c.Dir = filepath.Join(root, filepath.FromSlash(m.pkg))
	b, err := c.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(b), err != nil
}

// pattern selects exactly the named test.
func (m *mutant) pattern() string {
	parts := strings.Split(m.test, "/")
	for i, p := range parts {
		parts[i] = "^" + regexp.QuoteMeta(p) + "$"
	}
	return strings.Join(parts, "/")
}

// steps are how the models say how far they had to go.
var steps = map[string]*regexp.Regexp{
	smallModel: regexp.MustCompile(`after (\d+) of these moves`),
	modelTest:  regexp.MustCompile(`seed (\d+): `),
}

// judge looks at what the test said.
func (m *mutant) judge(t *testing.T, out string, failed bool) {
	t.Helper()
	switch {
	case strings.Contains(out, "panic: test timed out"):
		t.Fatalf("it took too long:\n%.4000s", out)
	case !strings.Contains(out, "--- FAIL: "+m.test+" ") || !failed:
		t.Fatalf("%s did not notice:\n%.4000s", m.test, out)
	}
	found := regexp.MustCompile(".*(" + m.says + ").*").FindString(out)
	if found == "" {
		t.Fatalf("%s failed, and not for the reason %q:\n%.4000s", m.test, m.says, out)
	}
	t.Logf("%.200s", strings.TrimSpace(found))
	if steps[m.layer] == nil {
		return
	}
	far := steps[m.layer].FindStringSubmatch(out)
	if far == nil {
		t.Fatalf("it does not say after how many steps:\n%.4000s", out)
	}
	if n, err := strconv.Atoi(far[1]); err != nil || n > m.within {
		t.Errorf("found after %s steps, want at most %d", far[1], m.within)
	}
	t.Logf("after %s", far[1])
}

// TestDocumented: docs/verification.md has the table of what is tried here.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "verification.md"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range mutants {
		m := &mutants[i]
		if m.number != i+1 {
			t.Errorf("mutant %d stands at place %d", m.number, i+1)
		}
		if row := m.row(); !strings.Contains(string(page), row) {
			t.Errorf("docs/verification.md lacks\n%s", row)
		}
	}
}

// row is the mutant in the table.
func (m *mutant) row() string {
	within := "one case"
	switch m.layer {
	case smallModel:
		within = fmt.Sprintf("%d moves", m.within)
	case modelTest:
		within = fmt.Sprintf("%d histories", m.within)
	}
	return fmt.Sprintf("| %d | %s | %s | `%s` | %s |\n", m.number, m.rule, m.layer, m.test, within)
}
