package testprom

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Find is the path of a program of Prometheus, prometheus or promtool.
func Find(t testing.TB, program string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	path := filepath.Join(root(t), ".tmp", "prometheus", "usr", "bin", program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no %s on PATH nor in .tmp/prometheus: run scripts/ensure-prometheus, or put Prometheus 2.40 or later on PATH", program)
	}
	return path
}

// Deploy is the path of a file under deploy/.
func Deploy(t testing.TB, elements ...string) string {
	t.Helper()
	return filepath.Join(append([]string{root(t), "deploy"}, elements...)...)
}

// root is the folder of the module.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("this test runs outside its module")
		}
		dir = parent
	}
}
