package faultproxy

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Transaction states, as ReadyForQuery says them.
const (
	idle   = 'I'
	inside = 'T'
	failed = 'E'
)

// session is one connection of a client, and the one to the server that stands behind it.
type session struct {
	proxy      *Proxy
	conn       net.Conn
	client     *pgproto3.Backend
	serverConn net.Conn
	server     *pgproto3.Frontend

	prepared map[string]string // statements by name
	op       Op                // what the open transaction is sent for
	state    byte              // of the transaction, as the server said last
	aborted  bool              // the client was told that it failed, and the server has rolled it back
}

// exchange is what a client sends before it waits for an answer.
type exchange struct {
	raw []byte
	sql []string // of what is executed
}

// serve is a session from its beginning to its end.
func serve(p *Proxy, conn net.Conn) {
	s := &session{proxy: p, conn: conn, client: pgproto3.NewBackend(conn, conn), prepared: map[string]string{}, op: Other, state: idle}
	defer reset(conn)
	if err := s.greet(); err != nil {
		return
	}
	for {
		x, err := s.receive()
		if err != nil || !s.exchange(x) {
			break
		}
	}
	if s.serverConn != nil { // a zombie took it
		_ = s.serverConn.Close() // which rolls back what is open
	}
}

// greet opens a session on the server as the client asks for it, and says so to the client. How
// to log in to the server, and whether over TLS, is the proxy's business.
func (s *session) greet() error {
	for {
		m, err := s.client.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := s.conn.Write([]byte("N")); err != nil {
				return err
			}
		case *pgproto3.StartupMessage:
			return s.open(m.Parameters)
		default: // A request to cancel is a wish that may be lost; here it always is.
			return errors.New("not a session")
		}
	}
}

