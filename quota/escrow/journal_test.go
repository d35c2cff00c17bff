package escrow

import (
	"fmt"
	"testing"

	"github.com/purser-io/purser/quota"
)

func pendings(sequences ...uint64) []*Pending {
	out := make([]*Pending, len(sequences))
	for i, n := range sequences {
		out[i] = &Pending{Record: quota.Record{EntryKey: quota.EntryKey{Lane: 1, Sequence: n}, Kind: quota.Committed}}
	}
	return out
}

func pushed(j *Journal, sequences ...uint64) {
	for _, p := range pendings(sequences...) {
		j.Push(p)
	}
}

func sequencesOf(ps []*Pending) (s []uint64) {
	for _, p := range ps {
		s = append(s, p.Record.Sequence)
	}
	return s
}

// expectBatch sends what the journal would send.
func expectBatch(t *testing.T, j *Journal, no int64, sequences ...uint64) {
	t.Helper()
	gotNo, batch := j.Batch()
	if gotNo != no || fmt.Sprint(sequencesOf(batch)) != fmt.Sprint(sequences) {
		t.Fatalf("batch %d is %v, want %d with %v", gotNo, sequencesOf(batch), no, sequences)
	}
}

func TestJournalNumbers(t *testing.T) {
	j := NewJournal(1, 4, 3)
	expectBatch(t, j, 1)
	pushed(j, 1, 2)
	expectBatch(t, j, 1, 1, 2)
	pushed(j, 3, 4, 5, 6)
	expectBatch(t, j, 1, 1, 2) // R5: the batch in flight keeps content and number
	if !j.Full() || j.Len() != 6 {
		t.Fatalf("full is %v with %d", j.Full(), j.Len())
	}
	done := j.Applied()
	if fmt.Sprint(sequencesOf(done)) != "[1 2]" || done[0].Fate.Verdict != quota.VerdictApplied || done[0].Fate.Entry.BatchNo != 1 {
		t.Fatalf("applied %v with fate %+v", sequencesOf(done), done[0].Fate)
	}
	expectBatch(t, j, 2, 3, 4, 5) // at most three rows
	// R20: a batch that definitely failed leaves its number to its successor, which begins
	// with what was not settled by others.
	winner := quota.Entry{EntryKey: quota.EntryKey{Lane: 1, Sequence: 4}, Kind: quota.Released}
	done = j.Refused([]quota.Entry{winner})
	if fmt.Sprint(sequencesOf(done)) != "[4]" || done[0].Fate.Verdict != quota.VerdictSettled || done[0].Fate.Entry.Kind != quota.Released {
		t.Fatalf("refused %v with fate %+v", sequencesOf(done), done[0].Fate)
	}
	expectBatch(t, j, 2, 3, 5, 6)
	pushed(j, 7)
	rest := j.Fenced()
	if fmt.Sprint(sequencesOf(rest)) != "[3 5 6 7]" || !j.Closed() || j.Len() != 0 {
		t.Fatalf("fenced left over %v, closed is %v", sequencesOf(rest), j.Closed())
	}
}

func TestJournalJudged(t *testing.T) {
	verdict := func(v ...quota.Verdict) (fates []quota.Settlement) {
		for _, x := range v {
			fates = append(fates, quota.Settlement{Verdict: x})
		}
		return fates
	}
	j := NewJournal(1, 10, 3)
	pushed(j, 1, 2, 3, 4)
	expectBatch(t, j, 1, 1, 2, 3)
	done := j.Judged(verdict(quota.VerdictApplied, quota.VerdictRetry, quota.VerdictDropped), true)
	if fmt.Sprint(sequencesOf(done)) != "[1 3]" {
		t.Fatalf("judged %v", sequencesOf(done))
	}
	expectBatch(t, j, 2, 2, 4) // what has to be tried again goes first
	if done = j.Judged(verdict(quota.VerdictSettled, quota.VerdictTooOld), false); len(done) != 2 {
		t.Fatalf("judged %v", sequencesOf(done))
	}
	pushed(j, 5)
	expectBatch(t, j, 2, 5) // the number was not used
}

func TestJournalRefusedByNobody(t *testing.T) {
	j := NewJournal(1, 10, 3)
	pushed(j, 1)
	expectBatch(t, j, 1, 1)
	expectViolation(t, "R20", func() { j.Refused(nil) })
}

// TestJournalHalves: a guest lane's batch that lost against others is cut down, keeps its number,
// and grows again with each that lands.
func TestJournalHalves(t *testing.T) {
	j := NewJournal(1, 100, 8)
	pushed(j, 1, 2, 3, 4, 5, 6, 7)
	expectBatch(t, j, 1, 1, 2, 3, 4, 5, 6, 7)
	for _, left := range [][]uint64{{1, 2, 3}, {1}, {1}} {
		j.Halve()
		expectBatch(t, j, 1, left...)
	}
	for no, want := range [][]uint64{2: {2, 3}, 3: {4, 5, 6, 7}} {
		if want != nil {
			_, batch := j.Batch()
			j.Judged(make([]quota.Settlement, len(batch)), true)
			expectBatch(t, j, int64(no), want...)
		}
	}
	if j.Len() != 4 {
		t.Errorf("%d are left, want 4", j.Len())
	}
}
