package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/cmd/purser/internal/table"
)

// Description is what there is to say of one resource.
type Description struct {
	Fields   []Field
	Sections []*Section
}

// Field is a name with a value.
type Field struct{ Name, Value string }

// Section is a table of what belongs to the resource.
type Section struct {
	Title string
	table.Table
}

func (d *Description) field(name, value string) { d.Fields = append(d.Fields, Field{name, value}) }

func (d *Description) section(title string, columns ...string) *Section {
	s := newSection(title, columns...)
	d.Sections = append(d.Sections, s)
	return s
}

func newSection(title string, columns ...string) *Section {
	s := &Section{Title: title}
	for _, c := range columns {
		s.Columns = append(s.Columns, table.Column{Name: c, Right: isNumber(c)})
	}
	return s
}

// isNumber says which columns of sections are lined up on the right.
func isNumber(column string) bool {
	switch column {
	case "credits", "spent", "left", "used", "cap", "per", "quantity", "version", "priority":
		return true
	}
	return false
}

func (s *Section) add(cells ...string) { s.Rows = append(s.Rows, cells) }

// Write lays the description out for people. Fields without a value are left out, and sections
// without rows say so.
func (d *Description) Write(w io.Writer) {
	width := 0
	for _, f := range d.Fields {
		width = max(width, len(f.Name))
	}
	for _, f := range d.Fields {
		if f.Value != "" {
			fmt.Fprintf(w, "%-*s  %s\n", width+1, f.Name+":", f.Value)
		}
	}
	for _, s := range d.Sections {
		s.Write(w)
	}
}

// Write lays the section out with its title.
func (s *Section) Write(w io.Writer) {
	if len(s.Rows) == 0 {
		fmt.Fprintf(w, "\n%s: none\n", s.Title)
		return
	}
	fmt.Fprintf(w, "\n%s:\n", s.Title)
	var b bytes.Buffer
	s.Table.Write(&b, true)
	for line := range strings.Lines(b.String()) {
		fmt.Fprint(w, "  ", line)
	}
}

// MarshalJSON writes fields by name, then each section as a list of rows by column.
func (d *Description) MarshalJSON() ([]byte, error) {
	members := [][2]any{}
	for _, f := range d.Fields {
		if f.Value != "" {
			members = append(members, [2]any{f.Name, f.Value})
		}
	}
	for _, s := range d.Sections {
		rows := []ordered{}
		for _, cells := range s.Rows {
			var row ordered
			for i, c := range s.Columns {
				row = append(row, [2]any{c.Name, cells[i]})
			}
			rows = append(rows, row)
		}
		title, _, _ := strings.Cut(s.Title, " since ")
		members = append(members, [2]any{title, rows})
	}
	return json.Marshal(ordered(members))
}

// ordered is an object whose members stay in order. Names become those of JSON: in_force.
type ordered [][2]any

// MarshalJSON implements json.Marshaler.
func (o ordered) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(strings.ReplaceAll(m[0].(string), " ", "_"))
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m[1])
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// stamp is a time for people and programs.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// age is how long ago something was created, in its largest unit.
func (s *Server) age(created *timestamppb.Timestamp) string {
	d := s.Now.Sub(created.AsTime())
	switch {
	case created == nil:
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0)/time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	default:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	}
}
