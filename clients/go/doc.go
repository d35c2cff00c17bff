// Package purser is the Go client of Purser: it asks whether an account may use a feature and
// can pay for it, before the work is done, and settles what was used afterwards.
//
//	client, err := purser.Dial(ctx, purser.Config{Addresses: []string{"purser-1:7411", "purser-2:7411"}, Key: key, TLS: &tls.Config{}})
//	...
//	handle, err := client.Gate(ctx, purser.Request{
//		Account:   "acme",
//		Features:  []string{"chat.gpt-large", "chat.gpt-small"},
//		Estimates: []purser.Estimate{purser.Need("input_tokens", prompt), purser.Want("output_tokens", 400, 64)},
//	})
//	if denied, ok := errors.AsType[*purser.Denied](err); ok { // a normal answer: no
//		...
//	}
//	defer handle.Close() // gives back what was held if the work panics or is abandoned
//	answer := generate(handle.Feature(), handle.Granted("output_tokens"))
//	receipt, err := handle.Commit(ctx, purser.Used("input_tokens", prompt), purser.Used("output_tokens", answer.Tokens))
//
// A handle that is open for long is kept alive by itself, and asks for more as usage is reported
// on it where the request says up to how much: see [Handle], [Estimate.UpTo] and
// [Handle.Report]. [Config.Session] sends calls over one stream for each address.
// The packages gategrpc and gatehttp beside this one gate a whole server. docs/go-client.md
// in the repository tells all of it in order.
//
// The client holds one connection to each address. An account has a home among them, the same
// for every client, found by rendezvous hash (R27); a reservation is settled where it was made,
// elsewhere only when that fails. A call is repeated by one rule: an error is definite if the
// server says that nothing was applied (`not_applied`), or answers with a state; an error that
// leaves the outcome open (UNAVAILABLE, DEADLINE_EXCEEDED, UNKNOWN, INTERNAL, a broken
// connection) is followed by the same call with the same token, on the same address and then on
// the next. What is still open after that is kept, bounded, and sent again in the background.
//
// The client is no cache and decides nothing: every answer is the authority's.
package purser
