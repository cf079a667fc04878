package cmd_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The equipment of all tests of one run, made once before them.
var (
	keyDir string // a key pair for each of keyNames
	binDir string // ssh, sftp and scp that read the site's configuration only
)

// keyNames are the key pairs: of the operator, of the agent, and one that no
// registry knows.
var keyNames = []string{"operator", "agent", "stranger"}

// memory is where Linux has files that no disk holds.
const memory = "/dev/shm"

// roomInMemory reports whether the tests can work there. They kill programs, and
// what memory holds survives that; on a disk, every sync waits for all that
// others write meanwhile.
func roomInMemory() bool {
	var fs unix.Statfs_t
	const enough = 3 << 30 // the registry leaves 1 GiB free
	return unix.Statfs(memory, &fs) == nil && int64(fs.Bavail)*fs.Bsize >= enough &&
		fs.Flags&unix.ST_NOEXEC == 0 && unix.Access(memory, unix.W_OK) == nil
}

// equip makes the equipment and returns what removes it.
func equip() (remove func(), err error) {
	if roomInMemory() {
		os.Setenv("TMPDIR", memory)
	}
	dir, err := os.MkdirTemp("", "deploytools-test-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			remove()
		}
	}()
	keyDir, binDir = filepath.Join(dir, "keys"), filepath.Join(dir, "bin")
	for _, d := range []string{keyDir, binDir} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, err
		}
	}
	for _, name := range keyNames {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name+"@test", "-f", filepath.Join(keyDir, name)).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	for _, name := range []string{"ssh", "sftp", "scp"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, err
		}
		// Its own settings would come before ours, and from the real home.
		script := fmt.Sprintf("#!/bin/sh\nexec %s -F \"$HOME/.ssh/config\" \"$@\"\n", path)
		if err := os.WriteFile(filepath.Join(binDir, name), []byte(script), 0o755); err != nil {
			return nil, err
		}
	}
	return remove, nil
}
