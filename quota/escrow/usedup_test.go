package escrow

import (
	"testing"

	"github.com/purser-io/purser/quota"
)

// TestNumbersRunOut: allotment numbers do not wrap around into those of another shard or of an
// earlier draw; the shard stops drawing instead (R54).
func TestNumbersRunOut(t *testing.T) {
	s := NewShard(Config{MaxTTL: 1e9, Grace: 1e9, Room: NewRoom(10)}, 1, MaxShards-1, [32]byte{}, 0)
	s.block = lastBlock - 1
	p := s.payerOf("acme")
	p.epochs = []quota.AccountEpoch{{Account: "acme", Epoch: 1}}
	p.wallet.want = 1
	d := s.begin(0, "i", p)
	if d == nil {
		t.Fatal("no draw with the last block")
	}
	first := uint64(d.Wants[0].First)
	if end := first + quota.MaxWalletGrants - 1; end > 1<<32-1 || first <= uint64(lastBlock-1)*MaxShards*quota.MaxWalletGrants {
		t.Errorf("the last block is %d to %d", first, end)
	}
	s.FailDraw(d)
	p.wallet.want = 1
	if d := s.begin(0, "i", p); d != nil || !s.UsedUp() {
		t.Errorf("a draw behind the last block: %+v", d)
	}
}
