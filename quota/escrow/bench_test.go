package escrow

import (
	"testing"

	"github.com/purser-io/purser/quota"
	"github.com/purser-io/purser/quota/label"
	"github.com/purser-io/purser/quota/token"
)

// warm is a rig with plenty of everything: a request of three labels over so many budgets
// and the wallet, and a codec for its token.
func warm(t testing.TB, budgets int) (*rig, *Request, *token.Codec) {
	t.Helper()
	r := newRig(t, 1<<50)
	var claims []Claim
	for i := range budgets {
		claims = append(claims, r.budget("org", string(rune('A'+i)), -1, 1<<50))
	}
	for i := range claims {
		claims[i].Window.End = quota.Never
	}
	q := r.ask(candidate("chat.large", 3, 500, 500, append(claims, wallet())...))
	q.Epochs = r.db.Profile("team").Epochs()
	labels, err := label.New(map[string]string{"user": "u-1234", "team": "search", "region": "eu-west-1"})
	if err != nil {
		t.Fatalf("labels: %v", err)
	}
	q.Labels = labels
	codec, err := token.NewCodec([]token.Key{{ID: 1, Secret: [32]byte{1}}}, 1)
	if err != nil {
		t.Fatalf("codec: %v", err)
	}
	r.grant(q)
	for _, p := range r.out.payer.pools { // as if a draw had brought very much
		for _, a := range p.allotments[:1] {
			a.free, a.amount = a.free+1<<60, a.amount+1<<60
		}
	}
	r.durable(r.settle(r.out.Token.Sequence))
	return r, q, codec
}

// free ends a hold as a durable release would, without the record.
func (r *rig) free(sequence uint64) {
	h := r.s.holds[sequence]
	for i := range h.parts {
		h.parts[i].place(0)
	}
	r.s.drop(h)
}

// round reserves, encodes the token, and frees the hold again.
func (r *rig) round(q *Request, codec *token.Codec, buf []byte) []byte {
	if st := r.s.Reserve(r.db.Now, q, &r.out); st != Granted {
		r.t.Fatalf("status %d, denial %+v", st, r.out.Denial)
	}
	buf, err := codec.Append(buf[:0], &r.out.Token)
	if err != nil {
		r.t.Fatalf("token: %v", err)
	}
	r.free(r.out.Token.Sequence)
	return buf
}

// BenchmarkReserve decides over the wallet and two budgets and encodes the token.
func BenchmarkReserve(b *testing.B) { benchReserve(b, 2) }

// BenchmarkMatch decides over as many budgets as match: the target is a ratio.
func BenchmarkMatch(b *testing.B) {
	for _, budgets := range []int{1, 63} {
		b.Run(map[int]string{1: "1", 63: "63"}[budgets], func(b *testing.B) { benchReserve(b, budgets) })
	}
}

func benchReserve(b *testing.B, budgets int) {
	r, q, codec := warm(b, budgets)
	buf := make([]byte, 0, token.MaxSize)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		buf = r.round(q, codec, buf)
		if n++; n%1000 == 0 {
			r.db.Now += second / 100
			r.s.Tick(r.db.Now)
		}
	}
}

// BenchmarkReserveAndSettle adds the record, the journal's batch and the books afterwards.
func BenchmarkReserveAndSettle(b *testing.B) {
	r, q, _ := warm(b, 2)
	j := NewJournal(1, 1<<20, 256)
	lines := []int64{1200}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if st := r.s.Reserve(r.db.Now, q, &r.out); st != Granted {
			b.Fatalf("status %d, denial %+v", st, r.out.Denial)
		}
		t := &r.out.Token
		_, p := r.s.Settle(r.db.Now, quota.Record{EntryKey: quota.EntryKey{Lane: 1, Sequence: t.Sequence}, Nonce: t.Nonce,
			Kind: quota.Committed, Lines: lines}, nil)
		j.Push(p)
		if n++; n%256 == 0 {
			j.Batch()
			for _, p := range j.Applied() {
				r.s.Settled(p)
			}
			r.db.Now += second / 1000
			r.s.Tick(r.db.Now)
		}
	}
}
