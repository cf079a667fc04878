package atomic

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// full refuses what is done to temps, as a disk without room does.
type full struct{ refused int }

func (f *full) do(op, path string, call func() error) error {
	if isTemp(filepath.Base(path)) {
		f.refused++
		return &fs.PathError{Op: op, Path: path, Err: unix.ENOSPC}
	}
	return call()
}

// The name of a temp is another one each time: who compares errors to say each once
// would say the same for ever.
func TestErrorsDoNotNameTemps(t *testing.T) {
	dir := t.TempDir()
	for what, do := range map[string]func(disk, string) error{
		"file": func(d disk, path string) error { return d.writeFile(path, []byte("x"), 0o600) },
		"link": func(d disk, path string) error { return d.relink("x", path) },
		"dir":  func(d disk, path string) error { return d.mkdirAll(path, 0o700) },
	} {
		gate, path := &full{}, filepath.Join(dir, what)
		err := do(disk{gate: gate}, path)
		if gate.refused == 0 || !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), tempPrefix) || !strings.Contains(err.Error(), path+": ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
