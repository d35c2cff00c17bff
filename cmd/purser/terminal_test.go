package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// program is the program as a process.
func program(t *testing.T, environment []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(append(os.Environ(), asProgram+"=1", "TERM=xterm"), environment...)
	return cmd
}

// onTerminal runs the program on a terminal, types what is to be typed, and returns what it
// showed.
func onTerminal(t *testing.T, environment []string, typed string, args ...string) (shown string, err error) {
	t.Helper()
	cmd := program(t, environment, args...)
	f, err := pty.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(typed); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_, _ = io.Copy(&b, f) // ends with an error when the other side is closed
	return b.String(), cmd.Wait()
}

func TestColourOnATerminalOnly(t *testing.T) {
	o := openOffice(t)
	file := writeFile(t, "changed.yaml", strings.Replace(string(mustRead(t, o.catalogue)), "display_name: Globex", "display_name: Globex Inc.", 1))
	args := o.with("apply", "-f", file, "--dry-run")
	shown, err := onTerminal(t, nil, "", args...)
	if err != nil || !strings.Contains(shown, "\x1b[31m  - display_name: Globex\x1b[0m") || !strings.Contains(shown, "\x1b[32m  + display_name: Globex Inc.\x1b[0m") {
		t.Errorf("on a terminal: %v\n%q", err, shown)
	}
	for _, plain := range []string{"NO_COLOR=1", "TERM=dumb"} {
		shown, err := onTerminal(t, []string{plain}, "", args...)
		if text := withoutProgress(shown); err != nil || strings.Contains(text, "\x1b") || !strings.Contains(text, "+ display_name: Globex Inc.") {
			t.Errorf("with %s: %v\n%q", plain, err, shown)
		}
	}
	piped, err := program(t, nil, args...).CombinedOutput()
	if err != nil || bytes.Contains(piped, []byte("\x1b")) {
		t.Errorf("in a pipe: %v\n%q", err, piped)
	}
	shown, _ = onTerminal(t, nil, "", o.with("reserve", "ada", "chat.gpt-large")...)
	if !strings.Contains(shown, "\x1b[31mdenied:\x1b[0m") {
		t.Errorf("a denial on a terminal:\n%q", shown)
	}
	shown, _ = onTerminal(t, nil, "", o.with("apply", "-f", file, "--dry-run", "-o", "json")...)
	if strings.Contains(withoutProgress(shown), "\x1b") {
		t.Errorf("JSON has colours:\n%q", shown)
	}
}

// withoutProgress leaves out the line that is drawn and wiped; it is no colour.
func withoutProgress(s string) string {
	last := strings.LastIndex(s, "\r\x1b[K")
	if last < 0 {
		return s
	}
	return s[last+len("\r\x1b[K"):]
}

func TestBarsOnATerminalOnly(t *testing.T) {
	o := openOffice(t)
	o.must("commit", o.token("globex", "chat.gpt-large", "--estimate", "output_tokens=1000"), "--usage", "output_tokens=1000")
	for !strings.Contains(o.must("usage", "globex"), "was charged 1 credits") {
		// events follow settlements within moments
	}
	if shown, err := onTerminal(t, nil, "", o.with("usage", "globex")...); err != nil || !strings.Contains(shown, "████") {
		t.Errorf("on a terminal: %v\n%s", err, shown)
	}
	if out := o.must("usage", "globex"); strings.Contains(out, "█") {
		t.Errorf("in a pipe:\n%s", out)
	}
}

func TestDeleteAsksOnATerminal(t *testing.T) {
	o := openOffice(t)
	args := o.with("delete", "budget", "globex/monthly")
	shown, err := onTerminal(t, nil, "n\n", args...)
	if err == nil || !strings.Contains(shown, "Go on? [y/N]") || !strings.Contains(shown, "nothing was done") {
		t.Errorf("answered no: %v\n%s", err, shown)
	}
	if out := o.must("get", "budgets", "--account", "globex"); !strings.Contains(out, "monthly") {
		t.Fatalf("deleted although the answer was no:\n%s", out)
	}
	if shown, err := onTerminal(t, nil, "y\n", args...); err != nil || !strings.Contains(shown, "budget globex/monthly deleted") {
		t.Errorf("answered yes: %v\n%s", err, shown)
	}
}

