package quantity

import (
	"strings"
	"testing"
)

func TestEstimates(t *testing.T) {
	got, err := Estimates([]string{"input_tokens=1200", "output_tokens=800:50", "images=0:0"})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].GetQuantity() != 1200 || got[0].MinQuantity != nil || got[1].GetMinQuantity() != 50 || got[2].MinQuantity == nil {
		t.Errorf("estimates = %v", got)
	}
	for in, want := range map[string]string{
		"tokens":                   "want METER=QUANTITY, or",
		"=5":                       "want METER=QUANTITY, or",
		"t=":                       `"" is not a whole number`,
		"t=-1":                     `"-1" is not a whole number`,
		"t=1.5":                    "not a whole number from 0 to 9007199254740992",
		"t=9007199254740993":       "not a whole number",
		"t=5:6":                    "the least, 6, is above",
		"t=5:x":                    `"x" is not`,
		"t=99999999999999999999:1": "not a whole number",
		"t=1;;t=2":                 "the meter t is there twice",
	} {
		if _, err := Estimates(strings.Split(in, ";;")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", in, err, want)
		}
	}
}

func TestUsed(t *testing.T) {
	got, err := Used([]string{"input_tokens=1200", "output_tokens=0"})
	if err != nil || Words(got) != "input_tokens=1200 output_tokens=0" {
		t.Errorf("used = %v, %v", got, err)
	}
	for in, want := range map[string]string{"t": "want METER=QUANTITY", "t=5:1": "not a whole number", "t=1;;t=1": "twice"} {
		if _, err := Used(strings.Split(in, ";;")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", in, err, want)
		}
	}
}
