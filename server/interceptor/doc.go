// Package interceptor is the first hop of every call: recover, map errors, bound, say who
// calls and whether they may, log what deserves a line, shave the deadline, validate. One
// file each; no business rules.
package interceptor
