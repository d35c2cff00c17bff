package telemetry

import (
	"context"
	"encoding/hex"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// binaryIDs puts right what the Prometheus bridge (v0.72) does to exemplars: it passes on the
// ids of trace and span as the hexadecimal text that Prometheus has, where OTLP wants the 16
// and 8 bytes themselves, and collectors refuse anything else.
type binaryIDs struct{ sdkmetric.Producer }

// Produce implements sdkmetric.Producer.
func (p binaryIDs) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	scopes, err := p.Producer.Produce(ctx)
	for i := range scopes {
		for _, m := range scopes[i].Metrics {
			switch data := m.Data.(type) {
			case metricdata.Histogram[float64]:
				for j := range data.DataPoints {
					decode(data.DataPoints[j].Exemplars)
				}
			case metricdata.Sum[float64]:
				for j := range data.DataPoints {
					decode(data.DataPoints[j].Exemplars)
				}
			}
		}
	}
	return scopes, err
}

func decode(exemplars []metricdata.Exemplar[float64]) {
	for i := range exemplars {
		exemplars[i].TraceID = binary(exemplars[i].TraceID, 16)
		exemplars[i].SpanID = binary(exemplars[i].SpanID, 8)
	}
}

// binary is an id of so many bytes; nil if it is none.
func binary(id []byte, size int) []byte {
	if len(id) == size {
		return id
	}
	decoded := make([]byte, hex.DecodedLen(len(id)))
	if n, err := hex.Decode(decoded, id); err != nil || n != size {
		return nil
	}
	return decoded
}
