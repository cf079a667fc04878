package sftpfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// maxHandles is how many files and directories a session may have open.
// pkg/sftp itself has no limit.
const maxHandles = 64

// Agent returns the handlers of a session of an agent, for
// sftp.NewRequestServer. ctx is the session's.
//
// report hears what went wrong on our side: panics, with their stack, and
// errors of the engines, of which the client is told nothing but that they are
// internal. It may be called concurrently; nil: nobody hears it.
func Agent(ctx context.Context, r *registry.Registry, c registry.Caller, report func(error)) sftp.Handlers {
	return serve(readOnly{published{ctx, r, c}}, reporter{report: report}, recorder{ctx, r, c, report})
}

// Operator returns the handlers of a session of an operator. Each upload that
// is complete, and each reason why one is not, is a line on notices, which may
// be nil: on the channel's stderr, OpenSSH's sftp and scp show it to the user.
// ctx and report are as for Agent.
func Operator(ctx context.Context, r *registry.Registry, c registry.Caller, notices io.Writer, report func(error)) sftp.Handlers {
	rep := reporter{notices: &noticeBoard{w: notices}, report: report}
	return serve(&dropBox{published: published{ctx, r, c}, caller: c, reporter: rep, open: map[string]*uploading{}}, rep, recorder{ctx, r, c, report})
}

// tree is what a session sees. Paths are absolute, clean and checked.
type tree interface {
	read(path string) (opened, error)
	write(path string, flags sftp.FileOpenFlags) (sftp.WriterAtReaderAt, error)
	remove(path string) error
	mkdir(path string) error
	rmdir(path string) error
	rename(from, to string, replace bool) error
	resize(path string, size int64) error
	attributes(path string) error // says whether setting them is borne
	stat(path string) (fs.FileInfo, error)
	list(path string) ([]fs.FileInfo, error)
	space() (*sftp.StatVFS, error)
}

// opened is a file that is open for reading.
type opened interface {
	io.ReaderAt
	io.Closer
}

// handlers puts what every tree needs between it and the server: the recovery
// from panics, the translation of errors, the record of refusals, the rule for
// names and the limit of open handles.
type handlers struct {
	tree     tree
	reporter reporter
	recorder recorder
	handles  atomic.Int32
}

func serve(t tree, r reporter, c recorder) sftp.Handlers {
	h := &handlers{tree: t, reporter: r, recorder: c}
	return sftp.Handlers{FileGet: h, FilePut: h, FileCmd: h, FileList: h}
}

// guard is deferred around every call from the server: pkg/sftp recovers
// nothing, and a panic in one of its goroutines ends the process.
func (r reporter) guard(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("internal error: panic: %v\n%s", v, debug.Stack())
	}
	*err = r.status(*err)
}

// acquire counts one open handle more.
func (h *handlers) acquire() error {
	if h.handles.Add(1) > maxHandles {
		h.handles.Add(-1)
		return refused("more than %d files open", maxHandles)
	}
	return nil
}

// Fileread opens a file for reading.
func (h *handlers) Fileread(r *sftp.Request) (out io.ReaderAt, err error) {
	defer h.recorder.refusal(r, &err)
	defer h.reporter.guard(&err)
	if checkPath(r.Filepath) != nil {
		return nil, fs.ErrNotExist
	}
	if err := h.acquire(); err != nil {
		return nil, err
	}
	f := &handle{h: h}
	defer f.unless(&err)
	file, err := h.tree.read(r.Filepath)
	if err != nil {
		return nil, err
	}
	f.ReaderAt, f.Closer = file, file
	return f, nil
}

// Filewrite opens a file for writing.
func (h *handlers) Filewrite(r *sftp.Request) (io.WriterAt, error) { return h.OpenFile(r) }

// OpenFile opens a file for writing and for reading back what was written.
func (h *handlers) OpenFile(r *sftp.Request) (out sftp.WriterAtReaderAt, err error) {
	defer h.recorder.refusal(r, &err)
	defer h.reporter.guard(&err)
	if err := checkPath(r.Filepath); err != nil {
		return nil, err
	}
	if err := h.acquire(); err != nil {
		return nil, err
	}
	f := &handle{h: h}
	defer f.unless(&err)
	file, err := h.tree.write(r.Filepath, r.Pflags())
	if err != nil {
		return nil, err
	}
	f.ReaderAt, f.WriterAt = file, file
	f.Closer, _ = file.(io.Closer)
	f.failing, _ = file.(sftp.TransferError)
	return f, nil
}

