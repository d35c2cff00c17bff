// Program gatehttp is an HTTP server gated by Purser. It streams words, and stops where the
// credits of the account end.
//
//	PURSER=127.0.0.1:7411 PURSER_KEY=$(cat gateway.key) LISTEN=127.0.0.1:8080 go run ./examples/gatehttp
//	curl -H 'X-Account: globex' 127.0.0.1:8080
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	purser "github.com/purser-io/purser/clients/go"
	"github.com/purser-io/purser/clients/go/gatehttp"
)

func main() {
	client, err := purser.Dial(context.Background(), purser.Config{Addresses: []string{os.Getenv("PURSER")}, Key: os.Getenv("PURSER_KEY")})
	if err != nil {
		log.Fatal(err)
	}
	gate := gatehttp.Middleware(client, func(r *http.Request) (*purser.Request, error) {
		return &purser.Request{Account: r.Header.Get("X-Account"), Features: []string{"chat.gpt-large"},
			Estimates: []purser.Estimate{purser.Want("output_tokens", 50, 1).UpTo(200)}}, nil
	})
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), gate(http.HandlerFunc(generate))))
}

// generate stands for a model.
func generate(w http.ResponseWriter, r *http.Request) {
	handle := purser.FromContext(r.Context())
	for more := true; more; more = handle.Add("output_tokens", 1) {
		fmt.Fprintln(w, "word")
	}
}
