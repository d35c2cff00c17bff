// Package endtoend tests the purser program from outside: it builds the binary, runs nodes and
// gateways as processes, kills them, takes their database away, and audits the books they leave
// behind. There is nothing in it but tests.
package endtoend
