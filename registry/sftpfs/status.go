package sftpfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// maxPath is the longest path that is taken, in bytes.
const maxPath = 4096

// checkPath holds the rule for names of uploads: nothing in them does anything
// to a terminal or a log.
func checkPath(path string) error {
	switch {
	case len(path) > maxPath:
		return refused("name is longer than %d bytes", maxPath)
	case !utf8.ValidString(path):
		return refused("name is not UTF-8")
	case strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return refused("name holds characters that cannot be shown")
	}
	return nil
}

// refused returns an error for the client.
func refused(format string, args ...any) error {
	return &statusError{code: sftp.ErrSSHFxFailure, text: fmt.Sprintf(format, args...)}
}

// denied returns an error for the client that shows as a lack of permission.
func denied(format string, args ...any) error {
	return &statusError{code: sftp.ErrSSHFxPermissionDenied, text: fmt.Sprintf(format, args...)}
}

// statusError is an error with its status in SFTP. It wraps nothing else:
// pkg/sftp looks for known errors in a chain, and has its own idea of them.
type statusError struct {
	code   error
	text   string
	hidden bool // exists, and the client is told that it does not
}

func (e *statusError) Error() string { return e.text }
func (e *statusError) Unwrap() error { return e.code }

// reporter tells the user of a session, and the daemon, what happened in it.
type reporter struct {
	notices *noticeBoard // nil for agents
	report  func(error)  // may be nil
}

// status translates err into what the client gets. What is not meant for it
// goes to the report, because it could name files of the registry.
func (r reporter) status(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		return s
	}
	if e, ok := errors.AsType[*registry.Error](err); ok {
		text := e.Text
		if e.Hint != "" {
			text += " (" + e.Hint + ")"
		}
		return &statusError{codeOf(e), text, errors.Is(e, registry.ErrHidden)}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sftp.ErrSSHFxNoSuchFile
	case errors.Is(err, fs.ErrPermission):
		return sftp.ErrSSHFxPermissionDenied
	case err == sftp.ErrSSHFxBadMessage || err == sftp.ErrSSHFxOpUnsupported:
		return err
	}
	if r.report != nil {
		r.report(err)
	}
	if errors.Is(err, registry.ErrReadOnly) {
		// Whatever the cause was, mending it is not enough.
		return &statusError{code: sftp.ErrSSHFxFailure, text: registry.ErrReadOnly.Error()}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return &statusError{code: sftp.ErrSSHFxFailure, text: "no space left at the registry"}
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return &statusError{code: sftp.ErrSSHFxFailure, text: "the registry has too many files open: try again later"}
	}
	return &statusError{code: sftp.ErrSSHFxFailure, text: "internal error at the registry"}
}

func codeOf(err error) error {
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return sftp.ErrSSHFxNoSuchFile
	case errors.Is(err, registry.ErrDenied):
		return sftp.ErrSSHFxPermissionDenied
	}
	return sftp.ErrSSHFxFailure
}

// maxNotices is how many bytes of notices a session gets. Clients that never
// read them would stop at their window, of 256 KiB or more.
const maxNotices = 128 << 10

// noticeBoard writes lines for the user. Errors of writing are of no concern.
type noticeBoard struct {
	mu      sync.Mutex // guards the following
	w       io.Writer
	written int
}

func (b *noticeBoard) printf(format string, args ...any) {
	line := clean(fmt.Sprintf(format, args...)) + "\n"
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w == nil || b.written > maxNotices {
		return
	}
	if b.written += len(line); b.written > maxNotices {
		line = "further lines of this session are left out; `uploads` lists what was stored\n"
	}
	io.WriteString(b.w, line)
}

// clean replaces what could do something to a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return '?'
		}
		return r
	}, s)
}
