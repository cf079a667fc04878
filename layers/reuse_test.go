package layers

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deploytools/layers/digest"
	"golang.org/x/sys/unix"
)

// onImage mounts a new file system and returns its directory.
func onImage(t testing.TB, kind, size string) string {
	t.Helper()
	return onImageIn(t, t.TempDir(), kind, size)
}

// onImageIn is onImage with the image in a directory.
func onImageIn(t testing.TB, place, kind, size string) string {
	t.Helper()
	needsRoot(t)
	dir, image := t.TempDir(), filepath.Join(place, "image")
	for _, argv := range [][]string{{"truncate", "-s", size, image}, {"mkfs." + kind, "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// reading counts how often a layer's archive is opened.
type reading struct {
	layer Layer
	opens int
}

func (r *reading) Layer() Layer {
	l := r.layer
	l.Open = func() (io.ReadCloser, error) {
		r.opens++
		return r.layer.Open()
	}
	return l
}

// oneFile is a layer that holds no more than that.
func oneFile(t *testing.T, name, content string) Layer {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	archive, info := pack(t, dir, PackOptions{})
	return Layer{Name: "one", Digest: info.Digest, Open: openBytes(archive)}
}

// roots are those of one test, on one file system.
type roots struct {
	t    *testing.T
	dir  string
	base *reading // the layer that stays
	old  string
	info *Info
	from Reuse // but for its index
}

// way is how files are taken over.
type way struct {
	link   bool // else as clones
	proven bool // what has not changed is not read
}

// filled makes the old root of the sample tree and one more layer.
func filled(t *testing.T, dir string, w way, over ...Layer) *roots {
	t.Helper()
	archive, packed := pack(t, sampleTree(t), PackOptions{})
	r := &roots{t: t, dir: dir, old: filepath.Join(dir, "old")}
	r.base = &reading{layer: Layer{Name: "base", Digest: packed.Digest, Open: openBytes(archive), Link: w.link}}
	r.info = r.unpack(r.old, &Reuse{}, over...)
	r.base.opens = 0
	r.from = Reuse{Dir: r.old, Manifest: manifestOf(t, r.info)}
	if w.proven {
		r.prove()
	}
	return r
}

// prove is what somebody does who has just read the old root.
func (r *roots) prove() {
	const ticks = 20 * time.Millisecond // of the file system's clock
	time.Sleep(ticks)
	r.from.Proven = time.Now()
	time.Sleep(ticks)
}

func (r *roots) unpack(into string, from *Reuse, over ...Layer) *Info {
	r.t.Helper()
	must(r.t, os.Mkdir(into, 0o755))
	info, err := Unpack(r.t.Context(), into, append([]Layer{r.base.Layer()}, over...), Options{Reuse: from})
	must(r.t, err)
	return info
}

// again unpacks with the old root, compares with what comes of it without, and
// returns where.
func (r *roots) again(over ...Layer) string {
	r.t.Helper()
	into, plain := filepath.Join(r.dir, "new"), filepath.Join(r.dir, "plain")
	r.from.Index = joined(r.info.Index)
	got := r.unpack(into, &r.from, over...)
	opens := r.base.opens
	want := r.unpack(plain, nil, over...)
	r.base.opens = opens
	if diff := cmp.Diff(listed(r.t, want), listed(r.t, got)); diff != "" {
		r.t.Errorf("another manifest: -plain +reused\n%s", diff)
	}
	if got, want := listing(r.t, into), listing(r.t, plain); got != want {
		r.t.Errorf("another tree: %s", cmp.Diff(want, got))
	}
	index := joined(got.Index)
	if err := CheckIndex(index); err != nil || !bytes.Equal(joined(r.info.Index)[:100], index[:100]) {
		r.t.Errorf("index of the new root: %v", err)
	}
	return into
}

func joined(parts [][]byte) []byte { return bytes.Join(parts, nil) }

// listing says all that a root has, but for inodes shared with another.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			c, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprint(len(c), bytes.Count(c, []byte("7")), string(c[:min(len(c), 20)]))
		case info.Mode()&fs.ModeSymlink != 0:
			content, _ = os.Readlink(path)
		}
		when := info.ModTime().UTC().Format(time.RFC3339Nano)
		_, err = fmt.Fprintln(&b, strings.TrimPrefix(path, dir), info.Mode(), when, content)
		return err
	}))
	a, _ := os.Stat(filepath.Join(dir, "etc/motd"))
	c, _ := os.Stat(filepath.Join(dir, "etc/motd2"))
	fmt.Fprintln(&b, "linked", os.SameFile(a, c))
	return b.String()
}

