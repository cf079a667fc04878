package agent

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// usersOf returns, by name, the roots of ids that a process uses, each with such
// a process: its program, its directory, an open file or a mapped one lies below
// it, or a mount does. A root's name is enough to know it by: in the process's
// own view of the file system the path before it may be another. Processes that
// this one may not look at are passed by. proc is where procfs is mounted.
func usersOf(ctx context.Context, proc string, ids []string) (map[string]string, error) {
	u := &users{ids: ids, found: map[string]string{}, spaces: map[string]bool{}}
	processes, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	for _, e := range processes {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, err := strconv.Atoi(e.Name()); err == nil {
			u.process(filepath.Join(proc, e.Name()))
		}
	}
	if len(u.spaces) == 0 { // not even our own: it is no procfs
		return nil, &fs.PathError{Op: "read", Path: proc, Err: errors.New("shows no process")}
	}
	return u.found, nil
}

type users struct {
	ids    []string
	found  map[string]string
	spaces map[string]bool // mount namespaces that were looked at
}

func (u *users) process(dir string) {
	for _, name := range []string{"exe", "cwd", "root"} {
		if to, err := os.Readlink(filepath.Join(dir, name)); err == nil {
			u.names(dir, to)
		}
	}
	if open, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		for _, f := range open {
			if to, err := os.Readlink(filepath.Join(dir, "fd", f.Name())); err == nil {
				u.names(dir, to)
			}
		}
	}
	u.lines(dir, "maps")
	if space, err := os.Readlink(filepath.Join(dir, "ns", "mnt")); err == nil && !u.spaces[space] {
		u.spaces[space] = true
		u.lines(dir, "mountinfo")
	}
}

func (u *users) lines(dir, name string) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		u.names(dir, s.Text())
	}
}

// names notes that the process dir uses what text names.
func (u *users) names(dir, text string) {
	for _, id := range u.ids {
		if strings.Contains(text, id) && u.found[id] == "" {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			u.found[id] = "process " + filepath.Base(dir) + " (" + oneLine(strings.TrimSpace(string(comm))) + ")"
		}
	}
}
