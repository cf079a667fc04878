package sftpfs

import (
	"encoding/binary"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// Packet types of SFTP version 3 and flags of an opening
// (draft-ietf-secsh-filexfer-02, sections 3 and 6.3), besides those of
// guard_test.go.
const (
	fxRead, fxLstat, fxFstat, fxOpendir, fxReaddir, fxRemove = 5, 7, 8, 11, 12, 13
	fxMkdir, fxRmdir, fxRealpath, fxStat, fxRename           = 14, 15, 16, 17, 18
	fxReadlink, fxSymlink, fxExtended                        = 19, 20, 200

	flagRead, flagWrite, flagAppend, flagCreate, flagTrunc, flagExclude uint32 = 1, 2, 4, 8, 16, 32
)

// request is a packet as the fuzzer changes it: its type, the length of the
// rest, and the rest without its number. So it need not hit upon frames.
func request(kind byte, parts ...any) []byte {
	rest := packet(kind, parts...)[4+1:]
	return append([]byte{kind, byte(len(rest))}, rest...)
}

// frames turns what the fuzzer made into the packets of a client.
func frames(data []byte) [][]byte {
	out := [][]byte{packet(fxInit, uint32(3))}
	for id := uint32(1); len(data) >= 2; id++ {
		n := min(int(data[1]), len(data)-2)
		p := binary.BigEndian.AppendUint32(nil, uint32(1+4+n))
		p = binary.BigEndian.AppendUint32(append(p, data[0]), id)
		out = append(out, append(p, data[2:2+n]...))
		data = data[2+n:]
	}
	return out
}

// FuzzRequests sends whatever may come from an operator's client, in two
// sessions one after the other. No handler panics, nothing goes on behind a
// session, and what is complete has the digest that it is known by.
func FuzzRequests(f *testing.F) {
	const none uint32 = 0 // no attributes
	open := func(path string, flags uint32) []byte { return request(fxOpen, path, flags, none) }
	for _, seed := range [][][]byte{
		{open("/f", flagWrite|flagCreate|flagTrunc), request(fxWrite, "1", uint64(0), "content"), request(fxFsetstat, "1", uint32(1), uint64(7)), request(fxClose, "1"), request(fxStat, "/f"), open("/f.sha256", flagRead), request(fxRead, "2", uint64(0), uint32(100)), request(fxRead, "2", uint64(1)<<63, uint32(100))},
		{open("/f", flagWrite|flagCreate), request(fxWrite, "1", uint64(0), "content"), request(fxStat, "/f"), request(fxWrite, "1", uint64(0), "C"), request(fxClose, "1"), request(fxRemove, "/f")},
		{open("/f", flagWrite|flagCreate), request(fxWrite, "1", uint64(0), "content"), request(fxStat, "/f"), request(fxWrite, "1", uint64(1), "X"), request(fxClose, "1")},
		{open("/f", flagWrite|flagCreate), request(fxWrite, "1", uint64(0), "content"), request(fxRemove, "/f"), request(fxWrite, "1", uint64(7), "x"), request(fxClose, "1")},
		{request(fxMkdir, "/d", none), open("/d/f", flagWrite|flagCreate|flagExclude), request(fxWrite, "1", uint64(3), "x"), request(fxWrite, "1", uint64(0), "abc"), request(fxClose, "1"), request(fxRename, "/d/f", "/g"), request(fxRmdir, "/d"), request(fxRemove, "/g")},
		{open("/f", flagRead|flagWrite|flagCreate), request(fxWrite, "1", uint64(0), "half"), request(fxRead, "1", ^uint64(0), uint32(1)), request(fxFstat, "1"), request(fxLstat, "/"), request(fxOpendir, "/"), request(fxReaddir, "2")},
		{open("/f", flagWrite|flagAppend|flagCreate), request(fxWrite, "1", uint64(1)<<40, "far"), request(fxClose, "1"), request(fxSetstat, "/f", uint32(1), ^uint64(0)), request(fxSetstat, "/f", uint32(0xff))},
		{request(fxExtended, "posix-rename@openssh.com", "/a", "/b"), request(fxExtended, "statvfs@openssh.com", "/"), request(fxExtended, "hardlink@openssh.com", "/a", "/b"), request(fxSymlink, "/a", "/b"), request(fxReadlink, "/a"), request(fxRealpath, "../..")},
		{request(fxOpendir, "/by-hash"), request(fxOpendir, "/configs"), request(fxStat, "/by-hash/"+strings.Repeat("0", 64)), open("/files/x", flagWrite|flagCreate)},
	} {
		f.Add(slices.Concat(seed...), slices.Concat(seed...))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		o := options()
		o.MaxUpload, o.Quota = 1<<16, registry.Quota{Operator: 1 << 17, Entries: 10}
		r := registry.New(o)
		defer r.Close()
		for _, data := range [][]byte{first, second} {
			heard := &reports{}
			converse(t, Operator(t.Context(), r, ann, &notices{}, heard.add), frames(data))
			for _, e := range heard.errs {
				t.Errorf("the daemon hears %s", e)
			}
			wantSound(t, r)
		}
	})
}

// converse sends each packet when the one before is answered, and returns when
// the server has ended. In v1.13.12 of the library, a request for a handle that
// was not given out yet, but can be guessed, races with the opening.
func converse(t *testing.T, h sftp.Handlers, packets [][]byte) {
	t.Helper()
	conn, cut := serving(t, h)
	defer cut()
	for _, p := range packets {
		if _, err := conn.Write(p); err != nil {
			return // the server hangs up on what it cannot read
		}
		var size uint32
		if binary.Read(conn, binary.BigEndian, &size) != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(size)); err != nil {
			return
		}
	}
}

// wantSound expects that no upload is being received, and that each complete one
// is what its record says.
func wantSound(t *testing.T, r *registry.Registry) {
	t.Helper()
	all, err := r.Uploads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Receiving {
			t.Errorf("%+v is being received after the session", u)
		}
		file, err := r.OpenUpload(t.Context(), u.ID)
		if err != nil {
			t.Fatalf("OpenUpload = %v", err)
		}
		b, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<20))
		if err != nil || int64(len(b)) != u.Size || u.Complete && digest.Of(b) != u.Digest {
			t.Errorf("%+v holds %d bytes with the digest %s, %v", u, len(b), digest.Of(b), err)
		}
		file.Close()
	}
	if _, err := r.DropBox(t.Context(), ann); err != nil {
		t.Error(err)
	}
}
