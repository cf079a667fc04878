// Package control is how an operator on a host talks to an agent that runs: one
// socket in the agent's directory, control.sock, which belongs to the holder of
// the directory's lock.
//
// A connection carries one request, a line of JSON, and its answer, lines of
// JSON: any number of notes, then what came of it. Whoever is not root or the
// agent's own user is refused, whatever the socket's mode has become. A
// connection that ends early cancels its request; what was done by then stays.
//
//	s, err := control.Listen(dir, handler)
//	defer s.Close()
//
//	err = control.Call(ctx, dir, "status", nil, note, &status)
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"deploytools/registry/wire"
)

// Name is that of the socket in the agent's directory.
const Name = "control.sock"

// ErrNobody: no agent answers in the directory.
var ErrNobody = errors.New("no agent answers")

// request asks for something.
type request struct {
	Verb string          `json:"verb"`
	Args json.RawMessage `json:"args,omitempty"`
}

// reply is one line of an answer: a note, or else the last one.
type reply struct {
	Note   string          `json:"note,omitempty"`
	Done   bool            `json:"done,omitempty"`
	Status wire.Status     `json:"status,omitempty"`
	Error  string          `json:"error,omitempty"`
	Hint   string          `json:"hint,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// maxRequest bounds the line of a request, in bytes.
const maxRequest = 64 << 10

// sunPath is how long the path of a socket may be, without the zero at its end.
const sunPath = len(unix.RawSockaddrUnix{}.Path) - 1

// at calls use with a path of the directory's file name that is short enough for
// a socket. A long one goes through a descriptor of the directory.
func at(dir, name string, use func(path string) error) error {
	if path := filepath.Join(dir, name); len(path) <= sunPath {
		return use(path)
	}
	d, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(d)
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", d, name))
}
