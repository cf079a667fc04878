package layers

import (
	"errors"
	"strings"
	"testing"
)

func TestTextsAreKeptWhole(t *testing.T) {
	var all texts
	want := map[ref]string{}
	for i := range 200 { // several parts, with room left at the end of each
		s := strings.Repeat(string(rune('a'+i%26)), i*41%(maxPath+1))
		at, err := all.add(s)
		must(t, err)
		want[at] = s
	}
	if len(all.parts) < 3 || len(want) != 200 {
		t.Errorf("%d places in %d parts", len(want), len(all.parts))
	}
	for at, s := range want {
		if got := string(all.at(at)); got != s {
			t.Errorf("at %d: %d bytes %.5s, want %d of %.5s", at, len(got), got, len(s), s)
		}
	}
}

// A place that did not fit its number would be another text's.
func TestTextsHaveAnEnd(t *testing.T) {
	full := texts{parts: make([]*[textBytes]byte, 1<<16), used: textBytes}
	if at, err := full.add("x"); !errors.Is(err, errTexts) {
		t.Errorf("behind the last part: %d, %v", at, err)
	}
	last := texts{parts: make([]*[textBytes]byte, 1<<16-1), used: textBytes}
	at, err := last.add("x")
	must(t, err)
	if string(last.at(at)) != "x" {
		t.Errorf("the last part does not hold what was put there")
	}
}

func TestRecordsStayWhereTheyAre(t *testing.T) {
	var all table[int]
	first := all.at(all.add(0))
	for i := range 3 * recordsAtOnce {
		all.add(i + 1)
	}
	*first = -1
	for i := range all.used {
		if got := *all.at(ref(i)); got != i && i > 0 || i == 0 && got != -1 {
			t.Fatalf("record %d is %d", i, got)
		}
	}
}