func inodeOf(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Lstat(path, &st))
	return st.Ino
}

// eachWay runs a test with clones and with links, where the old root is proven and
// where it is not.
func eachWay(t *testing.T, test func(t *testing.T, dir string, w way)) {
	for name, proven := range map[string]bool{"": false, ", proven": true} {
		t.Run("clone"+name, func(t *testing.T) { test(t, onImage(t, "xfs", "320M"), way{false, proven}) })
		t.Run("link"+name, func(t *testing.T) { test(t, onImage(t, "ext4", "64M"), way{true, proven}) })
	}
}

func TestUnchangedLayerIsNotReadAgain(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string, w way) {
		r := filled(t, dir, w, oneFile(t, "version", "1"))
		into := r.again(oneFile(t, "version", "2"))
		if r.base.opens != 0 {
			t.Errorf("archive opened %d times", r.base.opens)
		}
		if same := inodeOf(t, r.old+"/bin/big") == inodeOf(t, into+"/bin/big"); same != w.link {
			t.Errorf("one inode: %v", same)
		}
		if !w.link && !sharesBlocks(t, into+"/bin/big") {
			t.Error("the clone has blocks of its own")
		}
		v, _ := os.ReadFile(into + "/version")
		if string(v) != "2" {
			t.Errorf("version %q", v)
		}
	})
}

// sharesBlocks asks filefrag(8).
func sharesBlocks(t *testing.T, path string) bool {
	t.Helper()
	out, err := exec.Command("filefrag", "-v", path).CombinedOutput()
	must(t, err)
	return strings.Contains(string(out), "shared")
}

// What was written to a clone is not seen in the other root.
func TestWritingToACloneLeavesTheOldRoot(t *testing.T) {
	r := filled(t, onImage(t, "xfs", "320M"), way{})
	into := r.again()
	before := listing(t, r.old)
	must(t, os.WriteFile(into+"/etc/motd", []byte("HELLO\n"), 0o644))
	if after := listing(t, r.old); after != before {
		t.Errorf("the old root has changed: %s", cmp.Diff(before, after))
	}
}

func TestModifiedFilesAreNotTaken(t *testing.T) {
	for name, modify := range map[string]func(path string) error{
		"content": func(p string) error {
			info, _ := os.Stat(p)
			return inTurn(os.WriteFile(p, bytes.Repeat([]byte("y"), int(info.Size())), 0o644), os.Chtimes(p, info.ModTime(), info.ModTime()))
		},
		"longer":    func(p string) error { return os.Truncate(p, 10_000_000) },
		"mode":      func(p string) error { return os.Chmod(p, 0o777) },
		"owner":     func(p string) error { return os.Chown(p, 12, 34) },
		"missing":   os.Remove,
		"directory": func(p string) error { return inTurn(os.Remove(p), os.Mkdir(p, 0o755)) },
		"symlink":   func(p string) error { return inTurn(os.Rename(p, p+"~"), os.Symlink(filepath.Base(p)+"~", p)) },
		"fifo":      func(p string) error { return inTurn(os.Remove(p), unix.Mkfifo(p, 0o644)) },
		"replaced":  func(p string) error { return inTurn(os.Remove(p), os.WriteFile(p, []byte("other"), 0o644)) },
		"parent is a symlink": func(p string) error {
			d := filepath.Dir(p)
			return inTurn(os.Rename(d, d+"~"), os.Symlink(filepath.Base(d)+"~", d))
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, dir string, w way) {
				r := filled(t, dir, w)
				for _, path := range []string{"/etc/deep/er/still", "/etc/motd", "/bin/big"} {
					must(t, modify(r.old+path))
				}
				into := r.again()
				if r.base.opens != 1 {
					t.Errorf("archive opened %d times", r.base.opens)
				}
				if sameInode := inodeOf(t, r.old+"/empty") == inodeOf(t, into+"/empty"); sameInode != w.link {
					t.Errorf("what was not modified is one inode: %v", sameInode)
				}
			})
		})
	}
}

func inTurn(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// Another time or attributes would come with a link.
func TestWhatCannotBeSetAnewIsNotLinked(t *testing.T) {
	for name, modify := range map[string]func(path string) error{
		"time":      func(p string) error { return os.Chtimes(p, time.Time{}, time.Now()) },
		"attribute": func(p string) error { return unix.Setxattr(p, "user.x", []byte("1"), 0) },
	} {
		for _, proven := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", proven: ", proven), func(t *testing.T) {
				r := filled(t, onImage(t, "ext4", "64M"), way{true, proven})
				must(t, modify(r.old+"/bin/big"))
				into := r.again()
				if inodeOf(t, r.old+"/bin/big") == inodeOf(t, into+"/bin/big") || r.base.opens != 1 {
					t.Error("taken")
				}
			})
		}
	}
}

