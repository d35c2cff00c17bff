// Package testprom finds and runs Debian's Prometheus for tests: promtool, and servers of
// their own on loopback. Where there is none a test fails, and says what to do.
package testprom
