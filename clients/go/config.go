package purser

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
)

// Config says whom to talk to and how hard to try. Addresses and Key are needed; zero values
// of the others stand for the defaults named.
type Config struct {
	// Addresses of the authority's nodes, host:port each, 1 to 64. Each gets one connection.
	Addresses []string
	// Key is the API key's secret, as `purser keys create` printed it.
	Key string
	// TLS turns on TLS; nil means plain text, which is refused off loopback unless Insecure.
	TLS *tls.Config
	// Insecure allows a plain-text connection to leave this machine: key and usage readable.
	Insecure bool
	// Session sends reservations and settlements over one stream for each address, many to a
	// message, for gateways that need more than single calls can carry. Nothing else changes.
	// With an authority that has no sessions, single calls are used.
	Session bool
	// NoWait makes Dial return without waiting until an address is connected.
	NoWait bool

	// Attempts bounds the tries of one call over all addresses, 1 to 100 (default 6).
	Attempts int
	// AttemptTimeout bounds one try (default 3 s).
	AttemptTimeout time.Duration
	// SettleTimeout bounds Commit, Release and Close of a handle with all their tries; they do
	// not end with the caller's context (default 10 s).
	SettleTimeout time.Duration
	// BackoffMin and BackoffMax bound the pause between tries, which doubles and is jittered
	// (default 25 ms and 1 s).
	BackoffMin, BackoffMax time.Duration
	// KeepFor bounds how long an open handle is kept from expiring since it was made or usage
	// was last reported on it (default 15 min); negative = handles are not extended at all.
	KeepFor time.Duration
	// Interim tells the authority with every heartbeat what was reported so far: see
	// [Handle.Interim]. Should this process die, that is charged; without it nothing is. Turn it on
	// when every node takes interim commits: an older one would take them for last ones.
	Interim bool
	// SpoolSize bounds the settlements kept for sending again (default 10 000).
	SpoolSize int
	// OnSettled is told what became of each settlement that was kept. It is called from one
	// goroutine and must not block.
	OnSettled func(Settled)
	// Logger gets a line when a settlement is kept, given up or settled late (default: none).
	Logger *slog.Logger
	// DialOptions come behind the client's own.
	DialOptions []grpc.DialOption
}

const (
	maxAddresses = 64
	maxAttempts  = 100
)

// withDefaults fills in what is zero and lists everything that is wrong.
func (c Config) withDefaults() (Config, error) {
	set(&c.Attempts, 6)
	set(&c.AttemptTimeout, 3*time.Second)
	set(&c.SettleTimeout, 10*time.Second)
	set(&c.BackoffMin, 25*time.Millisecond)
	set(&c.BackoffMax, time.Second)
	set(&c.KeepFor, 15*time.Minute)
	set(&c.SpoolSize, 10_000)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(c.checkAddresses(), c.checkBounds())
}

func set[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

func (c *Config) checkAddresses() error {
	if len(c.Addresses) < 1 || len(c.Addresses) > maxAddresses {
		return fmt.Errorf("config: there are %d addresses, want 1 to %d", len(c.Addresses), maxAddresses)
	}
	seen := make(map[string]bool, len(c.Addresses))
	for _, address := range c.Addresses {
		host, _, err := net.SplitHostPort(address)
		switch {
		case err != nil:
			return fmt.Errorf("config: address %q: want host:port: %w", address, err)
		case seen[address]:
			return fmt.Errorf("config: address %q is there twice", address)
		case c.TLS == nil && !c.Insecure && !loopback(host):
			return fmt.Errorf("config: address %q is not on this machine: set TLS, or Insecure to send the key in plain text", address)
		}
		seen[address] = true
	}
	return nil
}

func (c *Config) checkBounds() error {
	switch {
	case c.Key == "":
		return errors.New("config: the key is empty: set it to the secret that `purser keys create` printed")
	case strings.ContainsFunc(c.Key, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("config: the key has a space or a control character in it: was it read with its line break?")
	case c.Attempts < 1 || c.Attempts > maxAttempts:
		return fmt.Errorf("config: attempts is %d, want 1 to %d", c.Attempts, maxAttempts)
	case c.AttemptTimeout < 0 || c.SettleTimeout < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin:
		return errors.New("config: a time is negative, or BackoffMax is below BackoffMin")
	case c.SpoolSize < 0:
		return errors.New("config: SpoolSize is negative")
	}
	return nil
}

// loopback takes names and addresses; only the one name that is loopback everywhere counts.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.IsLoopback()
}