// What is proven is not read: content that nobody can have put there since comes along.
func TestProvenFilesAreNotRead(t *testing.T) {
	for _, link := range []bool{false, true} {
		r := filled(t, onImage(t, "xfs", "320M"), way{link: link})
		info, err := os.Stat(r.old + "/etc/motd")
		must(t, err)
		must(t, os.WriteFile(r.old+"/etc/motd", []byte("HELLO\n"), 0o644))
		must(t, os.Chtimes(r.old+"/etc/motd", info.ModTime(), info.ModTime()))
		r.prove()
		r.from.Index = joined(r.info.Index)
		into := filepath.Join(r.dir, "new")
		r.unpack(into, &r.from)
		if b, err := os.ReadFile(into + "/etc/motd"); string(b) != "HELLO\n" || err != nil || r.base.opens != 0 {
			t.Errorf("link: %v: %q, %v, archive opened %d times: the file was read", link, b, err, r.base.opens)
		}
	}
}

// A write that began before the proof and ends behind it has given the file its time.
func TestFileOfAnotherTimeIsRead(t *testing.T) {
	for _, link := range []bool{false, true} {
		r := filled(t, onImage(t, "xfs", "320M"), way{link: link})
		must(t, os.WriteFile(r.old+"/etc/deep/er/still", []byte("y"), 0o644))
		r.prove()
		r.again()
	}
}

// A directory in which something was left is the same; its files are still proven.
func TestFilesBesideNewOnesAreProven(t *testing.T) {
	r := filled(t, onImage(t, "ext4", "64M"), way{link: true})
	must(t, os.Chmod(r.old+"/etc/deep", 0o755))
	must(t, r.exchange("/etc/deep/er/still", "y"))
	must(t, os.WriteFile(r.old+"/etc/deep/er/new", nil, 0o644))
	r.from.Index = joined(r.info.Index)
	into := filepath.Join(r.dir, "new")
	r.unpack(into, &r.from)
	if b, err := os.ReadFile(into + "/etc/deep/er/still"); string(b) != "y" || err != nil {
		t.Errorf("%q, %v: read again", b, err)
	}
}

// No inode of a file says that another one has come to its path since.
func TestOtherFilesAtTheirPathsAreNotTaken(t *testing.T) {
	for name, change := range map[string]func(r *roots, other string) error{
		"another directory": func(r *roots, other string) error {
			return inTurn(os.Rename(r.old+"/etc", r.old+"/etc~"), os.Rename(other+"/etc", r.old+"/etc"))
		},
		"a directory above": func(r *roots, other string) error {
			return inTurn(os.Rename(r.old+"/etc/deep", r.old+"/etc/deep~"), os.Rename(other+"/etc/deep", r.old+"/etc/deep"))
		},
		"another root": func(r *roots, other string) error {
			return inTurn(os.Rename(r.old, r.old+"~"), os.Rename(other, r.old))
		},
		"another's name": func(r *roots, other string) error {
			return os.Rename(other+"/etc/deep/er/still", r.old+"/etc/deep/er/still")
		},
		"a mount": func(r *roots, other string) error {
			r.t.Cleanup(func() { unix.Unmount(r.old+"/etc/deep", unix.MNT_DETACH) })
			return unix.Mount(other+"/etc/deep", r.old+"/etc/deep", "", unix.MS_BIND, "")
		},
		"no manifest": func(r *roots, other string) error {
			r.from.Manifest = func() (io.ReadCloser, error) { return nil, io.ErrUnexpectedEOF }
			return r.exchange("/etc/deep/er/still", "y")
		},
		"a manifest of other bytes": func(r *roots, other string) error {
			r.from.Manifest = manifestOf(r.t, r.unpack(filepath.Join(r.dir, "third"), nil, oneFile(r.t, "etc/deep/er/still", "z")))
			return r.exchange("/etc/deep/er/still", "y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, link := range []bool{false, true} {
				r := filled(t, onImage(t, "xfs", "320M"), way{link: link})
				other := filepath.Join(r.dir, "other")
				r.unpack(other, nil)
				info, err := os.Stat(r.old + "/etc/deep/er/still")
				must(t, err)
				must(t, os.WriteFile(other+"/etc/deep/er/still", []byte("y"), 0o644))
				must(t, os.Chtimes(other+"/etc/deep/er/still", info.ModTime(), info.ModTime()))
				must(t, os.Chmod(other+"/etc/deep", 0o755))
				must(t, os.Chmod(r.old+"/etc/deep", 0o755))
				r.prove()
				must(t, change(r, other))
				r.again()
			}
		})
	}
}

