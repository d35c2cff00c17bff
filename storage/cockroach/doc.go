// Package cockroach keeps Purser's state in CockroachDB (21.1 or newer) or PostgreSQL (14 or
// newer). Both run every transaction at SERIALIZABLE, which is checked on each connection:
// the protocol's fence (R3) is a write skew under anything weaker.
//
// The SQL is that of storage/relational; here are connections, retries, the journal's insert
// and the schema. What the two databases do differently stands in dialect.go.
package cockroach
