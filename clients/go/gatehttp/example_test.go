package gatehttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gatehttp"
	"github.com/purser-io/purser/internal/testnode"
)

// A handler that streams is gated, and stops where the account's credits end: globex has one
// credit, which pays for 333 tokens.
func ExampleMiddleware() {
	client, end := connect()
	defer end()

	gate := gatehttp.Middleware(client, func(r *http.Request) (*purser.Request, error) {
		return &purser.Request{Account: r.Header.Get("X-Account"), Features: []string{"chat.gpt-large"},
			Estimates: []purser.Estimate{purser.Want("output_tokens", 2000, 1)}}, nil
	})
	handler := gate(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle, tokens := purser.FromContext(r.Context()), 1
		for ; handle.Add("output_tokens", 1); tokens++ {
			// ... produce one and write it
		}
		fmt.Fprintf(w, "%d tokens\n", tokens)
	}))

	server := httptest.NewServer(handler)
	defer server.Close()
	for range 2 {
		request, _ := http.NewRequest(http.MethodPost, server.URL, nil)
		request.Header.Set("X-Account", "globex")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(response.Status)
		if response.StatusCode == http.StatusOK {
			io.Copy(os.Stdout, response.Body)
		}
		response.Body.Close()
	}
	// Output:
	// 200 OK
	// 333 tokens
	// 402 Payment Required
}

// connect runs an authority for an example.
func connect() (*purser.Client, func()) {
	dir, err := os.MkdirTemp("", "purser-example-")
	if err != nil {
		log.Fatal(err)
	}
	node, err := testnode.Start(context.Background(), dir, time.Now)
	if err != nil {
		log.Fatal(err)
	}
	client, err := purser.Dial(context.Background(), purser.Config{Addresses: []string{node.Address}, Key: node.Key})
	if err != nil {
		log.Fatal(err)
	}
	return client, func() {
		client.Close(context.Background())
		node.Close()
		os.RemoveAll(dir)
	}
}
