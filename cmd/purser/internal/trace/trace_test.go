package trace

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/purser-io/purser/examples"
)

func TestReadEmbedded(t *testing.T) {
	rows, err := Read(examples.TraceName, bytes.NewReader(examples.Trace))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2000 {
		t.Fatalf("rows = %d, want 2000", len(rows))
	}
	if rows[0] != (Row{At: 0, Context: 374, Generated: 44}) {
		t.Errorf("first row = %+v", rows[0])
	}
	if want := 4314579 * time.Microsecond; rows[1].At != want {
		t.Errorf("second row at %v, want %v", rows[1].At, want)
	}
}

func TestReadBroken(t *testing.T) {
	const ok = "2023-11-16 18:15:46.6805900,374,44\n"
	for name, c := range map[string]struct{ in, want string }{
		"empty":          {"", "the file is empty"},
		"no header":      {ok, "f.csv:1: the header is"},
		"no rows":        {Header + "\n", "no row"},
		"columns":        {Header + "\n" + ok + "2023-11-16 18:15:47,1\n", "f.csv:3: the row \"2023-11-16 18:15:47,1\" has 2 columns"},
		"blank line":     {Header + "\n" + ok + "\n" + ok, "f.csv:3: the row \"\" has 1 columns"},
		"time":           {Header + "\nyesterday,1,2\n", "f.csv:2: TIMESTAMP is \"yesterday\""},
		"negative":       {Header + "\n2023-11-16 18:15:47,-1,2\n", "f.csv:2: ContextTokens is \"-1\""},
		"fraction":       {Header + "\n2023-11-16 18:15:47,1,2.5\n", "f.csv:2: GeneratedTokens is \"2.5\""},
		"overflow":       {Header + "\n2023-11-16 18:15:47,99999999999999999999,2\n", "f.csv:2: ContextTokens"},
		"back in time":   {Header + "\n" + ok + "2023-11-16 18:15:46,1,2\n", "f.csv:3: the row goes back in time"},
		"a line too far": {Header + "\n" + strings.Repeat("x", 1<<17), "f.csv:2: the line is longer"},
	} {
		if _, err := Read("f.csv", strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want it to contain %q", name, err, c.want)
		}
	}
}

func TestReadOtherLineEnds(t *testing.T) {
	rows, err := Read("f.csv", strings.NewReader("\ufeff"+Header+"\r\n2023-11-16 18:15:46.5,1,0\r\n2023-11-16 18:15:47,0,2"))
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[1] != (Row{At: 500 * time.Millisecond, Generated: 2}) {
		t.Errorf("rows = %+v", rows)
	}
}
