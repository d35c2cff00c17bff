package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/purser-io/purser/clients/go"
)

// dialTimeout bounds the wait for a server that a command talks to.
const dialTimeout = 10 * time.Second

// connection is the flags of commands that talk to a server.
type connection struct {
	Server   string `default:"127.0.0.1:7411" help:"The server to talk to."`
	KeyFile  string `type:"path" placeholder:"FILE" help:"File with the API key to use."`
	TLS      bool   `name:"tls" help:"Use TLS. Needed off this machine, unless --insecure."`
	TLSCA    string `name:"tls-ca" type:"path" placeholder:"FILE" help:"Certificate authority to trust instead of the system's; implies --tls."`
	Insecure bool   `help:"Send the key in plain text to another machine."`
}

// dial connects; the caller closes the client.
func (c *connection) dial(ctx context.Context) (*purser.Client, error) {
	if c.KeyFile == "" {
		return nil, errors.New("say with --key-file which API key to use: `purser serve` prints where it wrote the first one")
	}
	secret, err := readSecret(c.KeyFile)
	if err != nil {
		return nil, err
	}
	config := purser.Config{Addresses: []string{c.Server}, Key: secret, Insecure: c.Insecure}
	if config.TLS, err = c.tls(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	return purser.Dial(ctx, config)
}

func (c *connection) tls() (*tls.Config, error) {
	if !c.TLS && c.TLSCA == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(c.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificate authority %s: there is no certificate in it", c.TLSCA)
	}
	return config, nil
}

// with runs fn with a connection to the server, or to one started here on the store if a store
// is named.
func (c *connection) with(e *env, store storeURL, fn func(conn grpc.ClientConnInterface) error) error {
	if store != "" {
		return withLocalServer(e, store, fn)
	}
	client, err := c.dial(e.ctx)
	if err != nil {
		return err
	}
	return errors.Join(fn(client.Conn("")), client.Close(e.ctx))
}
