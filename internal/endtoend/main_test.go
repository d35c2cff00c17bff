package endtoend

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/purser-io/purser/internal/testdb"
)

// binary is the program under test, built once for each run of the tests; only TestMain writes
// it.
var binary string

func TestMain(m *testing.M) {
	if settings := os.Getenv(gatewayEnv); settings != "" {
		os.Exit(gatewayMain(settings)) // this process is a gateway of some test
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "purser-endtoend-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer testdb.Stop()
	binary = filepath.Join(dir, "purser")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/purser-io/purser/cmd/purser").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build purser: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
