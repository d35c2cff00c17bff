package apply

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/aymanbagabas/go-udiff"

	"github.com/purser-io/purser/cmd/purser/internal/document"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
)

// same compares what is written of two resources.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// around is how many lines around a change are shown.
const around = 3

// WriteDiff writes what the action changes: lines of the resource as a file has it, with + and
// - in front.
func (a *Action) WriteDiff(w io.Writer, paint terminal.Paint) error {
	before, err := written(a.Before)
	if err != nil {
		return err
	}
	after, err := written(a.After)
	if err != nil {
		return err
	}
	diff, err := udiff.ToUnifiedDiff("", "", before, udiff.Lines(before, after), around)
	if err != nil {
		return fmt.Errorf("compare %s %s: %w", a.Kind, a.ID, err)
	}
	for i, hunk := range diff.Hunks {
		if i > 0 {
			fmt.Fprintln(w, paint.Faint("    ..."))
		}
		for _, line := range hunk.Lines {
			text := strings.TrimSuffix(line.Content, "\n")
			switch line.Kind {
			case udiff.Insert:
				fmt.Fprintln(w, paint.Green("  + "+text))
			case udiff.Delete:
				fmt.Fprintln(w, paint.Red("  - "+text))
			default:
				fmt.Fprintln(w, paint.Faint("    "+text))
			}
		}
	}
	return nil
}

func written(value any) (string, error) {
	if value == nil {
		return "", nil
	}
	var b strings.Builder
	err := document.YAML(&b, value)
	return b.String(), err
}
