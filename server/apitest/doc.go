// Package apitest has no code but tests: the whole server over real stores, called over gRPC
// as a stranger would. Sequences of calls are kept as text in testdata and are the same on
// every store; `go test ./server/apitest -run TestSequences -update` writes them anew, from
// SQLite only.
package apitest
