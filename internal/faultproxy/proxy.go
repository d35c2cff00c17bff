// Package faultproxy stands between a program and its PostgreSQL or CockroachDB server and makes
// the conversation go wrong as networks and servers do: connections break before or after the
// server acted, answers are lost, replaced or cut off, writes land long after their sender gave
// up. It speaks the wire protocol, so the driver, the pool and the classification of errors are
// the real ones. A fault is chosen by what a statement is sent for and whether it commits, or
// drawn from a seed.
//
// Package faultstore does the like one storey higher, without a server.
package faultproxy

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Kind is what goes wrong with a statement.
type Kind uint8

// Kinds of faults. Where it says "does", the server does what it was asked for.
const (
	// Cut breaks the connection; the server is asked nothing. (F1)
	Cut Kind = iota + 1
	// CutAfter breaks the connection when the server has answered; the server does. (F2)
	CutAfter
	// Unknown answers 40003, statement completion unknown; the server is asked nothing. (F4)
	Unknown
	// UnknownAfter answers 40003; the server does. (F3)
	UnknownAfter
	// Restart answers 40001, as a serialization failure does; the server is asked nothing. (F5)
	Restart
	// Shutdown answers 57P01 and closes the connection; the server is asked nothing. (F6)
	Shutdown
	// ShutdownAfter answers 57P01 and closes the connection; the server does. (F6)
	ShutdownAfter
	// Zombie breaks the connection; the server is asked, and does, only when the fault is
	// released, or after its time. (F7)
	Zombie
	// Delay asks the server after a time. (F8)
	Delay
	// Hang never answers and asks the server nothing. (F9)
	Hang
	// HangAfter never answers; the server does. (F9)
	HangAfter
	// Duplicate answers 23505, unique violation; the server is asked nothing. (F10)
	Duplicate
	// Twice has the server do what commits by itself two times, and gives the second answer: what
	// becomes of a sender that itself sends again. Within a transaction it does nothing. (F10)
	Twice
	// Truncate gives half of the answer and closes the connection; the server does. (F11)
	Truncate

	kinds
)

// String is the kind's name.
func (k Kind) String() string {
	return [kinds]string{"none", "Cut", "CutAfter", "Unknown", "UnknownAfter", "Restart", "Shutdown", "ShutdownAfter",
		"Zombie", "Delay", "Hang", "HangAfter", "Duplicate", "Twice", "Truncate"}[k]
}

// Point is where in its transaction a statement stands.
type Point uint8

// Points.
const (
	// Commit is COMMIT, or a statement that commits by itself.
	Commit Point = iota + 1
	// Statement is any other.
	Statement
)

// Fault says which statements go wrong, and how.
type Fault struct {
	Op   Op
	At   Point // 0 = either
	Many int   // how many, from the next one on; 0 = one, negative = all
	Kind Kind
	For  time.Duration // of Delay; of Zombie, 0 = until it is released
}

// Injected is a fault put into a proxy.
type Injected struct {
	fault   Fault
	left    int
	hit     chan struct{}
	hitOnce sync.Once
	free    chan struct{}
	relOnce sync.Once
	landed  sync.WaitGroup
}

// Hit is closed when the fault has met its first statement.
func (i *Injected) Hit() <-chan struct{} { return i.hit }

// Release lets zombies land; it returns when all that were held have.
func (i *Injected) Release() {
	i.relOnce.Do(func() { close(i.free) })
	i.landed.Wait()
}

// Rates are chances in 1 000, by kind, that a statement goes wrong.
type Rates [kinds]int

// Proxy is a server that hands on to another one. It is safe for concurrent use.
type Proxy struct {
	listener net.Listener
	upstream *pgconn.Config
	url      string
	sessions sync.WaitGroup
	ctx      context.Context // until the proxy ends
	end      context.CancelFunc

	mu     sync.Mutex
	open   map[net.Conn]struct{} // clients
	seen   map[event]int
	met    [kinds]int
	faults []*Injected
	down   bool
	seed   uint64
	rates  Rates
}

// event is what a fault is chosen by.
type event struct {
	op Op
	at Point
}