// shells are how each is made to complete a line without a keyboard: the script, in which
// completion is loaded, for the words of the line or the line as a whole.
var shells = map[string]func(line string) []string{
	"bash": func(line string) []string {
		words := strings.Split(strings.ReplaceAll(line, "=", " = "), " ") // as bash splits it
		return []string{"bash", "--norc", "-c", fmt.Sprintf("source <(purser completion bash) && complete -p purser >/dev/null && COMP_WORDS=(%s) COMP_CWORD=%d && _purser && printf '%%s\\n' \"${COMPREPLY[@]}\"",
			"'"+strings.Join(words, "' '")+"'", len(words)-1)}
	},
	"zsh": func(line string) []string { // compadd is what the widget of the line editor has
		words := strings.Split(line, " ")
		return []string{"zsh", "-f", "-c", fmt.Sprintf("compdef() { : }; _files() { : }; compadd() { print -rl -- $words_ }; source <(purser completion zsh) && words=(%s) CURRENT=%d && _purser",
			"'"+strings.Join(words, "' '")+"'", len(words))}
	},
	"fish": func(line string) []string {
		return []string{"fish", "--no-config", "-c", fmt.Sprintf("purser completion fish | source; and complete -C '%s' | cut -f1", line)}
	},
}

// TestCompletion: the real shells read their scripts, and the scripts ask the real program.
func TestCompletion(t *testing.T) {
	o := openOffice(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	folder, empty := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "purser"), fmt.Appendf(nil, "#!/bin/sh\nexec env %s=1 %q \"$@\"\n", asProgram, self), 0o755); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "HOME="+empty, "PURSER_SERVER="+o.address, "PURSER_KEY_FILE="+o.keyFile)
	for shell, command := range shells {
		t.Run(shell, func(t *testing.T) {
			if _, err := exec.LookPath(shell); err != nil {
				t.Fatalf("there is no %s: run scripts/ensure-shells, or install it", shell)
			}
			for _, c := range []struct {
				line string
				want []string
			}{
				{"purser re", []string{"resume", "reserve", "release"}},
				{"purser get acc", []string{"accounts"}},
				{"purser get accounts gl", []string{"globex"}},
				{"purser describe account acme-s", []string{"acme-search", "acme-support"}},
				{"purser get grants --account a", []string{"acme", "acme-search", "acme-support", "ada"}},
				{"purser reserve globex chat.gpt-l", []string{"chat.gpt-large"}},
				{"purser get accounts -o y", []string{"yaml"}},
				{"purser get accounts --output=y", []string{"yaml"}},
				{"purser get accounts --all", []string{"--all-accounts"}},
				{"purser keys re", []string{"revoke"}},
				{"purser completion b", []string{"bash"}},
				{"purser frobnicate x", nil},
				{"purser apply -f ", nil}, // files: the shell itself, and there are none
			} {
				args := command(c.line)
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Env, cmd.Dir = environment, empty
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Errorf("%s: %v\n%s", c.line, err, out)
					continue
				}
				got := strings.Fields(strings.ReplaceAll(string(out), "--output=", ""))
				slices.Sort(got)
				if want := slices.Sorted(slices.Values(c.want)); !slices.Equal(got, want) {
					t.Errorf("%s: completed by %q, want %q", c.line, got, want)
				}
			}
		})
	}
}

// TestCompletionWithoutAServer: nobody waits for one that is not there.
func TestCompletionWithoutAServer(t *testing.T) {
	for _, args := range [][]string{{"get", "accounts", ""}, {"get", "accounts", "--server", "127.0.0.1:1", "--key-file", writeFile(t, "k", "x"), ""}} {
		if out := must(t, append([]string{"__complete"}, args...)...); out != "" {
			t.Errorf("%v: %q", args, out)
		}
	}
	for _, shell := range []string{"zsh", "fish"} {
		if out := must(t, "completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("%s:\n%s", shell, out)
		}
	}
	fails(t, exitUsage, []string{`must be one of "bash","zsh","fish"`}, "completion", "tcsh")
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
