package atomic_test

import (
	"context"
	"errors"
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

// A certificate and its key change together, or not at all.
func ExampleStore_Apply() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	store, err := atomic.OpenStore(filepath.Join(dir, "store"))
	if err != nil {
		panic(err)
	}
	pair := func(cert, key string) atomic.Plan {
		return atomic.Plan{Files: []atomic.Target{
			{Path: filepath.Join(dir, "site.pem"), Bytes: []byte(cert)},
			{Path: filepath.Join(dir, "site.key"), Bytes: []byte(key), Metadata: atomic.Metadata{Mode: 0o600}},
		}}
	}
	hooks := atomic.Hooks{
		Validate: func(_ context.Context, p atomic.Preview) error { return nil }, // nginx -t -p p.Dir/etc/nginx
		Reload: func(_ context.Context, phase atomic.Phase) error {
			cert, err := os.ReadFile(filepath.Join(dir, "site.pem"))
			fmt.Printf("%s: serving %s\n", phase, cert)
			return err
		},
	}
	if _, err := store.Apply(context.Background(), pair("cert 1", "key 1"), hooks); err != nil {
		panic(err)
	}
	hooks.Verify = func(_ context.Context, phase atomic.Phase) error {
		if phase == atomic.Deploying {
			return errors.New("connection refused")
		}
		return nil
	}
	r, err := store.Apply(context.Background(), pair("cert 2", "key 2"), hooks)
	fmt.Println(r.RolledBack, errors.Is(err, atomic.ErrVerifyFailed))
	// Output:
	// deploy: serving cert 1
	// deploy: serving cert 2
	// rollback: serving cert 1
	// true true
}
