package atomic_test

import (
	"fmt"
	"os"
	"path/filepath"

	"deploytools/atomic"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := deploy(dir); err != nil {
		panic(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "current", "motd"))
	fmt.Printf("%s %v\n", b, err)
	// Output: welcome <nil>
}

// deploy makes a new root beside the old ones and switches to it. Wherever it
// is cut short, the link current leads to a complete root.
func deploy(dir string) error {
	lock, err := atomic.Acquire(filepath.Join(dir, "lock"))
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := atomic.Sweep(dir); err != nil {
		return err
	}
	if err := atomic.MkdirAll(filepath.Join(dir, "roots"), 0o755); err != nil {
		return err
	}
	root, err := atomic.Stage(filepath.Join(dir, "roots", "000042-abc"))
	if err != nil {
		return err
	}
	defer root.Abort() // nothing, once Commit has returned nil
	if err := os.WriteFile(filepath.Join(root.Path(), "motd"), []byte("welcome"), 0o644); err != nil {
		return err
	}
	if err := root.Commit(); err != nil {
		return err
	}
	return atomic.Symlink("roots/000042-abc", filepath.Join(dir, "current"))
}