// exchange gives a file another content of its size, and proves that.
func (r *roots) exchange(path, content string) error {
	info, err := os.Stat(r.old + path)
	if err == nil {
		err = inTurn(os.WriteFile(r.old+path, []byte(content), 0o644), os.Chtimes(r.old+path, info.ModTime(), info.ModTime()))
	}
	r.prove()
	return err
}

// In the old root a layer above had a file of the same size, mode and time.
func TestHiddenFileIsNotTakenForTheOther(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string, w way) {
		tree := t.TempDir()
		must(t, os.MkdirAll(tree+"/etc", 0o755))
		must(t, os.WriteFile(tree+"/etc/motd", []byte("HELLO\n"), 0o644))
		base := sampleTree(t)
		info, err := os.Stat(base + "/etc/motd")
		must(t, err)
		must(t, os.Chtimes(tree+"/etc/motd", info.ModTime(), info.ModTime()))
		above, packedAbove := pack(t, tree, PackOptions{})
		archive, packed := pack(t, base, PackOptions{})
		r := &roots{t: t, dir: dir, old: filepath.Join(dir, "old")}
		r.base = &reading{layer: Layer{Name: "base", Digest: packed.Digest, Open: openBytes(archive), Link: w.link}}
		r.info = r.unpack(r.old, &Reuse{}, Layer{Name: "above", Digest: packedAbove.Digest, Open: openBytes(above)})
		r.base.opens = 0
		r.from = Reuse{Dir: r.old, Manifest: manifestOf(t, r.info)}
		if w.proven {
			r.prove()
		}
		r.again()
		if r.base.opens != 1 {
			t.Errorf("archive opened %d times", r.base.opens)
		}
	})
}

// With few descriptors, directories of both roots are closed and opened again.
func TestFilesAreTakenWithFewDescriptors(t *testing.T) {
	tree := t.TempDir()
	for i := range 100 {
		path := filepath.Join(tree, fmt.Sprint(i%7, "/", i%11, "/", i, "/file"))
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, fmt.Append(nil, i), 0o644))
	}
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 80, Max: old.Max}))
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	archive, packed := pack(t, tree, PackOptions{})
	r := &roots{t: t, dir: onImage(t, "ext4", "64M")}
	r.old = filepath.Join(r.dir, "old")
	r.base = &reading{layer: Layer{Name: "base", Digest: packed.Digest, Open: openBytes(archive), Link: true}}
	r.info = r.unpack(r.old, &Reuse{})
	r.base.opens = 0
	r.from = Reuse{Dir: r.old, Manifest: manifestOf(t, r.info)}
	r.prove()
	into := filepath.Join(r.dir, "new")
	r.from.Index = joined(r.info.Index)
	r.unpack(into, &r.from)
	if r.base.opens != 0 || inodeOf(t, r.old+"/1/1/1/file") != inodeOf(t, into+"/1/1/1/file") {
		t.Errorf("archive opened %d times, or files not taken", r.base.opens)
	}
}

// A layer above had replaced a file, a whole directory and a file by a
// directory; without it they come from below.
func TestLayersAboveThatChange(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string, w way) {
		r := filled(t, dir, w, oneFile(t, "etc/motd", "other"), oneFile(t, "bin", "no directory"), oneFile(t, "empty/is/full", ""))
		r.again(oneFile(t, "etc/motd2", "another"), oneFile(t, "etc/deep", "no directory"))
		if r.base.opens != 1 {
			t.Errorf("archive opened %d times", r.base.opens)
		}
	})
}

func TestWithoutClonesAndLinksThereIsNoIndex(t *testing.T) {
	r := filled(t, onImage(t, "ext4", "64M"), way{})
	if r.info.Index != nil {
		t.Errorf("index of %d bytes", len(joined(r.info.Index)))
	}
}

