// Command protoc-gen-errordoc writes docs/errors.md from the comments of the contract, so that
// what people read of a reason is what stands beside it. It is a plugin of buf and protoc.
package main

import (
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/types/pluginpb"
)

// page is the file written, relative to the plugin's output folder.
const page = "errors.md"

func main() {
	protogen.Options{}.Run(func(p *protogen.Plugin) error {
		p.SupportedFeatures = uint64(pluginpb.CodeGeneratorResponse_FEATURE_PROTO3_OPTIONAL)
		enums := make(map[string]*protogen.Enum)
		for _, f := range p.Files {
			for _, e := range f.Enums {
				enums[string(e.Desc.Name())] = e
			}
		}
		for _, name := range []string{"ErrorReason", "DenialReason", "DenialKind", "WarningReason"} {
			if enums[name] == nil {
				return fmt.Errorf("the contract has no enum %s", name)
			}
		}
		write(p.NewGeneratedFile(page, ""), enums)
		return nil
	})
}

const intro = `# Errors, denials and warnings

Made from the contract (proto/purser/v1) by ` + "`make generate`" + `; edit the comments there.

An **error** says that Purser could not decide, or that the request was bad. It is a gRPC status with a
` + "`google.rpc.ErrorInfo`" + ` of the domain ` + "`purser`" + `. A **denial** is a normal answer that says no: the status is OK and
` + "`decision`" + ` is ` + "`DECISION_DENIED`" + `. A **warning** tells of a soft limit and never stops work.
`

const advice = `
### What to do, by code

| code | meaning | do |
| --- | --- | --- |
| INVALID_ARGUMENT | the request is malformed | mend it; ` + "`BadRequest`" + ` names the fields |
| UNAUTHENTICATED, PERMISSION_DENIED | the key, role or token does not allow it | ask an operator; do not retry |
| NOT_FOUND, ALREADY_EXISTS | it is not there; it is there already, with other content | do not retry |
| FAILED_PRECONDITION | the state does not allow it | read the state, then decide |
| ABORTED | somebody else was quicker | repeat the whole operation, with jitter |
| RESOURCE_EXHAUSTED | a bound of the server or of the caller | back off; ` + "`RetryInfo`" + ` says for how long |
| UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED, UNKNOWN | the outcome is unknown, unless ` + "`not_applied`" + ` is "true" | send the same again, on any node |
| INTERNAL | a fault of the server | report it with the ` + "`request_id`" + ` of the metadata |
| UNIMPLEMENTED | this server does not serve it | do not retry |
`

func write(g *protogen.GeneratedFile, enums map[string]*protogen.Enum) {
	reasons := enums["ErrorReason"]
	g.P(intro)
	g.P("## Errors\n")
	g.P(text(reasons.Comments.Leading))
	g.P(advice)
	g.P("### Reasons\n")
	values(g, "####", reasons, "ERROR_REASON_")
	g.P("## Denials\n")
	g.P(text(enums["DenialReason"].Comments.Leading), "\n")
	g.P("| kind | meaning |\n| --- | --- |")
	for _, v := range enums["DenialKind"].Values[1:] {
		name := strings.TrimPrefix(string(v.Desc.Name()), "DENIAL_KIND_")
		g.P("| ", name, " | ", strings.ReplaceAll(strings.TrimSpace(text(v.Comments.Leading)), "\n", " "), " |")
	}
	g.P()
	values(g, "###", enums["DenialReason"], "DENIAL_REASON_")
	g.P("## Warnings\n")
	values(g, "###", enums["WarningReason"], "WARNING_REASON_")
}

// values writes a section under a heading for every value but the unspecified one.
func values(g *protogen.GeneratedFile, heading string, e *protogen.Enum, prefix string) {
	for _, v := range e.Values {
		if v.Desc.Number() == 0 {
			continue
		}
		said, code, sample := parts(text(v.Comments.Leading))
		g.P(heading, " ", strings.TrimPrefix(string(v.Desc.Name()), prefix), "\n")
		if code != "" {
			said = "Code `" + code + "`. " + said
		}
		g.P(said, "\n")
		if sample != "" {
			g.P("```json\n", sample, "\n```\n")
		}
	}
}

// sampleLine opens the sample of a comment. It may end a sentence's line.
var sampleLine = regexp.MustCompile(`(?m)[ \n]*Sample(?:, with code ([A-Z_]+))?:\n`)

// parts splits a comment into its words, the code it goes out with, and its sample.
func parts(comment string) (said, code, sample string) {
	at := sampleLine.FindStringSubmatchIndex(comment)
	if at == nil {
		return strings.TrimSpace(comment), "", ""
	}
	if at[2] >= 0 {
		code = comment[at[2]:at[3]]
	}
	var lines []string
	for line := range strings.Lines(comment[at[1]:]) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			lines = append(lines, strings.TrimPrefix(line, "    "))
		}
	}
	return strings.TrimSpace(comment[:at[0]]), code, strings.Join(lines, "\n")
}

// text is a comment without its markers.
func text(c protogen.Comments) string {
	var b strings.Builder
	for line := range strings.Lines(string(c)) {
		b.WriteString(strings.TrimPrefix(line, " "))
	}
	return strings.TrimRight(b.String(), "\n")
}
