// Package session serves the stream of AuthorityService.Session: many operations per message
// in both directions (R41). It keeps count, order and time, and decides nothing: what an
// operation does is a [Call] of the service.
//
// A stream has two goroutines however many operations are under way: one that receives, and
// the loop, which owns all state of the stream, starts operations and sends answers. What has
// to wait (for a draw, for the flush that makes a settlement durable) is put aside and wakes
// the loop when it has come. What has to read from storage goes through a pool of workers
// that all streams share. A client that does not read its answers blocks the loop, and so
// itself, and nothing grows.
package session
