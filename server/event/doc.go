// Package event serves purser.v1.EventService: people follow decisions and settlements of one
// node as they happen. Nobody waits for a reader: one that is too slow misses events and is told
// how many.
package event
