package wire

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with testdata/name, or writes it there under -update,
// and returns what the file holds.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if err == nil && string(want) == string(got) {
		return want
	}
	switch {
	case !*update:
		t.Fatalf("%s: got\n%s\nwant (%v)\n%s", path, got, err, want)
	case os.Getenv("CI") != "":
		t.Fatalf("%s is out of date, and -update is refused where CI is set", path)
	}
	if err := os.WriteFile(path, got, 0o644); err != nil {
		t.Fatal(err)
	}
	return got
}

// file returns what testdata/name holds, for documents that others wrote.
func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
