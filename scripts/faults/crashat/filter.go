package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's interface, of linux/seccomp.h.
const (
	notifRecv    = 0xc0502100
	notifSend    = 0xc0182101
	notifIDValid = 0x40082102

	flagContinue = 1
)

// notification is struct seccomp_notif: a call that waits.
type notification struct {
	id    uint64
	tid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// become is what the second process of crashat does: it puts a filter before
// itself, sends the filter's descriptor through the socket, and becomes the
// program.
func become(socket int, argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the filter is this thread's, which is the one that stays
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot give up new privileges: %w", err)
	}
	filter := program()
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	listener, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("cannot set the filter: %w", errno)
	}
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(int(listener)), nil, 0); err != nil {
		return fmt.Errorf("cannot send the filter's descriptor: %w", err)
	}
	unix.CloseOnExec(socket)
	return unix.Exec(path, argv, os.Environ())
}

// program returns the filter: the calls wait, all others go on.
func program() []unix.SockFilter {
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		result = unix.BPF_RET | unix.BPF_K
	)
	p := []unix.SockFilter{
		{Code: load, K: 4}, // struct seccomp_data: nr, arch
		{Code: equal, K: unix.AUDIT_ARCH_X86_64, Jt: 1},
		{Code: result, K: unix.SECCOMP_RET_KILL_PROCESS},
		{Code: load, K: 0},
	}
	for nr := range calls {
		p = append(p,
			unix.SockFilter{Code: equal, K: uint32(nr), Jf: 1},
			unix.SockFilter{Code: result, K: unix.SECCOMP_RET_USER_NOTIF})
	}
	return slices.Concat(p, []unix.SockFilter{{Code: result, K: unix.SECCOMP_RET_ALLOW}})
}

// receiveListener gets what become sends. An error says that become ended.
func receiveListener(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, 0)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) == 0 {
		return 0, fmt.Errorf("the program was not started")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// next waits for the next call; ok is false when nobody is left to make one.
func next(listener int) (n notification, ok bool, err error) {
	for {
		poll := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return n, false, err
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return n, false, nil
		}
		n = notification{}
		switch errno := ioctl(listener, notifRecv, unsafe.Pointer(&n)); errno {
		case 0:
			return n, true, nil
		case unix.EINTR, unix.ENOENT: // the caller was killed meanwhile
		default:
			return n, false, errno
		}
	}
}

// reply lets the call go on, or fail with errno.
func reply(listener int, n notification, errno unix.Errno) error {
	a := answer{id: n.id, errno: -int32(errno)}
	if errno == 0 {
		a.flags = flagContinue
	}
	if e := ioctl(listener, notifSend, unsafe.Pointer(&a)); e != 0 && e != unix.ENOENT {
		return e
	}
	return nil
}

// waits reports whether the caller of n still waits: what was read from its
// memory before is then its own.
func waits(listener int, n notification) bool {
	id := n.id
	return ioctl(listener, notifIDValid, unsafe.Pointer(&id)) == 0
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}
