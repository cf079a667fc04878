package agent

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// endGroup ends the process group: TERM, after grace KILL, and as long again
// for the kernel to carry that out. It reports whether nobody is left. The
// caller has not reaped the leader, or has just seen it alive: the id is not another's.
func endGroup(group int, grace time.Duration) bool {
	unix.Kill(-group, unix.SIGTERM)
	unix.Kill(-group, unix.SIGCONT) // who is stopped does not hear TERM
	if groupEnds(group, grace, 0) {
		return true
	}
	return groupEnds(group, grace, unix.SIGKILL)
}

// groupEnds waits until the group is empty, at most for the time limit. The
// signal, if any, is sent again and again: a process can join the group.
func groupEnds(group int, limit time.Duration, sig unix.Signal) bool {
	end := time.Now().Add(limit)
	for wait := time.Millisecond; ; wait = min(2*wait, hookTick) {
		if sig != 0 {
			unix.Kill(-group, sig)
		}
		if !groupLives(group) {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(wait)
	}
}

func groupLives(group int) bool {
	for p := range processes() {
		if p.group == group && !p.dead {
			return true
		}
	}
	return false
}

// endLeftover ends the program of an attempt of this boot whose supervisor was
// killed: it is in the supervisor's session, leads a group there, and has the
// number of the attempt in its environment. If the program has ended, what it
// left in the background stays, as after an end that was seen.
func endLeftover(a hookAttempt, grace time.Duration) error {
	for p := range processes() {
		if p.session != a.Supervisor || p.pid != p.group || p.pid == p.session || p.dead || !p.has(attemptVariable(a.Attempt)) {
			continue
		}
		if !endGroup(p.pid, grace) {
			return fmt.Errorf("attempt %d, whose supervisor was killed, cannot be ended: process group %d", a.Attempt, p.pid)
		}
	}
	return nil
}

// process is what proc_pid_stat(5) tells.
type process struct {
	pid, group, session int
	dead                bool // a zombie, or about to go
}

// processes yields the processes that we may see.
func processes() iter.Seq[process] {
	return func(yield func(process) bool) {
		dir, err := os.Open("/proc")
		if err != nil {
			return
		}
		defer dir.Close()
		names, _ := dir.Readdirnames(-1)
		for _, name := range names {
			pid, err := strconv.Atoi(name)
			if err != nil {
				continue
			}
			stat, err := os.ReadFile("/proc/" + name + "/stat")
			if err != nil {
				continue // it has ended
			}
			if p, ok := parseStat(pid, stat); ok && !yield(p) {
				return
			}
		}
	}
}

// parseStat reads "PID (NAME) STATE PPID PGRP SESSION ..."; a program chooses
// its NAME, spaces and brackets included.
func parseStat(pid int, stat []byte) (process, bool) {
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(f) < 4 || len(f[0]) != 1 {
		return process{}, false
	}
	group, err1 := strconv.Atoi(string(f[2]))
	session, err2 := strconv.Atoi(string(f[3]))
	dead := f[0][0] == 'Z' || f[0][0] == 'X'
	return process{pid, group, session, dead}, err1 == nil && err2 == nil
}

// has reports whether the process was started with the variable.
func (p process) has(variable string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
	return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return string(v) == variable })
}
