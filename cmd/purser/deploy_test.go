package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/alecthomas/kong"
)

// TestDeployFilesSetWhatExists: a variable that is misspelt would be ignored silently.
func TestDeployFilesSetWhatExists(t *testing.T) {
	parser, err := kong.New(&cli{}, kong.DefaultEnvars("PURSER"), engineDefaults())
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, node := range parser.Model.Leaves(false) {
		for _, group := range node.AllFlags(false) {
			for _, flag := range group {
				for _, name := range flag.Envs {
					known[name] = true
				}
			}
		}
	}
	setting := regexp.MustCompile(`\bPURSER_[A-Z_]+\b`)
	for _, file := range []string{"../../Dockerfile", "../../deploy/compose/compose.yaml", "../../deploy/kubernetes/purser.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := setting.FindAllString(string(text), -1)
		if len(found) == 0 {
			t.Errorf("%s sets nothing", file)
		}
		for _, name := range found {
			if !known[name] {
				t.Errorf("%s sets %s, which no flag of purser reads", file, name)
			}
		}
	}
}
