package layers

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// plain is a small archive in which nothing is wrong, before gzip.
func plain() []byte {
	return join(folder("d/"), reg("d/a", strings.Repeat("content ", 100)), sym("d/s", "a"), hard("d/h", "d/a"), make([]byte, 1024))
}

// streams are archives that are wrong below the level of tar, or at its end.
func streams(t testing.TB) map[string]attack {
	bad := func(want string, archive []byte) attack { return attack{[][]byte{archive}, "layer web:1: " + want} }
	good, tar := gz(plain()), plain()
	size := []byte{1, 2, 3, 4}
	half := member(t, tar[:1024])
	return map[string]attack{
		"empty":                 bad(`entry 1: the archive ends too early`, nil),
		"no gzip":               bad(`is not gzip, or has something else behind it`, tar),
		"zstd":                  bad(`is not gzip, or has something else behind it`, []byte("\x28\xb5\x2f\xfd\x04\x00\x01\x00\x00\x99\xe9\xd8\x51")),
		"gz-crc":                bad(`gzip: invalid checksum`, changed(good, -8)),
		"gz-isize":              bad(`gzip: invalid checksum`, changed(good, -4)),
		"gz-deflate":            bad(`entry 1: corrupt deflate stream at byte 1`, append(bytes.Clone(good[:10]), bytes.Repeat([]byte{7}, 100)...)),
		"gz-garbage":            bad(`is not gzip, or has something else behind it`, append(bytes.Clone(good), "garbage behind the end"...)),
		"gz-one-byte":           bad(`the archive ends too early`, append(bytes.Clone(good), 0)),
		"gz-zeros":              bad(`is not gzip, or has something else behind it`, append(bytes.Clone(good), make([]byte, 512)...)),
		"gz-second-cut":         bad(`the archive ends too early`, append(bytes.Clone(good), gz(nil)[:10]...)),
		"no entries":            bad(`holds no entries`, tarball()),
		"nothing":               bad(`holds no entries`, gz(nil)),
		"tar-hidden":            bad(`data follows the end of the archive`, gz(join(tar, reg("hidden", "x"), make([]byte, 1024)))),
		"tar-hidden-member":     bad(`data follows the end of the archive`, join(gz(tar), gz(reg("hidden", "x")))),
		"tar-hidden-byte":       bad(`data follows the end of the archive`, gz(join(tar, make([]byte, 511), []byte{1}))),
		"lone zero block":       bad(`entry 2: a single zero block stands between entries`, gz(join(reg("a", "x"), make([]byte, 512), reg("b", "x"), make([]byte, 1024)))),
		"cut in a header":       bad(`entry 2: the archive ends too early`, gz(join(reg("a", "x"), folder("d/")[:100]))),
		"cut in the content":    bad(`entry 1 "a": the archive ends too early`, gz(reg("a", strings.Repeat("x", 5000))[:4000])),
		"cut in the padding":    bad(`the archive ends too early`, gz(reg("a", "x")[:600])),
		"cut behind a pax head": bad(`extension header without an entry`, gz(pax("path=a"))),
		"not tar":               bad(`entry 1: unknown kind of tar header ("k of tar")`, gz(data("hello hello hello\x00"+strings.Repeat("x", 239)+"k of tar"))),

		"member too small a size": bad(`entry 1: gzip member gives its size as 27 bytes`, sized(nil, nil, 27)),
		"member too large a size": bad(`entry 1: gzip member gives its size as 2097153 bytes`, sized(deflated(tar), tar, memberMax+1)),
		"member ends before":      bad(`entry 1: gzip member ends 4 bytes before its size`, sized(append(deflated(tar), size...), tar, memberHeaderLen+len(deflated(tar))+4+8)),
		"member goes on":          bad(`entry 1: gzip member goes on after its size`, sized(deflated(tar), tar, memberHeaderLen+len(deflated(tar))-4+8)),
		"member cut by the end":   bad(`entry 1: the archive ends too early`, sized(deflated(tar), tar, memberHeaderLen+len(deflated(tar))+4+8)),
		"member unpacks to more":  bad(`entry 1: gzip member of known size unpacks to more than 1048576 bytes`, sized(deflated(make([]byte, memberBytes+1)), make([]byte, memberBytes+1), memberHeaderLen+len(deflated(make([]byte, memberBytes+1)))+8)),
		"member crc":              bad(`entry 1: gzip: invalid checksum`, changed(member(t, tar), -8)),
		"member isize":            bad(`entry 1: gzip: invalid checksum`, changed(member(t, tar), -1)),
		"second member crc":       bad(`entry 2 "d/a": gzip: invalid checksum`, join(half, changed(member(t, tar[1024:]), -8))),
		"member with a hidden one": bad(`entry 1: gzip member ends `+strconv.Itoa(len(gz(nil))+8)+` bytes before its size`,
			sized(join(deflated(tar), make([]byte, 8), gz(nil)), tar, memberHeaderLen+len(deflated(tar))+8+len(gz(nil))+8)),
	}
}

