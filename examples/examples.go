// Package examples holds the example catalogue and request trace that `purser demo` runs on,
// embedded so that the program needs no file beside it.
package examples

import _ "embed"

// Catalog is catalog.yaml, as `purser apply` takes it.
//
//go:embed catalog.yaml
var Catalog []byte

// TraceName names the embedded trace for people.
const TraceName = "azure-llm-2023-conv-2000.csv"

// Trace is the excerpt of the Azure LLM inference trace 2023 (Microsoft, CC-BY 4.0; see
// traces/README.md for the citation).
//
//go:embed traces/azure-llm-2023-conv-2000.csv
var Trace []byte
