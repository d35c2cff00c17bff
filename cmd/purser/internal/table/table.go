// Package table lays out rows for people, in the manner of kubectl: columns with a gap between
// them and no lines, so that awk and grep can read them as well.
package table

import (
	"io"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// Table is columns and rows of cells.
type Table struct {
	Columns []Column
	Rows    [][]string
}

// Column is the head of a column.
type Column struct {
	Name  string
	Wide  bool // shown only if asked for
	Right bool // numbers
}

// Write lays the table out; wide says whether to show all columns.
func (t *Table) Write(w io.Writer, wide bool) {
	out := table.NewWriter()
	out.SetOutputMirror(w)
	out.SuppressTrailingSpaces()
	style := table.StyleDefault
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "   "
	style.Options = table.OptionsNoBordersAndSeparators
	style.Format.Header = text.FormatDefault
	out.SetStyle(style)
	var shown []int
	var header table.Row
	var configs []table.ColumnConfig
	for i, c := range t.Columns {
		if c.Wide && !wide {
			continue
		}
		shown = append(shown, i)
		header = append(header, strings.ToUpper(c.Name))
		if c.Right {
			configs = append(configs, table.ColumnConfig{Number: len(shown), Align: text.AlignRight, AlignHeader: text.AlignRight})
		}
	}
	out.AppendHeader(header)
	out.SetColumnConfigs(configs)
	for _, cells := range t.Rows {
		row := make(table.Row, len(shown))
		for i, c := range shown {
			row[i] = cells[c]
		}
		out.AppendRow(row)
	}
	out.Render()
}
