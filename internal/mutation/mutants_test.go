package mutation

// Layers, by how they look for mistakes.
const (
	smallModel = "small model" // every state within narrow bounds
	modelTest  = "model test"  // random histories
	storeSuite = "store suite" // the stores' contract, on SQLite
	shell      = "shell"       // a whole node over SQLite
	database   = "database"    // PostgreSQL, in more than one session
)

// mutant is a rule left out of the product.
type mutant struct {
	number int
	rule   string
	layer  string
	pkg    string // whose tests have to notice
	test   string // the test that has to fail
	says   string // what it has to find, as a regular expression
	within int    // moves of the small model, histories of the model test; 0 = the test is one case
	edits  []edit
	// shared: it may be in one build with the others of this kind, whose edits its test does not meet.
	// With TEST_MUTATION=long each has a build of its own all the same.
	shared bool
}

// edit replaces a piece of one file that must be there exactly once.
type edit struct {
	file string
	from string
	to   string
}

var mutants = []mutant{
	{1, "R1 free before durable", smallModel, "quota/escrow", "TestSmallModel/settling", "I4: ", 4, []edit{
		{"quota/escrow/settle.go", "	h.settling = p\n", `	h.settling = p
	for i := range h.parts {
		x := &h.parts[i]
		x.a.free += x.amount - x.used
		x.a.held -= x.amount - x.used
		x.amount = x.used
	}
`}}, false},
	{2, "R1 expired without a record", smallModel, "quota/escrow", "TestSmallModel/settling", "I4: ", 4, []edit{
		{"quota/escrow/settle.go", "		out = append(out, s.expire(now, h))\n", `		p := s.expire(now, h)
		p.Fate.Verdict = quota.VerdictApplied
		s.Settled(p)
`}}, false},
	{3, "R3 no fence", storeSuite, "storage/storagetest", "TestSQLite/Journal/Fenced", "got {Applied:true Fenced:false", 0, []edit{
		{"storage/sqlite/driver.go", "		if err != nil || !open {\n", "		if _ = open; err != nil {\n"}}, true},
	{4, "R10 closed without waiting", storeSuite, "storage/storagetest", "TestSQLite/Reaper/ClosableAfterHold", "closable before hold_until", 0, []edit{
		{"storage/relational/reaper.go", "i.close_after = 0 AND i.hold_until <= $2", "i.close_after = 0 AND i.issue_until <= $2"}}, true},
	{5, "R5 unknown taken for failure", shell, "quota/authority", "TestLostAnswersChargeOnce", "commit: TOKEN_TOO_OLD", 0, []edit{
		{"quota/authority/flush.go", `	if err != nil {
		return nil, nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
`, `	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		fates := make([]quota.Settlement, len(records))
		for i := range fates {
			fates[i].Verdict = quota.VerdictTooOld // which tells the client that nothing was charged
		}
		return l.journal.Judged(fates, false), nil, nil
	}
	switch {
`}}, false},
	{6, "R3 sessions that are READ COMMITTED", database, "storage/cockroach", "TestFenceHoldsBetweenSessions", "after 1 runs", 0, []edit{
		{"storage/cockroach/driver.go", "return d.attempt(ctx, d.write, pgx.TxOptions{IsoLevel: pgx.Serializable}, fn)",
			"return d.attempt(ctx, d.write, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, fn)"}}, false},
	{7, "a lane of an earlier life used again", shell, "quota/authority", "TestHalfOfAHealthyBalanceSurvivesACrash", "register", 0, []edit{
		{"quota/authority/engine.go", "		n, err := a.randomInt()\n", "		n, err := int64(i+1), error(nil)\n"}}, false},
	{8, "R16 no watermark", storeSuite, "storage/sqlite", "TestNothingIsSettledBehindTheWatermark", "verdict is 1, want 4", 0, []edit{
		{"storage/relational/settle.go", "	if !known || lane.gcBefore > r.ExpiresAt { // R16\n", "	if !known {\n"}}, false},
	{9, "R15 late not deduplicated", smallModel, "quota/escrow", "TestSmallModel/settling", "I5: ", 8, []edit{
		{"quota/journal.go", "	case lateEntry != nil:\n", "	case lateEntry != nil && !open && terminal == nil && lateEntry.Kind == Expired:\n"}}, false},
	{10, "R25 more than is held", smallModel, "quota/escrow", "TestSmallModel/usage", "I3: ", 4, []edit{
		{"quota/escrow/foreign.go", "			used := min(rest, p.Amount)\n", "			used := rest\n"}}, false},
	{11, "R14 what has expired is available again", storeSuite, "storage/storagetest", "TestSQLite/Reaper/CloseExpiredGrant", "grant short: ", 0, []edit{
		{"storage/relational/pot.go", `	case p.End <= now:
		p.Expired += amount
		return nil
	}
	p.Available += amount
`, `	}
	p.Available += amount
`}}, true},
	{12, "R13 what a window left goes to the next", smallModel, "quota/escrow", "TestSmallModel/extending", "R34: ", 4, []edit{
		{"quota/escrow/pool.go", "selector: w.Selector, start: w.Start}", "selector: w.Selector}"},
		{"quota/escrow/draw.go", "notAfter: a.NotAfter}", "notAfter: quota.Never}"}}, false},
	{13, "R18 a part of what is wanted is held", modelTest, "quota/escrow", "TestHalfRuleIsNotSafety", "I4: ", 100, []edit{
		{"quota/escrow/decide.go", `	if failed >= 0 {
		if out.Denial.Reason == 0 {`, `	if failed >= 0 {
		for i := range failed {
			need, _ := k.amount(&k.Claims[i], k.Min)
			out.fits[i].pool.take(now, min(need, out.fits[i].usable), new(hold))
		}
		if out.Denial.Reason == 0 {`}}, false},
	{14, "R17 all answered for some", smallModel, "quota/escrow", "TestSmallModel/settling", "I10: ", 8, []edit{
		{"quota/escrow/journal.go", "			again = append(again, p)\n		}\n	}\n	check(", `			p.Fate = quota.Settlement{Verdict: quota.VerdictApplied, Entry: p.Record.Entry(j.lane, j.next)}
			done = append(done, p)
		}
	}
	check(`}}, false},
	{15, "R6 lease counted from the answer", modelTest, "quota/escrow", "TestHalfRuleIsNotSafety", "I6: ", 3000, []edit{
		{"quota/escrow/lease.go", "	lapsed := l.granted &&", "	sent = received\n	lapsed := l.granted &&"}}, false},
	{16, "R12 a suspension not heard by who is warm", database, "quota/authority", "TestPolicyReachesTheOtherNode/postgresql", "I13: ", 0, []edit{
		{"quota/authority/poll.go", "			changedAccounts[c.ID] = true\n", ""}}, false},
	{17, "R23 interim usage added up", smallModel, "quota/escrow", "TestSmallModel/interim", "R23: ", 8, []edit{
		{"quota/escrow/interim.go", "			usage[at].Quantity = max(usage[at].Quantity, u.Quantity)\n			lines[at] = max(lines[at], later.Lines[i])\n",
			"			usage[at].Quantity += u.Quantity\n			lines[at] += later.Lines[i]\n"}}, false},
	{18, "R38 a token of another principal", shell, "quota/authority", "TestExtendAfterTheEnd", "CALLER_NOT_ALLOWED", 0, []edit{
		{"quota/authority/settle.go", "	if t.Principal != p.Name || !p.MayUseAccount(t.Account) {\n", "	if !p.MayUseAccount(t.Account) {\n"}}, false},
	{19, "R20 the cursor passes over what is missing", storeSuite, "storage/storagetest", "TestSQLite/Projection/BatchesStopAtAGap", "batches beyond one that is missing", 0, []edit{
		{"storage/relational/projection.go", "gap = gap || b.No != next; gap", "gap = gap || b.No < next; gap"}}, true},
	{20, "R22 closed by projection", storeSuite, "storage/storagetest", "TestSQLite/Reaper/CloseBelievesNoProjection", "grant one: ", 0, []edit{
		{"storage/relational/reaper.go", "selectParts     = `SELECT k1, k2, body FROM journal WHERE lane_id = $1 AND tag = 2 ORDER BY k1, k2`",
			"selectParts     = `SELECT k1, k2, body FROM journal WHERE lane_id = $1 AND tag = 2 AND k1 <= (SELECT batch_no FROM cursors WHERE lane_id = $1) ORDER BY k1, k2`"}}, false},
	{21, "R23 interim usage and a late charge of the whole", smallModel, "quota/escrow", "TestSmallModel/interim", "R23: ", 8, []edit{
		{"quota/journal.go", "	if behind != nil && behind.Used != nil {\n", "	if behind != nil && behind.Used == nil {\n"}}, false},
	{22, "R31 the reaper goes by its own M0", storeSuite, "storage/storagetest", "TestSQLite/Reaper/BuryKeepsWhatWasPromised", "had promised 2h", 0, []edit{
		{"storage/relational/reaper.go", "CASE WHEN hold_until - issue_until > $3 THEN", "CASE WHEN hold_until - issue_until > $3 AND $3 < 0 THEN"}}, false},
	{23, "R29 closed on the lock alone", storeSuite, "storage/storagetest", "TestSQLite/Reaper/CloseAfterIsWrittenOnce", "lanes may be closed after", 0, []edit{
		{"storage/relational/reaper.go", "setCloseAfter, now, self, int64(hold), now+int64(hold))", "setCloseAfter, now, self, int64(hold), now)"}}, true},
}
