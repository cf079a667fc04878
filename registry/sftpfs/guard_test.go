package sftpfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// wild is a tree in which everything panics, or, once a file is open, all that
// is done with it.
type wild struct{ opens bool }

func (w wild) read(string) (opened, error) { return wildFile{}, w.boom() }
func (w wild) write(string, sftp.FileOpenFlags) (sftp.WriterAtReaderAt, error) {
	return wildFile{}, w.boom()
}
func (wild) remove(string) error                   { panic("boom") }
func (wild) mkdir(string) error                    { panic("boom") }
func (wild) rmdir(string) error                    { panic("boom") }
func (wild) rename(_, _ string, _ bool) error      { panic("boom") }
func (wild) space() (*sftp.StatVFS, error)         { panic("boom") }
func (wild) resize(string, int64) error            { panic("boom") }
func (wild) attributes(string) error               { panic("boom") }
func (wild) stat(string) (fs.FileInfo, error)      { panic("boom") }
func (wild) list(string) ([]fs.FileInfo, error)    { panic("boom") }
func (wildFile) ReadAt([]byte, int64) (int, error) { panic("boom") }
func (wildFile) WriteAt([]byte, int64) (int, error) {
	panic("boom")
}
func (wildFile) Close() error        { panic("boom") }
func (wildFile) TransferError(error) { panic("boom") }

type wildFile struct{}

func (w wild) boom() error {
	if !w.opens {
		panic("boom")
	}
	return nil
}

// reports collects what the daemon hears.
type reports struct {
	mu   sync.Mutex // guards the following
	errs []string
}

func (r *reports) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err.Error())
}

// Finding 2: a panic in a handler would end the registry.
func TestNoPanicGetsOut(t *testing.T) {
	heard := &reports{}
	rep := reporter{report: heard.add}
	c, _ := dial(t, serve(wild{}, rep, recorder{}))
	_, open := c.Open("f")
	_, create := c.Create("f")
	_, stat := c.Stat("f")
	_, list := c.ReadDir("f")
	all := map[string]error{"Open": open, "Create": create, "Stat": stat, "ReadDir": list, "Remove": c.Remove("f"),
		"Mkdir": c.Mkdir("f"), "RemoveDirectory": c.RemoveDirectory("f"), "Rename": c.Rename("f", "g"), "PosixRename": c.PosixRename("f", "g"), "Truncate": c.Truncate("f", 1), "Chmod": c.Chmod("f", 0)}

	c, cut := dial(t, serve(wild{opens: true}, rep, recorder{}))
	for name, flags := range map[string]int{"reader": os.O_RDONLY, "writer": os.O_WRONLY | os.O_CREATE, "both": os.O_RDWR | os.O_CREATE} {
		f, err := c.OpenFile("f", flags)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if flags&os.O_WRONLY == 0 {
			_, err := f.ReadAt(make([]byte, 1), 0)
			all[name+" ReadAt"] = err
		}
		if flags != os.O_RDONLY {
			_, err := f.WriteAt([]byte("x"), 0)
			all[name+" WriteAt"] = err
		}
		all[name+" Close"] = f.Close()
	}
	for name, err := range all {
		if status, ok := errors.AsType[*sftp.StatusError](err); !ok || status.FxCode() != sftp.ErrSSHFxFailure || strings.Contains(err.Error(), "boom") {
			t.Errorf("%s = %v, want a failure that tells nothing", name, err)
		}
	}
	for range 3 { // left open when the connection breaks
		if _, err := c.Create("f"); err != nil {
			t.Fatal(err)
		}
	}
	cut()
	heard.mu.Lock()
	defer heard.mu.Unlock()
	// TransferError and Close of the three; what the client cannot remove it tries
	// as a directory, and looks at it.
	if want := len(all) + 3*2 + 2; len(heard.errs) != want {
		t.Errorf("%d reports, want %d:\n%s", len(heard.errs), want, strings.Join(heard.errs, "\n"))
	}
	for _, e := range heard.errs {
		if !strings.Contains(e, "boom") || !strings.Contains(e, "guard_test.go") {
			t.Errorf("a report without the panic and its stack: %s", e)
		}
	}
}