// headers are archives with something wrong in their headers.
func headers() map[string]attack {
	bad := func(want string, parts ...[]byte) attack { return one("layer web:1: "+want, parts...) }
	a := reg("a", "x")
	m := map[string]attack{
		"data-in-dir":       bad(`entry 1 "d/": a directory with data`, folder("d/", size(1)), data("x"), a),
		"size-dir":          bad(`entry 1 "d/": a directory with data`, folder("d/", size(512)), reg("hidden", ""), a),
		"data-in-link":      bad(`entry 1 "s": a symlink with data`, sym("s", "t", size(512)), reg("hidden", "")),
		"data-in-hard-link": bad(`entry 2 "h": a hard link with data`, a, hard("h", "a", size(512)), reg("hidden", "")),
		"data-by-pax":       bad(`entry 1 "d/": two sizes: 0 in the header, 512 in its pax record`, pax("size=512"), folder("d/"), reg("hidden", "")),

		"pax-size-differs":            bad(`entry 1 "a": two sizes: 1 in the header, 513 in its pax record`, pax("size=513"), a, reg("hidden", "")),
		"pax-size-zero":               bad(`entry 1 "a": two sizes: 512 in the header, 0 in its pax record`, pax("size=0"), reg("a", string(folder("hidden/")))),
		"pax-size-text":               bad(`entry 1 "a": pax record size is "1x"`, pax("size=1x"), a),
		"pax-size-negative":           bad(`entry 1 "a": pax record size is "-1"`, pax("size=-1"), a),
		"pax-size-huge":               bad(`entry 1 "a": two sizes: 1 in the header, 8589934592 in its pax record`, pax("size=8589934592"), a),
		"pax-size-longlink":           bad(`entry 1: two extension headers speak of the same entry`, pax("size=1024"), ext('L', "name\x00"), a),
		"pax-and-gnu":                 bad(`entry 1: two extension headers speak of the same entry`, ext('L', "name\x00"), pax("path=other"), a),
		"pax-and-gnu-link":            bad(`entry 1: two extension headers speak of the same entry`, ext('K', "name\x00"), pax("linkpath=other"), sym("s", "x")),
		"two x headers":               bad(`entry 1: two extension headers speak of the same entry`, pax("path=a"), pax("path=b"), a),
		"two L headers":               bad(`entry 1: two extension headers speak of the same entry`, ext('L', "b\x00"), ext('L', "c\x00"), a),
		"x, g, entry":                 bad(`entry 1: two extension headers speak of the same entry`, pax("path=b"), ext('g', paxText("comment=x")), a),
		"L, g, entry":                 bad(`entry 1: two extension headers speak of the same entry`, ext('L', "b\x00"), ext('g', paxText("comment=x")), a),
		"global path":                 bad(`entry 1: global extension header sets "path"`, ext('g', paxText("path=b")), a),
		"global size":                 bad(`entry 2: global extension header sets "size"`, a, ext('g', paxText("comment=x", "size=9")), a),
		"pax record twice":            bad(`entry 1: pax record "path" is given twice`, pax("path=a", "path=b"), a),
		"pax path empty":              bad(`entry 1: pax record "path" is empty or holds a NUL`, pax("path="), a),
		"pax without newline":         bad(`entry 1: malformed pax record`, ext('x', "9 path=a "), a),
		"pax length too big":          bad(`entry 1: malformed pax record`, ext('x', "99 path=a\n"), a),
		"pax length too low":          bad(`entry 1: malformed pax record`, ext('x', "3 path=a\n"), a),
		"pax without key":             bad(`entry 1: malformed pax record`, pax("=a"), a),
		"pax without equals":          bad(`entry 1: malformed pax record`, ext('x', "7 path\n"), a),
		"pax length signed":           bad(`entry 1: malformed pax record`, ext('x', "+11 path=ab\n"), a),
		"empty x header":              bad(`entry 1: empty extension header`, ext('x', ""), a),
		"empty L header":              bad(`entry 1: empty extension header`, ext('L', ""), a),
		"x at the end":                bad(`entry 2: extension header without an entry`, a, pax("path=b")),
		"L that is no name":           bad(`entry 1: two readers of tar would see different names`, ext('L', "\x00"), a),
		"sym-pathmax":                 bad(`entry 1 "s": target of the symlink is longer than 4095 bytes`, pax("linkpath="+strings.Repeat("x/", 2048)), sym("s", "x")),
		"symlink to nothing":          bad(`entry 1 "s": target of the symlink is empty`, sym("s", "")),
		"path by a sparse name alone": bad(`entry 1 "b": unknown form of a sparse file`, pax("GNU.sparse.name=b"), a),
		"GNU prefix":                  bad(`entry 1 "a": two readers of tar would see different names`, reg("a", "x", gnu, field(345, 357, "pwn/"))),

		"setuid":               bad(`entry 1 "a": setuid or setgid file`, reg("a", "x", mode(0o4755))),
		"setgid":               bad(`entry 1 "a": setuid or setgid file`, reg("a", "x", mode(0o2755))),
		"capability":           bad(`entry 1 "a": file capability (security.capability)`, pax("SCHILY.xattr.security.capability="+netRaw), a),
		"capability, spelling": bad(`entry 1 "a": file capability (security.capability)`, pax("LIBARCHIVE.xattr.security.capability="+base64.RawStdEncoding.EncodeToString([]byte(netRaw))), a),
		"capability, escaped":  bad(`entry 1 "a": file capability (security.capability)`, pax("LIBARCHIVE.xattr.security%2ecapability=AQ"), a),
		"capability of a dir":  bad(`entry 1 "d/": file capability (security.capability)`, pax("SCHILY.xattr.security.capability="+netRaw), folder("d/")),
		"attribute, no base64": bad(`entry 1 "a": pax record "LIBARCHIVE.xattr.user.a" is malformed`, pax("LIBARCHIVE.xattr.user.a=?"), a),
		"owner out of range":   bad(`entry 1 "a": owner 4294967295:0 is out of range`, pax("uid=4294967295"), a),
		"owner negative":       bad(`entry 1 "a": owner 0:-1 is out of range`, pax("gid=-1"), a),

		"size negative":      bad(`entry 1: size field: number is out of range`, reg("a", "x", field(124, 136, strings.Repeat("\xff", 12)))),
		"size in base 256":   bad(`entry 1 "a": unpacks to more than 8589934592 bytes (limit Unpacked)`, reg("a", "x", base256(124, 1<<62))),
		"size overflows":     bad(`entry 1: size field: number is out of range`, reg("a", "x", base256(124, 1<<63))),
		"size not octal":     bad(`entry 1: size field: "0000000000x" is not an octal number`, reg("a", "x", field(124, 136, "0000000000x"))),
		"size with two ends": bad(`entry 1: size field: "1\x001" is not an octal number`, reg("a", "x", field(124, 136, "1\x001"))),
		"bad checksum":       bad(`entry 1 "a": tar: invalid tar header`, changed(a, 148)),
		"byte of the header": bad(`entry 1 "a": tar: invalid tar header`, changed(a, 300)),
		"magic":              bad(`entry 1: unknown kind of tar header ("ustar\x0001")`, reg("a", "x", field(257, 265, "ustar\x0001"))),

		"sparse 8 EiB":          bad(`entry 1 "a": unpacks to more than 8589934592 bytes (limit Unpacked)`, pax("GNU.sparse.size=9223372036854775807", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1"), a),
		"sparse negative":       bad(`entry 1 "a": tar: invalid tar header`, pax("GNU.sparse.size=-1", "GNU.sparse.numblocks=1", "GNU.sparse.map=0,1"), a),
		"sparse overlap":        bad(`entry 1 "a": tar: invalid tar header`, pax("GNU.sparse.size=10", "GNU.sparse.numblocks=2", "GNU.sparse.map=0,5,3,2"), a),
		"sparse version 2":      bad(`entry 1 "a": unknown form of a sparse file`, pax("GNU.sparse.major=2", "GNU.sparse.minor=0", "GNU.sparse.realsize=9"), a),
		"sparse two sizes":      bad(`entry 1 "a": unknown form of a sparse file`, pax("GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.realsize=9", "GNU.sparse.size=8"), a),
		"sparse two maps":       bad(`entry 1: pax record "GNU.sparse.map" is given twice`, pax("GNU.sparse.size=9", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1", "GNU.sparse.map=0,1"), a),
		"sparse map, old, pax":  bad(`entry 1 "a": two sparse maps`, pax("GNU.sparse.size=9", "GNU.sparse.map=0,1"), head('S', "a", gnu, size(0))),
		"sparse directory":      bad(`entry 1 "d/": tar: invalid tar header`, pax("GNU.sparse.size=9", "GNU.sparse.map=0,1"), folder("d/")),
		"sparse, old, in ustar": bad(`entry 1 "a": tar: invalid tar header`, head('S', "a", size(0))),

		"component too long": bad(`entry 1 "`+strings.Repeat("x", 256)+`": name has a component longer than 255 bytes`, pax("path="+strings.Repeat("x", 256)), a),
		"name too long":      bad(`entry 1 "`+strings.Repeat("xx/", 333)+`x...": name is longer than 4095 bytes`, pax("path="+strings.Repeat("xx/", 1365)+"a"), a),
		"too deep":           bad(`entry 1 "`+strings.Repeat("d/", 128)+`a": name is deeper than 128 directories`, pax("path="+strings.Repeat("d/", 128)+"a"), a),
	}
	for name, typ := range map[string]byte{
		"character device": '3', "block device": '4', "fifo": '6', "unknown letter": 'Q', "unknown digit": '8', "socket": 's', "reserved": 'I',
		"GNU dump directory": 'D', "GNU multi volume": 'M', "GNU volume name": 'V', "GNU old long name": 'N', "Solaris header": 'X',
	} {
		m[name] = bad(fmt.Sprintf(`entry 2 "e": type %q is not a file, directory or link`, typ), a, head(typ, "e"))
	}
	return m
}

// netRaw is cap_net_raw=ep, as the kernel stores it.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func TestWrongStreamsAreRefused(t *testing.T) {
	for name, a := range streams(t) {
		t.Run(name, func(t *testing.T) { newWorld(t).refused(t, Options{}, a.want, a.archives...) })
	}
}

func TestWrongHeadersAreRefused(t *testing.T) {
	for name, a := range headers() {
		t.Run(name, func(t *testing.T) { newWorld(t).refused(t, Options{}, a.want, a.archives...) })
	}
}

func TestArchivesCutAnywhereAreRefused(t *testing.T) {
	random := make([]byte, 40_000) // does not shrink
	rand.NewChaCha8([32]byte{}).Read(random)
	tar := join(plain()[:len(plain())-1024], reg("d/r", string(random)), make([]byte, 1024))
	for name, whole := range map[string][]byte{"gz": gz(tar), "members": join(member(t, tar[:20_000]), member(t, tar[20_000:]))} {
		for i := range 16 {
			cut := whole[:len(whole)*i/16]
			w := newWorld(t)
			_, err := w.stack(t, Options{}, cut)
			if r, ok := err.(*Refusal); !ok || r.Rule != "the archive ends too early" {
				t.Errorf("%s, cut at %d/16: %v", name, i, err)
			}
			w.intact(t)
		}
	}
}

// limited is an archive that a limit of o refuses, and one that it does not.
type limited struct {
	o         Options
	want      string
	bad, good []byte
}

func limits() map[string]limited {
	zeros := make([]byte, 70<<20)
	var comments, links [][]byte
	for range 4 {
		comments = append(comments, ext('g', paxText("comment=x")))
	}
	for i := range 4 {
		links = append(links, hard(strconv.Itoa(i), "a"))
	}
	a, b, c := reg("a", "xx"), reg("b", "xx"), reg("c", "x")
	bomb := tarball(head('0', "zeros", size(int64(len(zeros)))), zeros)
	small := tarball(head('0', "zeros", size(8<<20)), zeros[:8<<20])
	return map[string]limited{
		"Ratio": {Options{}, `entry 1 "zeros": unpacks to more than 200 times its size (limit Ratio)`, bomb, small},
		"Ratio of sized members": {Options{}, `entry 1 "zeros": unpacks to more than 200 times its size (limit Ratio)`,
			sizedMembers(join(head('0', "zeros", size(int64(len(zeros)))), zeros, make([]byte, 1024))), small},
		"Ratio, raised": {Options{Limits: Limits{Ratio: 2000, Unpacked: 70<<20 - 1}}, `entry 1 "zeros": unpacks to more than 73400319 bytes (limit Unpacked)`, bomb, small},
		"Unpacked":      {Options{Limits: Limits{Unpacked: 4}}, `entry 3 "c": unpacks to more than 4 bytes (limit Unpacked)`, tarball(a, b, c), tarball(a, b)},
		"Unpacked, holes": {Options{Limits: Limits{Unpacked: 1 << 20}}, `entry 2 "a": unpacks to more than 1048576 bytes (limit Unpacked)`,
			tarball(sparse1("s", "t", "x"), a), tarball(sparse1("s", "t", "x"))},
		"Entries":              {Options{Limits: Limits{Entries: 2}}, `entry 3 "c": more than 2 entries with the directories around them (limit Entries)`, tarball(a, b, c), tarball(a, b)},
		"Entries, implied":     {Options{Limits: Limits{Entries: 4}}, `entry 2 "w/x/y/z": more than 4 entries with the directories around them (limit Entries)`, tarball(a, reg("w/x/y/z", "")), tarball(a, reg("w/x/z", ""))},
		"Entries of one name":  {Options{Limits: Limits{Entries: 2}}, `entry 3 "a": more than 2 entries with the directories around them (limit Entries)`, tarball(a, a, a), tarball(a, a)},
		"Entries, the top":     {Options{Limits: Limits{Entries: 2}}, `entry 3 "./": more than 2 entries with the directories around them (limit Entries)`, tarball(folder("./"), folder("./"), folder("./")), tarball(a, folder("./"))},
		"Entries, a directory": {Options{Limits: Limits{Entries: 2}}, `entry 3 "d/": more than 2 entries with the directories around them (limit Entries)`, tarball(folder("d/"), folder("d/"), folder("d/")), tarball(a, folder("d/"))},
		"Names":                {Options{Limits: Limits{Names: 9}}, `entry 2 "s": names and targets of more than 9 bytes (limit Names)`, tarball(a, sym("s", "123456")), tarball(a, sym("s", "12345"))},
		"Links":                {Options{Limits: Limits{Links: 4}}, `entry 5 "3": more than 4 links to one file (limit Links)`, tarball(a, join(links...)), tarball(a, join(links[:3]...))},
		"Links to a symlink":   {Options{Limits: Limits{Links: 4}}, `entry 5 "3": more than 4 links to one file (limit Links)`, tarball(sym("a", "b"), join(links...)), tarball(sym("a", "b"), join(links[:3]...))},
		"Headers":              {Options{Limits: Limits{Headers: 3}}, `entry 1: more than 3 extension headers in a row (limit Headers)`, tarball(join(comments...), a), tarball(join(comments[:3]...), a)},
		"HeaderBytes":          {Options{Limits: Limits{HeaderBytes: 20}}, `entry 1: extension headers of more than 20 bytes (limit HeaderBytes)`, tarball(ext('L', "xxxxxxxxxxx\x00"), ext('K', "yyyyyyyy\x00"), sym("a", "b", gnu)), tarball(ext('L', "xxxxxxxxxxx\x00"), ext('K', "yyyyyyy\x00"), sym("a", "b", gnu))},
		"HeaderBytes, default": {Options{}, `entry 1: extension headers of more than 1048576 bytes (limit HeaderBytes)`, tarball(ext('g', paxText("comment="+string(make([]byte, 1<<20)))), a), tarball(pax("comment="+string(make([]byte, 1<<20-20))), a)},
	}
}

// sizedMembers packs as Pack does, but for the test that nothing is wrong.
func sizedMembers(b []byte) []byte {
	var out bytes.Buffer
	z := newGzipWriter(&out, 0)
	z.Write(b) // a bytes.Buffer does not fail
	z.Close()
	return out.Bytes()
}

func TestLimits(t *testing.T) {
	for name, l := range limits() {
		t.Run(name, func(t *testing.T) {
			newWorld(t).refused(t, l.o, "layer web:1: "+l.want, l.bad)
			newWorld(t).accepted(t, l.o, l.good)
		})
	}
}

// A verdict that hung on how bytes arrive could differ between registry and
// agent: where the zeros are unpacked, what follows them may have been read.
func TestTheRatioDoesNotDependOnHowBytesArrive(t *testing.T) {
	random, zeros := make([]byte, 300_000), make([]byte, 70<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	archive := tarball(reg("a", string(random[:200_000])), head('0', "zeros", size(int64(len(zeros)))), zeros, reg("b", string(random)))
	for _, n := range []int{1, 1000, 1 << 20} {
		_, err := Check(t.Context(), "web:1", &dribble{bytes.NewReader(archive), n}, Options{})
		want := `layer web:1: entry 2 "zeros": unpacks to more than 200 times its size (limit Ratio)`
		if err == nil || err.Error() != want {
			t.Errorf("in reads of %d bytes: %v, want %s", n, err, want)
		}
	}
}

// dribble gives at most n bytes a Read.
type dribble struct {
	r *bytes.Reader
	n int
}

func (s *dribble) Read(p []byte) (int, error) { return s.r.Read(p[:min(len(p), s.n)]) }

// An honest archive may be large.
func TestTheRatioAllowsWhatDoesNotShrink(t *testing.T) {
	chunk := make([]byte, 64<<10) // longer than what deflate looks back
	rand.NewChaCha8([32]byte{}).Read(chunk)
	content := bytes.Repeat(chunk, ratioFree/len(chunk)+1)
	tar := join(head('0', "a", size(int64(len(content)))), content, make([]byte, 1024))
	for name, archive := range map[string][]byte{"plain": stored(tar), "sized": sizedMembers(tar)} {
		info, err := Check(t.Context(), name, bytes.NewReader(archive), Options{})
		if err != nil || info.Unpacked != int64(len(content)) {
			t.Errorf("%s: %d bytes, %v", name, info.Unpacked, err)
		}
	}
}

func TestMembersOfBothKindsMix(t *testing.T) {
	tar := plain()
	for name, archive := range map[string][]byte{
		"sized, plain":        join(member(t, tar[:1000]), gz(tar[1000:])),
		"plain, sized":        join(gz(tar[:1000]), member(t, tar[1000:])),
		"sized, plain, sized": join(member(t, tar[:700]), gz(tar[700:1700]), member(t, tar[1700:])),
		"empty ones between":  join(gz(nil), gz(tar[:600]), gz(nil), gz(tar[600:]), gz(nil)),
		"a byte each":         join(gz(tar[:1]), gz(tar[1:2]), gz(tar[2:])),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.accepted(t, Options{}, archive)
			if got, want := w.tree(t), "d drwxr-xr-x\n"; !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 4 {
				t.Errorf("tree\n%s", got)
			}
		})
	}
}

func TestOddButFine(t *testing.T) {
	for name, test := range map[string]struct {
		want    string
		archive []byte
	}{
		"no end blocks":         {"a -rw-r--r-- x\n", gz(reg("a", "x"))},
		"one end block":         {"a -rw-r--r-- x\n", gz(join(reg("a", "x"), make([]byte, 512)))},
		"many end blocks":       {"a -rw-r--r-- x\n", gz(join(reg("a", "x"), make([]byte, 30*512)))},
		"v7":                    {"a -rw-r--r-- x\nd drwxr-xr-x\n", tarball(head(0, "d/", v7, mode(0o755)), join(head(0, "a", v7, size(1)), data("x")))},
		"contiguous":            {"a -rw-r--r-- x\n", tarball(head('7', "a", size(1)), data("x"))},
		"leading dots":          {"a -rw-r--r-- x\n", tarball(reg("./././a", "x"))},
		"the top":               {"a -rw-r--r-- x\n", tarball(folder("./", mode(0)), folder(".", mode(0)), reg("./a", "x"))},
		"only the top":          {"", tarball(folder("./"))},
		"global comment":        {"a -rw-r--r-- x\n", tarball(ext('g', paxText("comment=0123456789")), reg("a", "x"))},
		"size by both":          {"a -rw-r--r-- x\n", tarball(pax("size=1"), reg("a", "x"))},
		"size in base 256":      {"a -rw-r--r-- x\n", tarball(reg("a", "x", gnu, base256(124, 1)))},
		"GNU name with padding": {"b -rw-r--r-- x\n", tarball(ext('L', "b\x00\x00\x00"), reg("a", "x", gnu))},
		"twice, last wins":      {"a -rw-r--r-- new\n", tarball(reg("a", "old"), reg("a", "new"))},
		"symlink twice":         {"a Lrwxrwxrwx -> new\n", tarball(sym("a", "old"), sym("a", "new"))},
		"hard link twice":       {"a -rw-r--r-- 1\nb -rw-r--r-- 2\nh -rw-r--r-- 2\n", tarball(reg("a", "1"), reg("b", "2"), hard("h", "a"), hard("h", "b"))},
		"linked, then replaced": {"a -rw-r--r-- new\nh -rw-r--r-- old\n", tarball(reg("a", "old"), hard("h", "a"), reg("a", "new"))},
		"sparse, all forms":     {"a -rw-r--r-- x\n", tarball(pax("GNU.sparse.size=1", "GNU.sparse.numblocks=1", "GNU.sparse.offset=0", "GNU.sparse.numbytes=1"), reg("a", "x"))},
		"privilege of a dir":    {"d dgtrwxr-xr-x\n", tarball(folder("d/", mode(0o3755)))},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.accepted(t, Options{}, test.archive)
			if got := w.tree(t); got != test.want {
				t.Errorf("tree\n%swant\n%s", got, test.want)
			}
		})
	}
}

func TestRefusalsAreShort(t *testing.T) {
	long := strings.Repeat("\x01", 900_000)
	for name, archive := range map[string][]byte{
		"path":     tarball(pax("path="+long), head('0', "x")),
		"target":   tarball(pax("linkpath="+long), head('1', "x")),
		"key":      tarball(pax(long[:400_000]+"=a", long[:400_000]+"=b"), head('0', "x")),
		"size":     tarball(pax("size="+long), head('0', "x")),
		"global":   tarball(ext('g', paxText(long+"=a")), head('0', "x")),
		"xattr":    tarball(pax("LIBARCHIVE.xattr."+long+"%=a"), head('0', "x")),
		"gnu name": tarball(ext('L', long), head('0', "x")),
	} {
		_, err := Check(t.Context(), "long", bytes.NewReader(archive), Options{})
		if !errors.Is(err, ErrRefused) || len(err.Error()) > 10_000 {
			t.Errorf("%s: a refusal of %d bytes: %.300v", name, len(fmt.Sprint(err)), err)
		}
	}
}
