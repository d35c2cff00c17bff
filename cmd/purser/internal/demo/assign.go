// Package demo replays a request trace against an authority, through the Go client and real
// gRPC, and compares what the client added up itself with what the authority says.
package demo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/manifest"
	"github.com/purser-io/purser/cmd/purser/internal/trace"
)

// The meters of a chat model.
const (
	MeterInput  = "input_tokens"
	MeterOutput = "output_tokens"
)

// Expected is how many output tokens are held for a request, Least how many will do. Nine in
// ten answers of the Azure trace are shorter than Expected; the others go beyond their hold.
const (
	Expected = 425
	Least    = 64
)

// Job is one row of the trace with what the trace does not say.
type Job struct {
	trace.Row
	Number    string // of the row, from 1
	Account   string
	Plan      string // of the account, for the tables
	User      string
	Team      string
	Features  []string // in order of preference
	Cancelled bool     // the user gives up before the first token
}

// Payer is an account that may be given requests.
type Payer struct {
	Account string
	Plan    string
	Parent  string
}

// Payers lists the accounts of a manifest with a plan of their own or their parent's. An
// account whose children have requests of their own is left out.
func Payers(m *manifest.Manifest) []Payer {
	plans, parents := map[string]string{}, map[string]bool{}
	for _, a := range m.Accounts {
		plans[a.ID] = a.Plan
		if a.Plan == "" {
			plans[a.ID] = plans[a.Parent]
		}
		parents[a.Parent] = true
	}
	var out []Payer
	for _, a := range m.Accounts {
		if !parents[a.ID] && plans[a.ID] != "" {
			out = append(out, Payer{a.ID, plans[a.ID], a.Parent})
		}
	}
	return out
}

// Models lists the features of a manifest that are measured in input and output tokens, in
// its order: the first is the one most requests prefer.
func Models(m *manifest.Manifest) []string {
	var out []string
	for _, f := range m.Features {
		meters := strings.Join(f.Meters, " ") + " "
		if strings.Contains(meters, MeterInput+" ") && strings.Contains(meters, MeterOutput+" ") {
			out = append(out, f.ID)
		}
	}
	return out
}

// usersPerAccount is how many users an account has; some are far busier than others.
const usersPerAccount = 20

var teams = []string{"search", "support", "research"}

// Assign gives each row an account, a user, a team and a choice of models, from a seed: the
// trace has none of them. The same arguments give the same jobs. An account listed earlier
// gets more requests, by Zipf's law, and so does a user.
func Assign(rows []trace.Row, payers []Payer, models []string, seed uint64) ([]Job, error) {
	if len(payers) == 0 || len(models) == 0 {
		return nil, fmt.Errorf("assign: the catalogue has %d accounts with a plan and %d features with the meters %s and %s; it needs at least one of each",
			len(payers), len(models), MeterInput, MeterOutput)
	}
	random := rand.New(rand.NewPCG(seed, 0x7075727365720000))
	accounts, users := zipf(len(payers)), zipf(usersPerAccount)
	jobs := make([]Job, len(rows))
	for i, row := range rows {
		p := payers[pick(accounts, random)]
		jobs[i] = Job{Row: row, Number: strconv.Itoa(i + 1), Account: p.Account, Plan: p.Plan,
			User:      fmt.Sprintf("%s-%02d", p.Account, pick(users, random)+1),
			Team:      team(p, random),
			Features:  choice(models, random),
			Cancelled: random.IntN(50) == 0,
		}
	}
	return jobs, nil
}

// team is the part of a child account's id behind its parent's, or any.
func team(p Payer, random *rand.Rand) string {
	if rest, ok := strings.CutPrefix(p.Account, p.Parent+"-"); ok && p.Parent != "" {
		return rest
	}
	return teams[random.IntN(len(teams))]
}

// choice: one in seven insists on the first model, three in seven take any, in order, three
// in seven leave the first one out if they can.
func choice(models []string, random *rand.Rand) []string {
	switch n := random.IntN(7); {
	case n == 0:
		return models[:1]
	case n > 3 && len(models) > 1:
		return models[1:]
	}
	return models
}

// zipf is the cumulative share of ranks 1..n, the k-th weighing 1/k.
func zipf(n int) []float64 {
	sums := make([]float64, n)
	var sum float64
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	for i := range sums {
		sums[i] /= sum
	}
	return sums
}

func pick(shares []float64, random *rand.Rand) int {
	x := random.Float64()
	for i, s := range shares {
		if x < s {
			return i
		}
	}
	return len(shares) - 1
}

// after is how long a duration of the trace takes at a speed; 0 = no time at all.
func after(d time.Duration, speed float64) time.Duration {
	if speed <= 0 {
		return 0
	}
	return time.Duration(math.Min(float64(d)/speed, math.MaxInt64/2))
}