// packet is one of SFTP version 3: its length, its type and the rest.
func packet(kind byte, parts ...any) []byte {
	b := []byte{kind}
	for _, p := range parts {
		switch p := p.(type) {
		case uint32:
			b = binary.BigEndian.AppendUint32(b, p)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, p)
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// ask sends a packet and returns the type and content of the answer.
func ask(t *testing.T, conn net.Conn, p []byte) (byte, []byte) {
	t.Helper()
	if _, err := conn.Write(p); err != nil {
		t.Fatalf("the server is gone: %v", err)
	}
	var size uint32
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		t.Fatalf("the server is gone: %v", err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(conn, b); err != nil {
		t.Fatalf("the server is gone: %v", err)
	}
	return b[0], b[1:]
}

const (
	fxInit, fxOpen, fxClose, fxWrite, fxSetstat, fxFsetstat = 1, 3, 4, 6, 9, 10
	fxStatus, fxHandle, fxBadMessage                        = 101, 102, 5
)

// pkg/sftp#661: attributes that are shorter than their flags say.
func TestShortAttributesEndNothing(t *testing.T) {
	r := open(t, options())
	for name, h := range map[string]sftp.Handlers{
		"operator": Operator(t.Context(), r, ann, nil, nil), "agent": Agent(t.Context(), r, registry.Caller{}, nil),
	} {
		conn, _ := serving(t, h)
		ask(t, conn, packet(fxInit, uint32(3)))
		for id, flags := range []uint32{1, 2, 4, 8, 0xf, 0x80000000, 0xffffffff} {
			kind, b := ask(t, conn, packet(fxSetstat, uint32(id), "/f", flags))
			if code := binary.BigEndian.Uint32(b[4:]); kind != fxStatus || code != fxBadMessage {
				t.Errorf("%s: SETSTAT with flags %#x and nothing behind: type %d, status %d", name, flags, kind, code)
			}
		}
	}
}

// Offsets and sizes at the ends of what can be said.
func TestHostileNumbers(t *testing.T) {
	r := open(t, options())
	conn, _ := serving(t, Operator(t.Context(), r, ann, nil, nil))
	ask(t, conn, packet(fxInit, uint32(3)))
	opened := func() string {
		t.Helper()
		kind, b := ask(t, conn, packet(fxOpen, uint32(1), "/f", uint32(0x0a), uint32(0)))
		if kind != fxHandle {
			t.Fatalf("OPEN: type %d, %q", kind, b)
		}
		return string(b[8:])
	}
	for name, p := range map[string]func(h string) []byte{
		"a write at the end of all":  func(h string) []byte { return packet(fxWrite, uint32(2), h, uint64(1<<63-2), "abc") },
		"a write beyond":             func(h string) []byte { return packet(fxWrite, uint32(2), h, uint64(1<<64-1), "abc") },
		"a write at an exabyte":      func(h string) []byte { return packet(fxWrite, uint32(2), h, uint64(1<<60), "abc") },
		"a size of all ones":         func(h string) []byte { return packet(fxFsetstat, uint32(2), h, uint32(1), uint64(1<<64-1)) },
		"a size of an exabyte":       func(h string) []byte { return packet(fxFsetstat, uint32(2), h, uint32(1), uint64(1<<60)) },
		"a size with its top bit up": func(h string) []byte { return packet(fxFsetstat, uint32(2), h, uint32(1), uint64(1<<63)) },
	} {
		h := opened()
		if kind, b := ask(t, conn, p(h)); kind != fxStatus || binary.BigEndian.Uint32(b[4:]) == 0 {
			t.Errorf("%s: type %d, %q, want a failure", name, kind, b)
		}
		if _, b := ask(t, conn, packet(fxClose, uint32(3), h)); binary.BigEndian.Uint32(b[4:]) == 0 {
			t.Errorf("%s: the upload is complete after it", name)
		}
	}
	if all, err := r.Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v", all, err)
	}
}

// What the client gets of an error, and what only the daemon hears: the engines'
// errors name files of the registry.
func TestErrorsAreTranslated(t *testing.T) {
	disk := &fs.PathError{Op: "open", Path: "/var/lib/registry/secret", Err: syscall.EIO}
	for _, test := range []struct {
		err      error
		code     error
		text     string
		reported bool
	}{
		{&registry.Error{Kind: registry.ErrNotFound, Text: "x not found"}, sftp.ErrSSHFxNoSuchFile, "x not found", false},
		{&registry.Error{Kind: registry.ErrDenied, Text: "no"}, sftp.ErrSSHFxPermissionDenied, "no", false},
		{&registry.Error{Kind: registry.ErrRefused, Text: "too big", Hint: "shrink"}, sftp.ErrSSHFxFailure, "too big (shrink)", false},
		{errors.Join(&registry.Error{Kind: registry.ErrRefused, Text: "too big"}, disk), sftp.ErrSSHFxFailure, "too big", false},
		{fs.ErrNotExist, sftp.ErrSSHFxNoSuchFile, "no such file", false},
		{fs.ErrPermission, sftp.ErrSSHFxPermissionDenied, "permission denied", false},
		{disk, sftp.ErrSSHFxFailure, "internal error at the registry", true},
		{fmt.Errorf("cannot read: %w", io.EOF), sftp.ErrSSHFxFailure, "internal error at the registry", true},
		{&fs.PathError{Op: "write", Path: "/var/lib/registry/secret", Err: syscall.ENOSPC}, sftp.ErrSSHFxFailure, "no space left at the registry", true},
		{fmt.Errorf("cannot store in secret: %w: %w", registry.ErrReadOnly, syscall.ENOSPC), sftp.ErrSSHFxFailure,
			"storage is read-only after a failed write, until the registry is restarted", true},
	} {
		heard := &reports{}
		got := reporter{report: heard.add}.status(test.err)
		if !errors.Is(got, test.code) || got.Error() != test.text || len(heard.errs) != 0 != test.reported {
			t.Errorf("status(%v) = %v, reported %v, want %v, %q", test.err, got, heard.errs, test.code, test.text)
		}
	}
	if got := (reporter{}).status(io.EOF); got != io.EOF {
		t.Errorf("status(EOF) = %v", got)
	}
}

// When a session ends, so does all that it began.
func TestASessionLeavesNoGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := registry.New(options())
		defer r.Close()
		c, _, cut := session(t, r, ann)
		put(t, c, "whole", "content")
		for i := range 5 {
			f, err := c.Create(fmt.Sprint("half", i))
			if err == nil {
				_, err = f.Write([]byte("half"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		c.Open("whole")
		c.ReadDir("/")
		cut()
		synctest.Wait()
		all, err := r.Uploads(t.Context())
		if paths := slices.Collect(func(yield func(string) bool) {
			for _, u := range all {
				yield(u.Path)
			}
		}); err != nil || len(paths) != 6 || slices.ContainsFunc(all, func(u registry.UploadState) bool { return u.Receiving }) {
			t.Errorf("Uploads() = %v, %v", paths, err)
		}
	})
}

// brokenSpool is a spool to which nothing can be written.
type brokenSpool struct{ registry.Spool }

type brokenUpload struct{ registry.Upload }

func (s brokenSpool) Create(ctx context.Context, name string) (registry.Upload, error) {
	u, err := s.Spool.Create(ctx, name)
	return brokenUpload{u}, err
}

func (brokenUpload) WriteAt([]byte, int64) (int, error) { return 0, syscall.EIO }

// A client has many writes in flight: one failure is one line in the log.
func TestOneFailureIsReportedOnce(t *testing.T) {
	o := options()
	o.Spool = brokenSpool{o.Spool}
	heard := &reports{}
	n := &notices{}
	c, _ := dial(t, Operator(t.Context(), open(t, o), ann, n, heard.add))
	f, err := c.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Error("WriteAt succeeds")
		}
	}
	if err := f.Close(); err == nil {
		t.Error("Close succeeds")
	}
	if len(heard.errs) != 1 || n.String() != "error: f: internal error at the registry\n" {
		t.Errorf("reported %q, the user sees %q", heard.errs, n)
	}
}
