package server

import (
	"strings"
	"time"

	"github.com/purser-io/purser/server/session"
)

// DefaultConnections is how many connections a port may have open.
const DefaultConnections = 16384

// Limits bound what one caller can make the server do. The zero value of a field means its
// default.
type Limits struct {
	// DataMessageBytes is the largest message of the data plane: 64 KiB. The largest that is
	// within all bounds of its fields has about 5 KiB; the rest is room for fields that a newer
	// client sends.
	DataMessageBytes int
	// AdminMessageBytes is the largest message of the admin services: 4 MiB. A rate card of 4096
	// prices has below 1 MiB.
	AdminMessageBytes int
	// HeaderBytes is the largest list of headers of a call: 16 KiB.
	HeaderBytes uint32
	// Connections is how many connections a port, that of gRPC or of HTTP, may have open: 16384.
	// One more is closed as it comes.
	Connections int
	// StreamsPerConnection is how many calls one connection may have in flight: 4096. A gateway
	// keeps one connection per address, and a commit waits for its flush.
	StreamsPerConnection uint32
	// DataTimeout ends data-plane calls that state no deadline: 30 s.
	DataTimeout time.Duration
	// AdminTimeout ends admin calls that state no deadline: 2 min, for a suspension with sync may
	// wait a lease.
	AdminTimeout time.Duration
	// SessionWorkers is how many operations of sessions may read the store at once: 32. All others
	// are answered without a goroutine of their own.
	SessionWorkers int
	// SessionQueue is how many operations of sessions may wait for that: 16 384, those of sixteen
	// streams that have all they may have unanswered. What comes beyond is refused with
	// SERVER_OVERLOADED.
	SessionQueue int
	// DeadlineShave is how much before the caller's deadline a handler gives up: 5 ms, about a
	// round trip in a data centre.
	DeadlineShave time.Duration
	// KeepaliveMin is how often at most a client may ping: 10 s. One that does more is cut off.
	KeepaliveMin time.Duration
	// KeepaliveTime is after how much silence the server pings: 1 min; without an answer within
	// 20 s the connection ends, so that a vanished client holds no streams.
	KeepaliveTime time.Duration
	// HandshakeTime is how long a connection to the gRPC port may take to become one of TLS and
	// HTTP/2: 10 s.
	HandshakeTime time.Duration
	// HeaderTime is how long the head of an HTTP request may take: 5 s. With BodyTime it bounds
	// what a client that sends a byte now and then can hold open.
	HeaderTime time.Duration
	// BodyTime is how long an HTTP request may take in all to arrive, streams aside: 30 s.
	BodyTime time.Duration
	// IdleTime is after how much silence an HTTP connection without a call ends: 3 min.
	IdleTime time.Duration
	// LogFirst and LogEvery sample denials and callers' errors in the log: each of the first 20,
	// then each 1000th.
	LogFirst, LogEvery uint64
}

func (l Limits) withDefaults() Limits {
	set(&l.DataMessageBytes, 64<<10)
	set(&l.AdminMessageBytes, 4<<20)
	set(&l.HeaderBytes, 16<<10)
	set(&l.Connections, DefaultConnections)
	set(&l.StreamsPerConnection, 4096)
	set(&l.DataTimeout, 30*time.Second)
	set(&l.AdminTimeout, 2*time.Minute)
	set(&l.SessionWorkers, 32)
	set(&l.SessionQueue, 16*session.MaxUnanswered)
	set(&l.DeadlineShave, 5*time.Millisecond)
	set(&l.KeepaliveMin, 10*time.Second)
	set(&l.KeepaliveTime, time.Minute)
	set(&l.HandshakeTime, 10*time.Second)
	set(&l.HeaderTime, 5*time.Second)
	set(&l.BodyTime, 30*time.Second)
	set(&l.IdleTime, 3*time.Minute)
	set(&l.LogFirst, 20)
	set(&l.LogEvery, 1000)
	return l
}

func set[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

const dataPlane = "purser.v1.AuthorityService"

// onDataPlane tells the data plane's methods (full names) from the others.
func onDataPlane(method string) bool { return strings.HasPrefix(method, "/"+dataPlane+"/") }

// adminPlane tells our other services, whose calls are logged and validated.
func adminPlane(service string) bool {
	return strings.HasPrefix(service, "purser.v1.") && service != dataPlane
}

func (l *Limits) messageBytes(method string) int {
	if onDataPlane(method) {
		return l.DataMessageBytes
	}
	return l.AdminMessageBytes
}

// receiveBytes is the largest message of any method, and the bound of gRPC's transport.
func (l *Limits) receiveBytes() int { return max(l.AdminMessageBytes, l.DataMessageBytes) }

func (l *Limits) timeout(method string) time.Duration {
	if onDataPlane(method) {
		return l.DataTimeout
	}
	return l.AdminTimeout
}
