package sftpfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"deploytools/registry"
)

// frames takes data for packets of SFTP, each behind its length of two bytes,
// and returns them as the server reads them. The first one is always the same.
func frames(data []byte) []byte {
	out := []byte{0, 0, 0, 5, 1, 0, 0, 0, 3} // SSH_FXP_INIT, version 3
	for len(data) >= 2 {
		n := min(int(binary.BigEndian.Uint16(data)), len(data)-2)
		out = binary.BigEndian.AppendUint32(out, uint32(n))
		out = append(out, data[2:2+n]...)
		data = data[2+n:]
	}
	return out
}

// frame is the inverse, for seeds: one packet of these fields. Numbers are of
// four bytes, 64-bit ones of eight.
func frame(message byte, fields ...any) []byte {
	b := []byte{message}
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(f))
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(f))
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		}
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)
}

// line is the server's connection: what the client sends, then its end.
type line struct {
	io.Reader
	io.Writer
}

func (line) Close() error { return nil }

// Whatever a client sends, nothing panics, nothing stays open, the session ends
// with its connection, and of uploads there are only whole ones and parts that
// can be gone on with.
func FuzzSFTP(f *testing.F) {
	const open, close, read, write, lstat, fstat, setstat, fsetstat = 3, 4, 5, 6, 7, 8, 9, 10
	const opendir, readdir, remove, mkdir, rmdir, realpath, stat, rename, readlink, symlink, extended = 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 200
	whole := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	f.Add(whole(frame(realpath, 1, "."), frame(stat, 2, "/"), frame(opendir, 3, "/"), frame(readdir, 4, "1"), frame(close, 5, "1")), true)
	f.Add(whole(frame(open, 1, "/up", 0x1a, 0), frame(write, 2, "1", int64(0), "content"), frame(fstat, 3, "1"), frame(close, 4, "1"),
		frame(stat, 5, "/up.sha256"), frame(open, 6, "/up", 1, 0), frame(read, 7, "2", int64(0), 100), frame(remove, 8, "/up")), true)
	f.Add(whole(frame(open, 1, "/up", 0x2b, 0), frame(write, 2, "1", int64(1<<40), "far"), frame(fsetstat, 3, "1", 1, int64(-1)), frame(read, 4, "1", int64(0), 1<<31)), true)
	f.Add(whole(frame(setstat, 1, "/up", 1), frame(setstat, 2, "/configs", 0xf, int64(1)), frame(fsetstat, 3, "9", 8, 1)), true)
	f.Add(whole(frame(rename, 1, "/a", "/b"), frame(symlink, 2, "/a", "/b"), frame(readlink, 3, "/a"), frame(mkdir, 4, "/d", 0), frame(rmdir, 5, "/d"), frame(lstat, 6, "/configs/web.json")), false)
	f.Add(whole(frame(extended, 1, "posix-rename@openssh.com", "/a", "/b"), frame(extended, 2, "statvfs@openssh.com", "/"), frame(extended, 3, "x", "y"), frame(99)), true)
	f.Add(whole(frame(open, 1, "/../\x00\x1b", 0x1a, 0xffffffff), frame(open, 1, strings.Repeat("x", 5000), 0x1a), frame(write, 2, "1")), true)
	f.Add([]byte{0, 0, 0, 1, 5, 0xff, 0xff, 3}, false)
	f.Fuzz(func(t *testing.T, data []byte, operator bool) {
		o := options()
		o.MaxUpload = 1 << 20
		r := registry.New(o)
		defer r.Close()
		report := func(err error) {
			if strings.Contains(err.Error(), "panic") {
				t.Errorf("reported %v", err)
			}
		}
		h := Agent(t.Context(), r, registry.Caller{Role: registry.Agent, Fingerprint: "SHA256:agent"}, report)
		if operator {
			h = Operator(t.Context(), r, ann, io.Discard, report)
		}
		stream := frames(data)
		sftp.NewRequestServer(line{bytes.NewReader(stream), io.Discard}, h, sftp.WithRSAllocator()).Serve()
		if n := h.FileGet.(*handlers).handles.Load(); n != 0 {
			t.Errorf("%d files are open after the session", n)
		}
		all, err := r.Uploads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range all {
			if !operator || u.Receiving || !u.Complete && !u.Suspended {
				t.Errorf("after the session there is the upload %+v", u)
			}
			if checkPath(u.Path) != nil {
				t.Errorf("an upload has the path %q", u.Path)
			}
		}
	})
}
