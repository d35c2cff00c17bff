// Package usage adds up what an account used: by feature or hour from hourly sums, by label from
// single events. Sums are exact.
package usage

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/table"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
	"github.com/purser-io/purser/quota/amount"
)

// Query is what to add up, and how.
type Query struct {
	Account string
	By      By
	From    time.Time
	Until   time.Time // exclusive; zero = now
}

// By is what usage is grouped by.
type By struct {
	Kind  string // "feature", "hour" or "label"
	Label string // key; empty: by all labels together
}

// ParseBy reads feature, hour, label, or label=team.
func ParseBy(text string) (By, error) {
	kind, label, ok := strings.Cut(text, "=")
	switch {
	case kind == "label" && (!ok || label != ""), !ok && (kind == "feature" || kind == "hour"):
		return By{kind, label}, nil
	}
	return By{}, fmt.Errorf("%q is nothing to group usage by: want feature, hour, label, or label=KEY", text)
}

// Report is the usage of an account.
type Report struct {
	Account string    `json:"account"`
	By      string    `json:"by"`
	From    time.Time `json:"start_time"`
	Until   time.Time `json:"end_time,omitzero"`
	Lines   []Line    `json:"lines"`
	Charged int64     `json:"charged_micros"`
}

// Line is what one group used of one meter.
type Line struct {
	Group    string `json:"group"`
	Meter    string `json:"meter"`
	Quantity int64  `json:"quantity"`
	Events   int64  `json:"events"` // that used the meter
	Charged  int64  `json:"charged_micros"`
}

// Reader reads usage from a server.
type Reader struct {
	Server *resource.Server
	events atomic.Int64
}

// Events is how many events were read so far, from any goroutine.
func (r *Reader) Events() int64 { return r.events.Load() }

// Read adds up what was asked for. Hourly sums start at whole hours, so From is rounded down to
// one for them; the report says from when it is.
func (r *Reader) Read(ctx context.Context, q Query) (*Report, error) {
	s := sums{}
	if q.By.Kind != "label" {
		q.From = q.From.Truncate(time.Hour)
		if err := r.rollups(ctx, q, s); err != nil {
			return nil, err
		}
	} else if err := r.labels(ctx, q, s); err != nil {
		return nil, err
	}
	return s.report(q)
}

func (r *Reader) rollups(ctx context.Context, q Query, s sums) error {
	list, err := r.Server.AccountRollups(ctx, q.Account, q.From, q.Until)
	if err != nil {
		return err
	}
	for _, x := range list {
		group := x.GetFeature()
		if q.By.Kind == "hour" {
			group = x.GetHourTime().AsTime().Format(time.RFC3339)
		}
		if err := s.add(group, x.GetMeter(), x.GetQuantity(), x.GetEvents(), x.GetChargedMicros()); err != nil {
			return err
		}
	}
	return nil
}

// labels keeps sums only, however many events there are.
func (r *Reader) labels(ctx context.Context, q Query, s sums) error {
	request := &purserv1.ListUsageEventsRequest{Account: q.Account, PageSize: 1000, StartTime: timestamppb.New(q.From)}
	if !q.Until.IsZero() {
		request.EndTime = timestamppb.New(q.Until)
	}
	for {
		page, err := r.Server.Usage.ListUsageEvents(ctx, request)
		if err != nil {
			return fmt.Errorf("list usage events: %w", err)
		}
		for _, e := range page.GetUsageEvents() {
			for _, l := range e.GetLines() {
				if err := s.add(q.By.group(e.GetLabels()), l.GetMeter(), l.GetQuantity(), 1, l.GetPriceMicros()); err != nil {
					return err
				}
			}
		}
		r.events.Add(int64(len(page.GetUsageEvents())))
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return nil
		}
	}
}

func (b By) group(labels map[string]string) string {
	if b.Label != "" {
		return labels[b.Label]
	}
	return resource.Labels(labels)
}

// sums are lines by group and meter.
type sums map[[2]string]*Line

func (s sums) add(group, meter string, quantity, events, charged int64) error {
	l := s[[2]string{group, meter}]
	if l == nil {
		l = &Line{Group: group, Meter: meter}
		s[[2]string{group, meter}] = l
	}
	if err := resource.AddTo(&l.Quantity, quantity); err != nil {
		return err
	}
	if err := resource.AddTo(&l.Events, events); err != nil {
		return err
	}
	return resource.AddTo(&l.Charged, charged)
}

// report sorts groups by what they cost, dearest first, and hours by time.
func (s sums) report(q Query) (*Report, error) {
	by := q.By.Kind
	if q.By.Label != "" {
		by += "=" + q.By.Label
	}
	out := &Report{Account: q.Account, By: by, From: q.From.UTC(), Until: q.Until.UTC(), Lines: []Line{}}
	if q.Until.IsZero() {
		out.Until = time.Time{}
	}
	cost := map[string]int64{}
	for _, l := range s {
		out.Lines = append(out.Lines, *l)
		if err := resource.AddTo(&out.Charged, l.Charged); err != nil {
			return nil, err
		}
		cost[l.Group] += l.Charged // fits, as the whole sum does
	}
	slices.SortFunc(out.Lines, func(a, b Line) int {
		dearest := cmp.Compare(cost[b.Group], cost[a.Group])
		if q.By.Kind == "hour" {
			dearest = 0
		}
		return cmp.Or(dearest, cmp.Compare(a.Group, b.Group), cmp.Compare(a.Meter, b.Meter))
	})
	return out, nil
}

// barWidth is the length of the longest bar, in cells.
const barWidth = 24

// Write lays the report out, with bars that compare costs if there is somebody to see them.
func (r *Report) Write(w io.Writer, bars bool) {
	until := "now"
	if !r.Until.IsZero() {
		until = r.Until.Format(time.RFC3339)
	}
	name, _, _ := strings.Cut(r.By, "=")
	if _, key, ok := strings.Cut(r.By, "="); ok {
		name = key
	}
	if len(r.Lines) == 0 {
		fmt.Fprintf(w, "%s used nothing from %s until %s\n", r.Account, r.From.Format(time.RFC3339), until)
		return
	}
	t := table.Table{Columns: []table.Column{{Name: name}, {Name: "meter"}, {Name: "quantity", Right: true}, {Name: "events", Right: true},
		{Name: "credits", Right: true}, {Name: "", Wide: true}}}
	most := int64(1)
	for _, l := range r.Lines {
		most = max(most, l.Charged)
	}
	for _, l := range r.Lines {
		group := l.Group
		if group == "" {
			group = "(none)"
		}
		t.Rows = append(t.Rows, []string{group, l.Meter, strconv.FormatInt(l.Quantity, 10), strconv.FormatInt(l.Events, 10),
			amount.FormatCredits(l.Charged), bar(l.Charged, most)})
	}
	t.Write(w, bars)
	fmt.Fprintf(w, "\n%s was charged %s credits from %s until %s\n", r.Account, amount.FormatCredits(r.Charged), r.From.Format(time.RFC3339), until)
}

// bar is v in relation to most, in eighths of a cell.
func bar(v, most int64) string {
	eighths, _ := amount.MulDivDown(max(v, 0), barWidth*8, most)
	full, rest := int(eighths/8), int(eighths%8)
	s := strings.Repeat("█", full)
	if rest > 0 {
		s += string([]rune("▏▎▍▌▋▊▉")[rest-1])
	}
	return s
}

// ParseSince reads a point in time: how long ago (24h, 7d), or a time or date.
func ParseSince(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want how long ago, such as 24h or 7d, or a time such as 2026-01-31T15:04:05Z or 2026-01-31", text)
}
