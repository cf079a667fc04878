package layers

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// An index says what an archive holds, but for the content of its files: for
// each entry, in the archive's order, a line
//
//	f 0644 0 33 1700000000 0 5 etc/motd
//
// that is kind (h: a hard link), permissions, user, group, time in seconds and
// nanoseconds, then the size of a file or the target of a link, then the path.
// After the lines come the digests of the files, in the same order. What goes
// before both says whose index it is, under which options the archive was
// accepted, how long the two parts are, and what their digest is.
//
// The indexes of a root follow each other in one text: Info.Index.

// maxIndex bounds the lines of one layer's index, which is in memory: a layer
// with more than some 100,000 files has none. That many take up to 20 MB while they
// are noted and 14 MB as text, more than all else that is known of them, for what is
// only faster.
const maxIndex = 8 << 20

// index is one being written.
type index struct {
	key   string
	lines bytes.Buffer
	files []*digest.Digest // nil: not to be taken from anywhere but the archive
	full  bool             // the lines were more than maxIndex, and are gone
}

// indexKey says for what an index holds.
func indexKey(d digest.Digest, o Options) string {
	return fmt.Sprintf("deploy-index 1 %s %t %v", d, o.Privileged, o.Limits.withDefaults())
}

// add notes an entry that t has taken.
func (x *index) add(e *entry, t *tree) {
	if x.lines.Len() > maxIndex {
		*x = index{full: true}
	}
	if x.full {
		return
	}
	what := strconv.FormatInt(e.size, 10)
	switch e.kind {
	case symlink:
		what = manifest.Escape(e.target)
	case hardLink:
		what = manifest.Escape(strings.Join(e.linkTo, "/"))
	case file:
		var d *digest.Digest
		if e.capability == "" && e.mode&0o7000 == 0 {
			d = &t.files.at(t.find(e.path).what).digest
		}
		x.files = append(x.files, d)
	}
	fmt.Fprintf(&x.lines, "%c %04o %d %d %d %d %s %s\n", e.kind, e.mode, e.uid, e.gid,
		e.mtime.Unix(), e.mtime.Nanosecond(), what, manifest.Escape(strings.Join(e.path, "/")))
}

// text returns the index as text, in parts; nil: it would be too long. The files
// have settled.
func (x *index) text() [][]byte {
	if x.full {
		return nil
	}
	digests := make([]byte, 0, len(x.files)*(2*digest.Size+1))
	for _, d := range x.files {
		if d == nil {
			d = new(digest.Digest)
		}
		digests = append(hex.AppendEncode(digests, d[:]), '\n')
	}
	of := digest.NewWriter()
	of.Write(x.lines.Bytes())
	of.Write(digests)
	head := fmt.Appendf(nil, "%s %d %d %s\n", x.key, x.lines.Len(), len(digests), of.Digest())
	return [][]byte{head, x.lines.Bytes(), digests}
}

// indexed is an index that was read: all of it, and its parts.
type indexed struct {
	whole, lines, digests []byte
}

var errIndex = errors.New("not a valid index")

// CheckIndex says whether a text is as Unpack made it.
func CheckIndex(text []byte) error {
	_, err := readIndex(text)
	return err
}

// readIndex returns the indexes of a text by their keys, up to the first that is
// damaged.
func readIndex(text []byte) (map[string]*indexed, error) {
	all := map[string]*indexed{}
	for len(text) > 0 {
		head, rest, _ := bytes.Cut(text, []byte("\n"))
		f := strings.Fields(string(head))
		if len(f) < 4 {
			return all, errIndex
		}
		key, f := strings.Join(f[:len(f)-3], " "), f[len(f)-3:]
		n, err1 := strconv.ParseUint(f[0], 10, 31)
		k, err2 := strconv.ParseUint(f[1], 10, 31)
		if err1 != nil || err2 != nil || n+k > uint64(len(rest)) || digest.Of(rest[:n+k]).String() != f[2] {
			return all, errIndex
		}
		end := uint64(len(head)) + 1 + n + k
		all[key] = &indexed{text[:end], rest[:n], rest[n : n+k]}
		text = text[end:]
	}
	return all, nil
}

// entries yields the archive's entries.
func (x *indexed) entries() iter.Seq2[*entry, error] {
	return func(yield func(*entry, error) bool) {
		number, digests := 0, x.digests
		for line := range bytes.Lines(x.lines) {
			number++
			e, err := parseEntry(string(bytes.TrimSuffix(line, []byte("\n"))))
			if err == nil && e.kind == file {
				var d []byte
				d, digests, _ = bytes.Cut(digests, []byte("\n"))
				e.digest, err = digest.Parse(string(d))
			}
			if err != nil {
				yield(nil, fmt.Errorf("line %d: %w: %w", number, errIndex, err))
				return
			}
			e.number = number
			if !yield(e, nil) {
				return
			}
		}
	}
}

func parseEntry(line string) (*entry, error) {
	f := strings.Split(line, " ")
	if len(f) != 8 || len(f[0]) != 1 {
		return nil, errors.New("not eight fields")
	}
	e := &entry{kind: kind(f[0][0])}
	mode, err1 := strconv.ParseUint(f[1], 8, 12)
	uid, err2 := strconv.ParseUint(f[2], 10, 32)
	gid, err3 := strconv.ParseUint(f[3], 10, 32)
	sec, err4 := strconv.ParseInt(f[4], 10, 64)
	nsec, err5 := strconv.ParseInt(f[5], 10, 64)
	path, err6 := manifest.Unescape(f[7])
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	e.mode, e.uid, e.gid, e.mtime = uint32(mode), int(uid), int(gid), time.Unix(sec, nsec)
	var err error
	if path != "" { // else the top directory
		if e.path, err = splitName(path, file); err != nil {
			return nil, err
		}
	}
	switch e.kind {
	case file:
		e.size, err = strconv.ParseInt(f[6], 10, 64)
	case symlink:
		if e.target, err = manifest.Unescape(f[6]); len(e.target) > maxPath {
			err = errors.New("target too long")
		}
	case hardLink:
		var to string
		if to, err = manifest.Unescape(f[6]); err == nil {
			e.linkTo, err = splitName(to, file)
		}
	case dir:
	default:
		err = fmt.Errorf("unknown kind %q", f[0])
	}
	return e, err
}
