package agent

import (
	"bufio"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// procfs is where the kernel tells of processes.
const procfs = "/proc"

// usersOf returns, by name, the roots of ids in the directory roots that a process
// uses, each with such a process: its program, its directory, an open file or a
// mapped one lies below it, or a mount does. Processes that this one may not look
// at are passed by.
func usersOf(ctx context.Context, roots string, ids []string) (map[string]string, error) {
	real, err := filepath.EvalSymlinks(roots)
	if err != nil {
		return nil, err
	}
	own, err := os.Readlink(procfs + "/self/ns/mnt")
	if err != nil {
		return nil, err
	}
	processes, err := os.ReadDir(procfs)
	if err != nil {
		return nil, err
	}
	u := &users{ids: ids, found: map[string]string{}, spaces: map[string]bool{}}
	for _, e := range processes {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if _, err := strconv.Atoi(e.Name()); err == nil {
			u.process(filepath.Join(procfs, e.Name()), own, real+"/")
		}
	}
	return u.found, nil
}

type users struct {
	ids    []string
	found  map[string]string
	spaces map[string]bool // mount namespaces that were looked at
}

// process looks at one. In a view of the file system that is not our own, the
// path of a root may be another: there its name is enough to know it by, and so
// it is in a list of mounts.
func (u *users) process(dir, own, roots string) {
	space, err := os.Readlink(filepath.Join(dir, "ns", "mnt"))
	if err != nil {
		return // ended, or not ours to look at
	}
	if !u.spaces[space] {
		u.spaces[space] = true
		u.lines(dir, "mountinfo", "")
	}
	if space != own {
		roots = ""
	}
	for _, name := range []string{"exe", "cwd", "root"} {
		u.link(dir, name, roots)
	}
	if open, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		for _, f := range open {
			u.link(dir, "fd/"+f.Name(), roots)
		}
	}
	u.lines(dir, "maps", roots)
}

func (u *users) link(dir, name, before string) {
	if to, err := os.Readlink(filepath.Join(dir, name)); err == nil {
		u.names(dir, to, before)
	}
}

func (u *users) lines(dir, name, before string) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		u.names(dir, s.Text(), before)
	}
}

// names notes that the process dir uses the root that text names, with before
// in front of it.
func (u *users) names(dir, text, before string) {
	for _, id := range u.ids {
		if u.found[id] == "" && strings.Contains(text, before+id) {
			comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
			u.found[id] = "process " + filepath.Base(dir) + " (" + oneLine(strings.TrimSpace(string(comm))) + ")"
		}
	}
}
