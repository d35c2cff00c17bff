// Package trace reads request traces of the form TIMESTAMP,ContextTokens,GeneratedTokens:
// one real request to a language model in each row.
//
// It is not a CSV library: the three columns are fixed, and what does not fit is an error
// that names file and line, because a row silently dropped would falsify every figure.
package trace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// Header is the first line of every trace.
const Header = "TIMESTAMP,ContextTokens,GeneratedTokens"

// MaxTokens bounds each count of a row; a longer request than this is a broken file.
const MaxTokens = 100_000_000

// timeLayout takes any number of digits behind the point, and none.
const timeLayout = "2006-01-02 15:04:05"

// Row is one request.
type Row struct {
	At        time.Duration // since the first row
	Context   int64         // prompt tokens, 0..MaxTokens
	Generated int64         // answer tokens, 0..MaxTokens
}

// Read reads a whole trace; name is for messages. Rows must not go back in time.
func Read(name string, r io.Reader) ([]Row, error) {
	s := bufio.NewScanner(r)
	if !s.Scan() {
		if err := s.Err(); err != nil {
			return nil, fmt.Errorf("read trace %s: %w", name, err)
		}
		return nil, fmt.Errorf("read trace %s: the file is empty; its first line must be %s", name, Header)
	}
	if got := strings.TrimPrefix(strings.TrimSpace(s.Text()), "\ufeff"); got != Header {
		return nil, fmt.Errorf("read trace %s:1: the header is %q, want %s", name, clip(got), Header)
	}
	var rows []Row
	var first, last time.Time
	line := 1
	for s.Scan() {
		line++
		at, row, err := parseRow(s.Text())
		switch {
		case err != nil:
			return nil, fmt.Errorf("read trace %s:%d: %w", name, line, err)
		case len(rows) == 0:
			first = at
		case at.Before(last):
			return nil, fmt.Errorf("read trace %s:%d: the row goes back in time; sort the file by TIMESTAMP", name, line)
		}
		last, row.At = at, at.Sub(first)
		rows = append(rows, row)
	}
	if err := s.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("read trace %s:%d: the line is longer than any row", name, line+1)
		}
		return nil, fmt.Errorf("read trace %s:%d: %w", name, line+1, err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("read trace %s: there is a header and no row", name)
	}
	return rows, nil
}

func parseRow(line string) (time.Time, Row, error) {
	fields := strings.Split(strings.TrimSuffix(line, "\r"), ",")
	if len(fields) != 3 {
		return time.Time{}, Row{}, fmt.Errorf("the row %q has %d columns, want 3 (%s)", clip(line), len(fields), Header)
	}
	at, err := time.Parse(timeLayout, fields[0])
	if err != nil {
		return time.Time{}, Row{}, fmt.Errorf("TIMESTAMP is %q, want a time such as 2023-11-16 18:15:46.6805900", clip(fields[0]))
	}
	var row Row
	if row.Context, err = parseTokens("ContextTokens", fields[1]); err != nil {
		return time.Time{}, Row{}, err
	}
	row.Generated, err = parseTokens("GeneratedTokens", fields[2])
	return at, row, err
}

func parseTokens(column, text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > MaxTokens {
		return 0, fmt.Errorf("%s is %q, want a whole number from 0 to %d", column, clip(text), MaxTokens)
	}
	return n, nil
}

// clip keeps a message readable when the file is not.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
