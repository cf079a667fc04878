package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// paths returns the files that a waiting call names, as absolute paths.
func (c call) paths(n notification) []string {
	var all []string
	for _, o := range c.files {
		path := ""
		if o.path != none {
			path = text(n.tid, n.args[o.path])
			if filepath.IsAbs(path) {
				all = append(all, filepath.Clean(path))
				continue
			}
		}
		dir := fmt.Sprintf("/proc/%d/cwd", n.tid)
		if o.dir != cwd && int32(n.args[o.dir]) != unix.AT_FDCWD {
			dir = fmt.Sprintf("/proc/%d/fd/%d", n.tid, int32(n.args[o.dir]))
		}
		base, err := os.Readlink(dir)
		if err == nil && filepath.IsAbs(base) { // no pipe, no socket
			all = append(all, filepath.Join(base, path))
		}
	}
	return all
}

// text reads a string of a process.
func text(tid uint32, addr uint64) string {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return ""
	}
	defer mem.Close()
	var s []byte
	for len(s) < unix.PathMax {
		// Not over the end of a page: the next one may not be there.
		part := make([]byte, 4096-addr%4096)
		got, _ := mem.ReadAt(part, int64(addr))
		if end := bytes.IndexByte(part[:got], 0); end >= 0 {
			return string(append(s, part[:end]...))
		}
		if got < len(part) {
			return ""
		}
		s, addr = append(s, part...), addr+uint64(got)
	}
	return ""
}

// killAll kills every descendant, also those that left their group, and waits
// for their end: crashat is their subreaper.
func killAll() {
	for {
		for _, pid := range descendants(os.Getpid()) {
			unix.Kill(pid, unix.SIGKILL)
		}
		if _, err := unix.Wait4(-1, nil, 0, nil); err == unix.ECHILD {
			return
		}
	}
}

// descendants returns the children of a process, and theirs.
func descendants(of int) []int {
	children := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PPID: the name may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	all := children[of]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