// What an index was made for, and what it says, has to be right to the bit.
func TestOtherIndexIsNotUsed(t *testing.T) {
	archive, packed := pack(t, sampleTree(t), PackOptions{})
	base := Layer{Name: "base", Digest: packed.Digest, Open: openBytes(archive), Link: true}
	old := t.TempDir()
	info, err := Unpack(t.Context(), old, []Layer{base}, Options{Reuse: &Reuse{}})
	must(t, err)
	index := joined(info.Index)
	opens := func(o Options, text []byte) int {
		l := &reading{layer: base}
		o.Reuse = &Reuse{Dir: old, Index: text}
		_, err := Unpack(t.Context(), t.TempDir(), []Layer{l.Layer()}, o)
		must(t, err)
		return l.opens
	}
	if n := opens(Options{}, index); n != 0 {
		t.Fatalf("opened %d times", n)
	}
	for i := range index {
		bad := bytes.Clone(index)
		bad[i] ^= 4
		if i%16 == 0 && opens(Options{}, bad) != 1 {
			t.Errorf("used with bit 2 of byte %d flipped", i)
		}
		if CheckIndex(bad) == nil && i > bytes.IndexByte(bad, '\n') {
			t.Errorf("flipped byte %d not seen", i)
		}
	}
	if opens(Options{}, index[:len(index)-1]) != 1 {
		t.Error("used without its end")
	}
	if opens(Options{Privileged: true}, index) != 1 || opens(Options{Limits: Limits{Links: 2}}, index) != 1 {
		t.Error("used under other options")
	}
}

func TestPrivilegedFilesAreNotTaken(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string, w way) {
		tree := t.TempDir()
		for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "sticky": 0o1755, "plain": 0o755} {
			must(t, os.WriteFile(filepath.Join(tree, name), []byte(name), 0o600))
			must(t, unix.Chmod(filepath.Join(tree, name), mode))
		}
		var archive bytes.Buffer
		cmd := exec.Command("tar", "czf", "-", "-C", tree, ".")
		cmd.Stdout = &archive
		must(t, cmd.Run())
		checked, err := Check(t.Context(), "a", bytes.NewReader(archive.Bytes()), Options{Privileged: true})
		must(t, err)
		l := Layer{Name: "a", Digest: checked.Digest, Open: openBytes(archive.Bytes()), Link: w.link}
		reuse := &Reuse{}
		for _, name := range []string{"/old", "/new"} {
			must(t, os.Mkdir(dir+name, 0o755))
			info, err := Unpack(t.Context(), dir+name, []Layer{l}, Options{Privileged: true, Reuse: reuse})
			must(t, err)
			reuse = &Reuse{Dir: dir + name, Index: joined(info.Index)}
		}
		for name, taken := range map[string]bool{"setuid": false, "setgid": false, "sticky": false, "plain": true} {
			var st unix.Stat_t
			must(t, unix.Stat(filepath.Join(dir, "new", name), &st))
			if got := st.Nlink > 1; got != (taken && w.link) {
				t.Errorf("%s linked: %v", name, got)
			}
		}
	})
}

// A name comes twice in the layer, so that the old root has only the second.
func TestNameThatComesTwice(t *testing.T) {
	dir := onImage(t, "ext4", "64M")
	archive := gz(bytes.Join([][]byte{reg("a", "1"), reg("a", "22"), reg("b", "1"), head('1', "c", link("b")), reg("b", "22"), make([]byte, 1024)}, nil))
	checked, err := Check(t.Context(), "a", bytes.NewReader(archive), Options{})
	must(t, err)
	r := &roots{t: t, dir: dir, old: dir + "/old"}
	r.base = &reading{layer: Layer{Name: "a", Digest: checked.Digest, Open: openBytes(archive), Link: true}}
	r.info = r.unpack(r.old, &Reuse{})
	r.base.opens = 0
	r.from.Dir = r.old
	into := r.again()
	if r.base.opens != 1 || inodeOf(t, r.old+"/a") != inodeOf(t, into+"/a") {
		t.Errorf("archive opened %d times, or a not linked", r.base.opens)
	}
}

// The last files of a layer are still being written when its archive was read.
func TestIndexKnowsTheLastFiles(t *testing.T) {
	archive := tarball(reg("a", "1"), reg("b", "2"))
	base := Layer{Name: "base", Digest: digest.Of(archive), Open: openBytes(archive), Link: true}
	info, err := Unpack(t.Context(), t.TempDir(), []Layer{base}, Options{Reuse: &Reuse{}})
	must(t, err)
	for _, content := range []string{"1", "2"} {
		if d := digest.Of([]byte(content)); !bytes.Contains(joined(info.Index), []byte(d.String())) {
			t.Errorf("the index does not have the digest of %q", content)
		}
	}
}