func (s *session) open(parameters map[string]string) error {
	config := s.proxy.upstream.Copy()
	for name, value := range parameters {
		if name != "user" && name != "database" {
			config.RuntimeParams[name] = value
		}
	}
	up, err := pgconn.ConnectConfig(s.proxy.ctx, config)
	if err != nil {
		return err
	}
	h, err := up.Hijack()
	if err != nil {
		return errors.Join(err, up.Close(context.Background()))
	}
	s.serverConn, s.server = h.Conn, h.Frontend
	s.client.Send(&pgproto3.AuthenticationOk{})
	for name, value := range h.ParameterStatuses {
		s.client.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	s.client.Send(&pgproto3.BackendKeyData{ProcessID: h.PID, SecretKey: h.SecretKey})
	s.client.Send(&pgproto3.ReadyForQuery{TxStatus: idle})
	return s.client.Flush()
}

// receive reads until the client waits for an answer.
func (s *session) receive() (x exchange, err error) {
	bound := ""
	for {
		m, err := s.client.Receive()
		if err != nil {
			return x, err
		}
		if x.raw, err = m.Encode(x.raw); err != nil {
			return x, err
		}
		switch m := m.(type) {
		case *pgproto3.Parse:
			s.prepared[m.Name] = m.Query
		case *pgproto3.Bind:
			bound = m.PreparedStatement
		case *pgproto3.Execute:
			x.sql = append(x.sql, s.prepared[bound])
		case *pgproto3.Query:
			x.sql = append(x.sql, m.String)
			return x, nil
		case *pgproto3.Sync:
			return x, nil
		case *pgproto3.Terminate:
			return x, io.EOF
		}
	}
}

// exchange answers the client; false ends the session.
func (s *session) exchange(x exchange) bool {
	if len(x.sql) == 0 {
		return s.aborted && s.deny("25P02", failed) || !s.aborted && s.forward(x.raw)
	}
	switch verb(x.sql[0]) {
	case "begin":
		s.op = Other
		return s.forward(x.raw)
	case "commit":
		if s.aborted {
			return s.rolledBack()
		}
		return s.meet(x, event{s.op, Commit})
	case "rollback":
		if s.aborted {
			return s.rolledBack()
		}
		return s.forward(x.raw)
	}
	if s.aborted {
		return s.deny("25P02", failed)
	}
	op := opOf(x.sql[0])
	if s.state != inside {
		if op == Append {
			return s.meet(x, event{op, Commit})
		}
		return s.meet(x, event{op, Statement})
	}
	if s.op == Other {
		s.op = op
	}
	return s.meet(x, event{s.op, Statement})
}

// meet makes the exchange as its fault lets it.
func (s *session) meet(x exchange, e event) bool {
	f, by := s.proxy.next(e)
	switch f.Kind {
	case Cut:
		return false
	case CutAfter:
		_, _ = s.ask(x.raw) // nobody is told
		return false
	case Unknown:
		return s.refuse(e, "40003")
	case UnknownAfter:
		if _, err := s.ask(x.raw); err != nil {
			return false
		}
		return s.refuse(e, "40003")
	case Restart:
		return s.refuse(e, "40001")
	case Duplicate:
		return s.refuse(e, "23505")
	case Shutdown:
		return s.farewell()
	case ShutdownAfter:
		_, _ = s.ask(x.raw)
		return s.farewell()
	case Zombie:
		s.bury(x.raw, f, by)
		return false
	case Delay:
		if !wait(s.proxy.ctx, f.For) {
			return false
		}
	case Hang:
		return s.silence()
	case HangAfter:
		_, _ = s.ask(x.raw)
		return s.silence()
	case Twice:
		if e.op == Append {
			if _, err := s.ask(x.raw); err != nil {
				return false
			}
		}
	case Truncate:
		answer, err := s.ask(x.raw)
		if err == nil {
			_, _ = s.conn.Write(answer[:len(answer)/2])
			_ = s.conn.Close() // in order, or what was written would be lost
		}
		return false
	}
	return s.forward(x.raw)
}

// forward makes the exchange as it should be.
func (s *session) forward(raw []byte) bool {
	answer, err := s.ask(raw)
	if err != nil {
		return false
	}
	_, err = s.conn.Write(answer)
	return err == nil
}

// ask sends to the server and reads its answer. Both at once: either side may have more to say
// than the line holds.
func (s *session) ask(raw []byte) (answer []byte, err error) {
	sent := make(chan error, 1)
	go func() {
		_, err := s.serverConn.Write(raw)
		sent <- err
	}()
	for ready := false; err == nil && !ready; {
		var m pgproto3.BackendMessage
		if m, err = s.server.Receive(); err != nil {
			break
		}
		if r, ok := m.(*pgproto3.ReadyForQuery); ok {
			s.state, ready = r.TxStatus, true
		}
		answer, err = m.Encode(answer)
	}
	if err != nil {
		_ = s.serverConn.Close() // ends the sending too
	}
	return answer, errors.Join(err, <-sent)
}

// refuse tells the client that its statement failed. What it had open is rolled back on the
// server, and the client is told that it failed, until it ends it.
func (s *session) refuse(e event, code string) bool {
	if s.state == inside || s.state == failed {
		rollback, err := (&pgproto3.Query{String: "ROLLBACK"}).Encode(nil)
		if err != nil {
			return false
		}
		if _, err := s.ask(rollback); err != nil {
			return false
		}
		if e.at != Commit {
			s.aborted = true
			return s.deny(code, failed)
		}
	}
	return s.deny(code, idle)
}

// deny answers with an error.
func (s *session) deny(code string, state byte) bool {
	s.client.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: code, Message: "injected"})
	s.client.Send(&pgproto3.ReadyForQuery{TxStatus: state})
	return s.client.Flush() == nil
}

// rolledBack is what a server says to the end of a transaction that failed.
func (s *session) rolledBack() bool {
	s.aborted = false
	s.client.Send(&pgproto3.CommandComplete{CommandTag: []byte("ROLLBACK")})
	s.client.Send(&pgproto3.ReadyForQuery{TxStatus: idle})
	return s.client.Flush() == nil
}

// farewell is what a server says that is shut down.
func (s *session) farewell() bool {
	s.client.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "injected shutdown"})
	_ = s.client.Flush()
	_ = s.conn.Close() // in order, or what was said would be lost
	return false
}

// silence waits until the client gives up.
func (s *session) silence() bool {
	for {
		m, err := s.client.Receive()
		if _, ok := m.(*pgproto3.Terminate); ok || err != nil {
			return false
		}
	}
}

// bury breaks the client's connection, and keeps that to the server for what was to be sent.
func (s *session) bury(raw []byte, f Fault, by *Injected) {
	late := &session{proxy: s.proxy, serverConn: s.serverConn, server: s.server}
	s.serverConn = nil
	s.proxy.sessions.Go(func() {
		defer late.serverConn.Close()
		var free <-chan struct{}
		if by != nil {
			defer by.landed.Done()
			free = by.free
		}
		var due <-chan time.Time
		if f.For > 0 {
			timer := time.NewTimer(f.For)
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-free:
		case <-due:
		case <-s.proxy.ctx.Done():
			return
		}
		_, _ = late.ask(raw) // nobody is left to be told
	})
}

// wait is a sleep that ends with ctx; false says that it did.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
