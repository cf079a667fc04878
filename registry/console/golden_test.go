package console

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name, or writes it there under -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if err == nil && string(want) == got {
		return
	}
	switch {
	case !*update:
		t.Errorf("%s: got\n%s\nwant (%v)\n%s", path, got, err, want)
	case os.Getenv("CI") != "":
		t.Errorf("%s is out of date, and -update is refused where CI is set", path)
	default:
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
