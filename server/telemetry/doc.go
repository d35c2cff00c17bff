// Package telemetry exports traces, metrics and logs over OTLP as the standard environment
// variables of OpenTelemetry say. Where none of them names an exporter or an endpoint nothing
// is set up, and nothing is paid for. docs/observability.md lists the variables.
package telemetry
