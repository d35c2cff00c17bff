// Package host is the process that is measured: a Purser node, and beside it, in the same
// process with the same settings, what it is compared with. The process that measures starts
// it and talks to it over its standard input and output, one JSON object to a line, so that
// nobody else can.
package host

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Ready is what the host says first: what it serves, and the key to it.
type Ready struct {
	Purser string `json:"purser"` // addresses, host:port
	Bare   string `json:"bare"`   // echo without interceptors
	Chain  string `json:"chain"`  // echo behind the node's interceptors
	Naive  string `json:"naive"`
	Key    string `json:"key"`
}

// Order is a request to the host.
type Order struct {
	Do string `json:"do"`
	// Accounts: how many copies of Template to make, named Prefix and a number; see Name.
	Template string `json:"template,omitempty"`
	Prefix   string `json:"prefix,omitempty"`
	Count    int    `json:"count,omitempty"`
	// Fill: how many accounts share Count reservations, and whether each has a key.
	Accounts int  `json:"accounts,omitempty"`
	Keys     bool `json:"keys,omitempty"`
	// Answer of the echo service, an encoded CheckAndReserveResponse.
	Answer []byte `json:"answer,omitempty"`
	// Profile: where to write; "" = the one under way is complete.
	Path string `json:"path,omitempty"`
}

// Orders.
const (
	Usage    = "usage"    // tell what the process has used
	Collect  = "collect"  // the same after a garbage collection
	Churn    = "churn"    // the same when the collector has let the heap grow again, as it does under load
	Settle   = "settle"   // wait until everything is durable and projected
	Accounts = "accounts" // make accounts, for Purser and naive
	Echo     = "echo"     // set the echo's answer
	Fill     = "fill"     // make Count reservations and leave them
	Insert   = "insert"   // insert Count single rows, one after the other
	Profile  = "profile"  // begin a CPU profile at Path, or complete it
)

// Report answers an order.
type Report struct {
	Error string `json:"error,omitempty"`
	Usage *Used  `json:"usage,omitempty"`
	// InsertNanos are how long the single inserts took.
	InsertNanos []int64 `json:"insert_nanos,omitempty"`
}

// Used is what the host has used since it began, and what it has now.
type Used struct {
	CPUSeconds   float64 `json:"cpu_seconds"`
	Transactions int     `json:"transactions"` // of the Purser node on its store
	RSS          int64   `json:"rss_bytes"`    // 0 = not known on this system
	Heap         int64   `json:"heap_bytes"`   // objects that are reachable or not swept yet
	Reservations int     `json:"reservations"` // live
	Accounts     int     `json:"accounts"`     // in memory
}

// Name is the name of account i of those made with a prefix.
func Name(prefix string, i int) string { return fmt.Sprintf("%s%06d", prefix, i) }

// Child is a host as its parent sees it. It is not safe for concurrent use.
type Child struct {
	Ready
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Reader
}

// Start starts cmd as a host and waits until it is ready. The child ends when its input does,
// so at the latest with this process.
func Start(cmd *exec.Cmd) (*Child, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server to be measured: %w", err)
	}
	c := &Child{cmd: cmd, in: in, lines: bufio.NewReader(out)}
	if err := c.read(&c.Ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start the server to be measured: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Child) read(to any) error {
	line, err := c.lines.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return errors.New("it ended; what it said is above")
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(line, to)
}

// Do gives an order and waits for its report. When ctx ends the child is stopped.
func (c *Child) Do(ctx context.Context, o Order) (Report, error) {
	defer context.AfterFunc(ctx, func() { _ = c.in.Close() })() // it ends, and so does the read below
	var r Report
	err := json.NewEncoder(c.in).Encode(o)
	if err == nil {
		err = c.read(&r)
	}
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case err != nil:
		return r, fmt.Errorf("%s: the server that is measured: %w", o.Do, err)
	case r.Error != "":
		return r, fmt.Errorf("%s: the server that is measured: %s", o.Do, r.Error)
	}
	return r, nil
}

// Stop ends the child and waits until it has.
func (c *Child) Stop() error {
	_ = c.in.Close() // closed already, perhaps
	return c.cmd.Wait()
}

// Obey reads orders from in until it ends, has do carry each out, and writes the reports to out.
func Obey(ctx context.Context, in io.Reader, out io.Writer, ready Ready, do func(context.Context, Order) (Report, error)) error {
	encoder := json.NewEncoder(out)
	if err := encoder.Encode(ready); err != nil {
		return err
	}
	for decoder := json.NewDecoder(in); ; {
		var o Order
		if err := decoder.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		r, err := do(ctx, o)
		if err != nil {
			r.Error = err.Error()
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
}
