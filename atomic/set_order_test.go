package atomic

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// changes lists the recorded calls that change something, and syncs, by names
// that do not change.
func (r *recording) changes(try string) (changes []string) {
	for _, c := range r.calls {
		c = strings.ReplaceAll(c, tempPrefix+try+"-", "ASIDE-")
		switch verb, _, _ := strings.Cut(c, " "); verb {
		case "statx", "open", "read", "lstat", "stat":
		default:
			changes = append(changes, strings.ReplaceAll(c, try, "TRY"))
		}
	}
	r.calls = nil
	return changes
}

// Each effect is announced by a journal that is on the disk, and each journal
// speaks of what is on the disk. A power cut tests that, this tells it.
func TestOrderOfCallsOfASet(t *testing.T) {
	journal := func(name string) []string {
		return []string{"create store/TEMP", "write store/TEMP", "chmod store/TEMP", "fsync store/TEMP", "rename store/" + name, "fsync store"}
	}
	prepare := slices.Concat(journal("journal.json"),
		[]string{"create etc/ASIDE-0.aside", "write etc/ASIDE-0.aside", "chown etc/ASIDE-0.aside", "chmod etc/ASIDE-0.aside", "fsync etc/ASIDE-0.aside", "fsync etc"},
		journal("journal.json"))
	commit := slices.Concat(journal("journal.json"), []string{"exchange etc/f", "fsync etc"}, journal("journal.json"))
	undo := []string{"rename store/journal-back.json", "fsync store", "exchange etc/f", "remove etc/ASIDE-0.aside", "fsync etc"}
	close := []string{"fsync etc", "remove tree store/preview", "remove store/journal-back.json", "fsync store", "remove store/journal.json", "fsync store"}
	finish := slices.Concat(journal("published.json"), []string{"rename store/kept/TRY-0", "fsync store/kept"}, close)

	for name, c := range map[string]struct {
		end  func(*Set) error
		want []string
	}{
		"finish": {func(set *Set) error { return set.finish() }, finish},
		"undo":   {func(set *Set) error { return set.undo() }, undo},
	} {
		s := newSite(t)
		s.write(t, "f", "old", 0o644)
		r := &recording{dir: filepath.Dir(s.etc)}
		s.disk = disk{gate: r}
		set, err := s.Prepare(t.Context(), Plan{ID: "set", Files: []Target{{Path: s.etc + "/f", Bytes: []byte("new")}}})
		must(err)
		steps := []struct {
			name string
			do   func() error
			want []string
		}{
			{"prepare", func() error { return nil }, prepare},
			{"commit", func() error { return set.Commit(t.Context()) }, commit},
			{name, func() error { return c.end(set) }, c.want},
			{"close", func() error { return set.finish() }, close},
		}
		for i, step := range steps {
			if i == 3 && name == "finish" {
				break
			}
			must(step.do())
			var got []string
			for _, call := range r.changes(set.journal.Try) {
				if !strings.HasPrefix(call, "open dir") && !strings.HasPrefix(call, "read dir") {
					got = append(got, call)
				}
			}
			if !slices.Equal(got, step.want) {
				t.Errorf("%s calls\n\t%s\nwant\n\t%s", step.name, strings.Join(got, ", "), strings.Join(step.want, ", "))
			}
		}
		must(set.Close())
	}
}
