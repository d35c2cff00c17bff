package tour

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// block is a fenced block of the README.
type block struct {
	language string
	text     string
	line     int
}

// section returns the blocks of a section, in order.
func section(t *testing.T, heading string) (blocks []block) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	inside, open := false, false
	for i, line := range strings.Split(string(raw), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case !open && strings.HasPrefix(line, "## "):
			inside = line == heading
		case fence && inside && !open:
			blocks = append(blocks, block{language: language, line: i + 2})
			open = true
		case fence:
			open = false
		case open:
			b := &blocks[len(blocks)-1]
			b.text += line + "\n"
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("the README has no blocks under %q", heading)
	}
	return blocks
}

// copyTree copies what a clone has, and what is not ignored.
func copyTree(t *testing.T, to string) {
	t.Helper()
	command := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	command.Dir = root
	list, err := command.Output()
	if err != nil {
		t.Fatalf("list the repository's files: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// freePort is a port of loopback that nobody listens on now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// mark stands in the output before what a block prints.
func mark(i int) string { return fmt.Sprintf("=== block %d ===\n", i) }

// TestTour runs the shell blocks in one shell, writes the Go blocks where the text says, and
// looks for the lines of the text blocks in the output of the block before.
func TestTour(t *testing.T) {
	blocks := section(t, "## A tour")
	folder := t.TempDir()
	copyTree(t, folder)
	// The tour names the default ports, which a node of the developer's may have.
	grpc, ops, http := freePort(t), freePort(t), freePort(t)
	ports := strings.NewReplacer("7411", grpc, "7412", ops, "7413", http)
	// A tour that fails on its way must not leave its node behind.
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
	for i, b := range blocks {
		switch b.language {
		case "sh":
			script += fmt.Sprintf("printf '%%s' '%s'\n", mark(i)) + ports.Replace(b.text)
		case "go":
			if err := os.Mkdir(filepath.Join(folder, "hello"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, "hello", "main.go"), []byte(ports.Replace(b.text)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "bash", "-c", script)
	command.Dir = folder
	command.Env = append(os.Environ(), "PURSER_LISTEN=127.0.0.1:"+grpc, "PURSER_SERVER=127.0.0.1:"+grpc,
		"PURSER_METRICS_LISTEN=127.0.0.1:"+ops, "PURSER_URL=http://127.0.0.1:"+ops+"/readyz", "PURSER_HTTP_LISTEN=127.0.0.1:"+http)
	command.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Fatalf("the tour ended with %v:\n%s", err, out.String())
	}
	shown, ran := 0, -1
	for i, b := range blocks {
		if b.language == "sh" {
			ran = i
		}
		if b.language == "text" {
			shown++
			compare(t, b, printed(out.String(), ran))
		}
	}
	if shown < 6 {
		t.Errorf("the tour shows %d outputs: without them a block could print anything", shown)
	}
}

// printed is what block i wrote.
func printed(out string, i int) string {
	_, rest, _ := strings.Cut(out, mark(i))
	rest, _, _ = strings.Cut(rest, "=== block ")
	return rest
}

// spaces behind punctuation are set at random by protojson, so that nobody depends on them.
var spaces = regexp.MustCompile(`([,:]) +`)

// compare finds each line of a shown output, in order; ... stands for anything.
func compare(t *testing.T, shown block, out string) {
	t.Helper()
	rest := spaces.ReplaceAllString(out, "$1")
	for line := range strings.Lines(spaces.ReplaceAllString(shown.text, "$1")) {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(line, "\n")), `\.\.\.`, ".*")
		at := regexp.MustCompile("(?m)^" + pattern + "$").FindStringIndex(rest)
		if at == nil {
			t.Errorf("README.md:%d shows %q, and this was printed:\n%s", shown.line, strings.TrimSpace(line), out)
			return
		}
		rest = rest[at[1]:]
	}
}
