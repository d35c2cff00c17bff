// Package document writes a value for machines: as JSON, or as YAML with the same names in the
// same order.
package document

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Answer is an answer of a server, written with the names of the contract. Integers of 64 bits
// are strings, so that no reader makes a float of an amount, and zeros are left out.
type Answer struct{ proto.Message }

// MarshalJSON implements json.Marshaler.
func (a Answer) MarshalJSON() ([]byte, error) {
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(a.Message)
}

// JSON writes value as indented JSON.
func JSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// YAML writes what JSON would.
func YAML(w io.Writer, value any) error {
	var b bytes.Buffer
	if err := JSON(&b, value); err != nil {
		return err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(b.Bytes(), &root); err != nil { // JSON is YAML
		return fmt.Errorf("write YAML: %w", err)
	}
	block(&root)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&root); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return e.Close()
}

// block drops the braces and quotes of JSON, wherever YAML does not need them.
func block(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, child := range n.Content {
		block(child)
	}
}
