package repolint

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestGuaranteesNameTests: every test that docs/guarantees.md leans on is there, and every
// guarantee leans on one.
func TestGuaranteesNameTests(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "guarantees.md"))
	if err != nil {
		t.Fatal(err)
	}
	there := declared(t, root)
	named := regexp.MustCompile("`(Test[A-Z][A-Za-z]+|[A-Z][A-Za-z]+/[A-Z][A-Za-z]+)`").FindAllSubmatch(page, -1)
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, name := range named {
		if !there[string(name[1])] {
			t.Errorf("docs/guarantees.md names %s, which is not there", name[1])
		}
	}
	promised, _, _ := bytes.Cut(page, []byte("## What is not promised"))
	for _, line := range strings.Split(string(promised), "\n- ")[1:] {
		if !strings.Contains(line, "`Test") {
			t.Errorf("no test stands behind %.60q", line)
		}
	}
}

// declared finds tests, and cases of the conformance suite as Area/Case.
func declared(t *testing.T, root string) map[string]bool {
	there := make(map[string]bool)
	tests := regexp.MustCompile(`(?m)^func (Test[A-Za-z]+)\(`)
	cases := regexp.MustCompile(`\{"([A-Z][A-Za-z]+)", `)
	areas := regexp.MustCompile(`(?s)func ([a-z]+)Tests\(\) \[\]Test \{(.*?)\n\}`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasPrefix(path, filepath.Join(root, ".tmp")) {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, "_test.go") {
			for _, m := range tests.FindAllSubmatch(text, -1) {
				there[string(m[1])] = true
			}
		}
		if strings.Contains(path, "storagetest") {
			for _, area := range areas.FindAllSubmatch(text, -1) {
				name := strings.ToUpper(string(area[1][:1])) + string(area[1][1:])
				for _, c := range cases.FindAllSubmatch(area[2], -1) {
					there[name+"/"+string(c[1])] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return there
}