// New starts a proxy before the server of databaseURL, for as long as t runs.
func New(t testing.TB, databaseURL string) *Proxy {
	t.Helper()
	upstream, err := pgconn.ParseConfig(databaseURL)
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	u := url.URL{Scheme: "postgresql", User: url.User(upstream.User), Host: listener.Addr().String(),
		Path: "/" + upstream.Database, RawQuery: "sslmode=disable"}
	p := &Proxy{listener: listener, upstream: upstream, url: u.String(), open: map[net.Conn]struct{}{}, seen: map[event]int{}}
	p.ctx, p.end = context.WithCancel(context.Background())
	p.sessions.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL names the database as reached through the proxy.
func (p *Proxy) URL() string { return p.url }

func (p *Proxy) close() {
	p.end()
	_ = p.listener.Close() // nothing is lost with it
	p.cutAll()
	p.sessions.Wait()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		if !p.admit(conn) {
			reset(conn)
			continue
		}
		p.sessions.Go(func() {
			serve(p, conn)
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.open, conn)
		})
	}
}

func (p *Proxy) admit(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down || p.ctx.Err() != nil {
		return false
	}
	p.open[conn] = struct{}{}
	return true
}

// SetDown begins or ends an outage: connections are cut, and new ones refused. (F12)
func (p *Proxy) SetDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cutAll()
	}
}

func (p *Proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.open {
		reset(conn)
	}
}

// reset closes a connection in a way that shows the other side that it broke.
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closed already: as good
	}
	_ = conn.Close()
}

// Inject puts a fault in. The first one that concerns a statement is the one it meets.
func (p *Proxy) Inject(f Fault) *Injected {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := &Injected{fault: f, left: f.Many, hit: make(chan struct{}), free: make(chan struct{})}
	if f.Many == 0 {
		i.left = 1
	}
	p.faults = append(p.faults, i)
	return i
}

// Randomise makes statements go wrong at random: whether one does is a function of the seed, what
// it is sent for, where it stands and its number among those, whatever the order in which
// connections come.
func (p *Proxy) Randomise(seed uint64, r Rates) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seed, p.rates = seed, r
}

// Heal takes all faults out, ends an outage and ends Randomise, and cuts every connection, so that
// none hangs on.
func (p *Proxy) Heal() {
	p.mu.Lock()
	p.faults, p.down, p.rates = nil, false, Rates{}
	p.mu.Unlock()
	p.cutAll()
}

// Seen is how many statements were sent for op, faults included.
func (p *Proxy) Seen(op Op) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[event{op, Commit}] + p.seen[event{op, Statement}]
}

// Met is how many statements met a fault of that kind.
func (p *Proxy) Met(k Kind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met[k]
}

// next counts a statement and chooses its fault, with what it is held by if it is a zombie.
func (p *Proxy) next(e event) (f Fault, by *Injected) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[e]++
	defer func() {
		if f.Kind != 0 {
			p.met[f.Kind]++
		}
	}()
	for _, i := range p.faults {
		if i.left == 0 || i.fault.Op != Any && i.fault.Op != e.op || i.fault.At != 0 && i.fault.At != e.at {
			continue
		}
		i.left = max(i.left-1, -1)
		i.hitOnce.Do(func() { close(i.hit) })
		if i.fault.Kind == Zombie {
			i.landed.Add(1)
		}
		return i.fault, i
	}
	return p.drawn(e, p.seen[e]), nil
}

// drawn is the fault that the seed has for the nth event of its kind. It has none for what is not
// of the data plane's.
func (p *Proxy) drawn(e event, n int) (f Fault) {
	if e.op == Other || e.op == Admin {
		return Fault{}
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.op))
	_, _ = h.Write(binary.LittleEndian.AppendUint64([]byte{byte(e.at)}, uint64(n)))
	_, _ = h.Write(binary.LittleEndian.AppendUint64(nil, p.seed))
	x := h.Sum64()
	x ^= x >> 33 // FNV's low bits alone are too regular for neighbouring numbers.
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	at := int(x % 1000)
	for kind, rate := range p.rates {
		if at < rate {
			return Fault{Kind: Kind(kind), For: time.Duration(1+(x>>32)%200) * time.Millisecond}
		}
		at -= rate
	}
	return Fault{}
}