// Filecmd does what needs no handle.
func (h *handlers) Filecmd(r *sftp.Request) (err error) {
	defer h.recorder.refusal(r, &err)
	defer h.reporter.guard(&err)
	if err := checkPath(r.Filepath); err != nil {
		return err
	}
	switch r.Method {
	case "Remove":
		return h.tree.remove(r.Filepath)
	case "Mkdir":
		return h.tree.mkdir(r.Filepath)
	case "Rmdir":
		return h.tree.rmdir(r.Filepath)
	case "Rename":
		return h.rename(r, false)
	case "Setstat":
		a := r.Attributes()
		if a == nil { // shorter than its flags say: pkg/sftp#661
			return sftp.ErrSSHFxBadMessage
		}
		if !r.AttrFlags().Size {
			return h.tree.attributes(r.Filepath)
		}
		return h.tree.resize(r.Filepath, int64(a.Size)) // one beyond int64 is negative, and refused
	}
	return fs.ErrPermission // links
}

func (h *handlers) rename(r *sftp.Request, replace bool) error {
	if err := checkPath(r.Target); err != nil {
		return err
	}
	return h.tree.rename(r.Filepath, r.Target, replace)
}

// PosixRename renames a file to a name that may be taken.
func (h *handlers) PosixRename(r *sftp.Request) (err error) {
	defer h.recorder.refusal(r, &err)
	defer h.reporter.guard(&err)
	if err := checkPath(r.Filepath); err != nil {
		return err
	}
	return h.rename(r, true)
}

// StatVFS tells how much may be written.
func (h *handlers) StatVFS(*sftp.Request) (out *sftp.StatVFS, err error) {
	defer h.reporter.guard(&err)
	return h.tree.space()
}

// Filelist answers stat and opens a directory.
func (h *handlers) Filelist(r *sftp.Request) (out sftp.ListerAt, err error) {
	defer h.recorder.refusal(r, &err)
	defer h.reporter.guard(&err)
	if checkPath(r.Filepath) != nil {
		return nil, fs.ErrNotExist
	}
	switch r.Method {
	case "Stat", "Lstat":
		info, err := h.tree.stat(r.Filepath)
		if err != nil {
			return nil, err
		}
		return &listing{entries: []fs.FileInfo{info}}, nil
	case "List":
		if err := h.acquire(); err != nil {
			return nil, err
		}
		f := &handle{h: h}
		defer f.unless(&err)
		entries, err := h.tree.list(r.Filepath)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(entries, func(a, b fs.FileInfo) int { return cmp.Compare(a.Name(), b.Name()) })
		return &listing{entries: entries, handle: f}, nil
	}
	return nil, sftp.ErrSSHFxOpUnsupported // links: there are none
}

// handle is an open file. It gives its place back once, when it is closed.
type handle struct {
	h *handlers
	io.ReaderAt
	io.WriterAt
	io.Closer
	failing sftp.TransferError
	closed  atomic.Bool
}

// unless gives the place back if err is set.
func (f *handle) unless(err *error) {
	if *err != nil {
		f.release()
	}
}

func (f *handle) release() {
	if !f.closed.Swap(true) {
		f.h.handles.Add(-1)
	}
}

func (f *handle) ReadAt(p []byte, off int64) (n int, err error) {
	defer f.h.reporter.guard(&err)
	if off < 0 { // 2^63 and more, as the client wrote it
		return 0, refused("no file reaches as far as that offset")
	}
	return f.ReaderAt.ReadAt(p, off)
}

func (f *handle) WriteAt(p []byte, off int64) (n int, err error) {
	defer f.h.reporter.guard(&err)
	return f.WriterAt.WriteAt(p, off)
}

func (f *handle) Close() (err error) {
	defer f.h.reporter.guard(&err)
	defer f.release()
	if f.Closer == nil {
		return nil
	}
	return f.Closer.Close()
}

// TransferError tells that the connection is gone. Close follows.
func (f *handle) TransferError(cause error) {
	var err error
	defer f.h.reporter.guard(&err)
	if f.failing != nil {
		f.failing.TransferError(cause)
	}
}

// listing is a directory as it was when it was opened, or one file's attributes.
type listing struct {
	entries []fs.FileInfo
	handle  *handle // nil for attributes
}

func (l *listing) ListAt(out []os.FileInfo, from int64) (int, error) {
	if from < 0 || from >= int64(len(l.entries)) {
		return 0, io.EOF
	}
	return copy(out, l.entries[from:]), nil
}

func (l *listing) Close() error {
	if l.handle != nil {
		l.handle.release()
	}
	return nil
}

// under returns what path has below the directory dir.
func under(path, dir string) (string, bool) {
	rest, ok := strings.CutPrefix(path, dir+"/")
	return rest, ok && rest != ""
}

// isNotFound reports whether nothing is there, whoever says so.
func isNotFound(err error) bool {
	return errors.Is(err, registry.ErrNotFound) || errors.Is(err, fs.ErrNotExist)
}
