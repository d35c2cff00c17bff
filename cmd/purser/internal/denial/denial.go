// Package denial says in words what a denial or a warning is about.
package denial

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/purser-io/purser/cmd/purser/internal/quantity"
	"github.com/purser-io/purser/cmd/purser/internal/resource"
	"github.com/purser-io/purser/cmd/purser/internal/terminal"
	purserv1 "github.com/purser-io/purser/proto/purser/v1"
)

// Write explains a denial: which level said no, what is missing, what would be allowed instead,
// and when asking again may help.
func Write(w io.Writer, paint terminal.Paint, d *purserv1.Denial) {
	message := d.GetMessage()
	if message == "" {
		message = strings.ToLower(strings.ReplaceAll(resource.Word(d.GetReason()), "_", " "))
	}
	fmt.Fprintf(w, "%s %s (%s)\n", paint.Red("denied:"), message, resource.Word(d.GetReason()))
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-12s %s\n", name, value)
		}
	}
	line("feature", d.GetFeature())
	line("level", Level(d.GetLevel()))
	if d.GetShortfall() > 0 {
		line("short by", quantity.Of(d.GetUnit(), d.GetShortfall()))
	}
	line("affordable", affordable(d))
	line("try again", again(d))
}

// Level names who or what decided.
func Level(l *purserv1.Level) string {
	switch l.GetKind() {
	case purserv1.LevelKind_LEVEL_KIND_WALLET:
		return "the wallet of " + l.GetAccount()
	case purserv1.LevelKind_LEVEL_KIND_BUDGET:
		return "budget " + l.GetLimit() + of(l)
	case purserv1.LevelKind_LEVEL_KIND_QUOTA:
		return "quota " + l.GetLimit() + of(l)
	}
	if l.GetAccount() == "" {
		return ""
	}
	return strings.TrimSpace(strings.ToLower(kindOf(l))+" "+l.GetLimit()) + of(l)
}

// kindOf is the word for kinds of levels that this program has no phrase for.
func kindOf(l *purserv1.Level) string {
	if l.GetKind() == purserv1.LevelKind_LEVEL_KIND_UNSPECIFIED {
		return "account"
	}
	return resource.Word(l.GetKind())
}

func of(l *purserv1.Level) string {
	s := " of " + l.GetAccount()
	if l.GetKind() == purserv1.LevelKind_LEVEL_KIND_UNSPECIFIED {
		s = " " + l.GetAccount()
	}
	if l.GetLabelKey() != "" {
		s += fmt.Sprintf(", for %s=%s", l.GetLabelKey(), l.GetLabelValue())
	}
	return s
}

func affordable(d *purserv1.Denial) string {
	if len(d.GetAffordable()) == 0 {
		return ""
	}
	return quantity.Words(d.GetAffordable()) + " would be allowed"
}

func again(d *purserv1.Denial) string {
	after := d.GetRetryAfter()
	window := d.GetReason() == purserv1.DenialReason_DENIAL_REASON_QUOTA || d.GetReason() == purserv1.DenialReason_DENIAL_REASON_BUDGET
	switch {
	case after == nil:
		return "no: nothing is known to change by itself"
	case d.GetKind() == purserv1.DenialKind_DENIAL_KIND_TRANSIENT:
		return "in " + after.AsDuration().Round(time.Millisecond).String() + ": what is missing is in use or set aside, and may come back"
	case window:
		return "in " + after.AsDuration().Round(time.Second).String() + ", when its next window starts"
	default:
		return "in " + after.AsDuration().Round(time.Millisecond).String()
	}
}

// WriteWarnings tells of soft limits.
func WriteWarnings(w io.Writer, paint terminal.Paint, list []*purserv1.Warning) {
	for _, x := range list {
		what := "is near its cap"
		if x.GetReason() == purserv1.WarningReason_WARNING_REASON_OVER_CAP {
			what = "is over its cap"
		}
		fmt.Fprintf(w, "%s %s %s: %s of %s\n", paint.Yellow("warning:"), Level(x.GetLevel()), what,
			resource.Quantity(x.GetUnit(), x.GetTaken()), quantity.Of(x.GetUnit(), x.GetCap()))
	}
}
