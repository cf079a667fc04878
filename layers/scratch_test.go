package layers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"deploytools/layers/digest"
	"deploytools/layers/manifest"
)

// manyNames is an archive of n names in 300 directories, in no order, with links,
// and names that differ before where a slash would stand.
func manyNames(n int) []byte {
	var b bytes.Buffer
	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		dir := []string{"a", "a-b", "a.b", "a0"}[i%4]
		name := fmt.Sprintf("%s/%02d/a-name-of-some-length-%07d", dir, i%75, i)
		switch {
		case i%100 == 7:
			b.Write(sym(name, "elsewhere"))
		default:
			b.Write(reg(name, strconv.Itoa(i)))
		}
	}
	return tarball(b.Bytes())
}

// fileOnly is a scratch that has nothing in memory.
func fileOnly(t *testing.T, dir string) *scratch {
	t.Helper()
	fd, err := openDir(unix.AT_FDCWD, dir, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	s := newScratch(fd)
	s.memory = scratchAfter
	t.Cleanup(s.close)
	return s
}

// readInto reads an archive into a tree that lies in s.
func readInto(t *testing.T, s *scratch, archive []byte) *tree {
	t.Helper()
	tr := newTree(s)
	tr.w = &hasher{hash: digest.NewWriter()}
	a := openArchive(t.Context(), "many", bytes.NewReader(archive), Options{})
	must(t, a.whole(tr.read(a, &Info{}, nil)))
	return tr
}

func entriesOf(t *testing.T, tr *tree) manifest.Manifest {
	t.Helper()
	m, err := tr.manifest(t.Context())
	must(t, err)
	all, err := manifest.Collect(m)
	must(t, err)
	return all
}

// resident returns how many bytes of the scratch file are mapped, and how many of
// these are resident.
func resident(t *testing.T, s *scratch) (size, now int) {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(s.file.fd, &st))
	b, err := os.ReadFile("/proc/self/smaps")
	must(t, err)
	ours := false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if strings.Contains(f[0], "-") {
			ours = len(f) > 5 && f[4] == strconv.FormatUint(st.Ino, 10) && f[len(f)-1] == "(deleted)"
		}
		if !ours || f[0] != "Size:" && f[0] != "Rss:" {
			continue
		}
		n, err := strconv.Atoi(f[1])
		must(t, err)
		if f[0] == "Size:" {
			size += n << 10
		} else {
			now += n << 10
		}
	}
	return size, now
}

func TestATreeInAFileIsTheSame(t *testing.T) {
	archive := manyNames(60000)
	want := entriesOf(t, readInto(t, nil, archive))
	if !slices.IsSortedFunc(want, func(a, b manifest.Entry) int { return strings.Compare(a.Path, b.Path) }) || len(want) != 60000+4+300 {
		t.Fatalf("%d entries, want 60304 that are sorted", len(want))
	}
	dir := t.TempDir()
	s := fileOnly(t, dir)
	tr := readInto(t, s, archive)
	size, _ := resident(t, s)
	if size < 4<<20 || s.memory != scratchAfter {
		t.Errorf("%d bytes in the file and %d in memory, want all in the file", size, s.memory-scratchAfter)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("the file has a name: %v, %v", names, err)
	}
	for range 2 { // as often as it is wanted
		if got := entriesOf(t, tr); !slices.Equal(got, want) {
			t.Errorf("%d entries from the file are others than %d from memory", len(got), len(want))
		}
	}
	m, err := tr.manifest(t.Context())
	must(t, err)
	s.close()
	s.close()
	if all, err := manifest.Collect(m); !errors.Is(err, errClosed) {
		t.Errorf("%d entries after close, %v", len(all), err)
	}
	if s.file.fd >= 0 || s.file.statm >= 0 {
		t.Errorf("descriptors are left: %d, %d", s.file.fd, s.file.statm)
	}
}

// Names of one directory that are more than is sorted at a time.
func TestNamesOfALargeDirectoryAreSorted(t *testing.T) {
	tr := newTree(nil)
	tr.w = &hasher{hash: digest.NewWriter()}
	tr.begin(&archive{o: Options{Limits: Limits{}.withDefaults()}})
	const names = 30_000
	for i, k := range rand.New(rand.NewPCG(1, 2)).Perm(names) {
		must(t, tr.add(&entry{kind: dir, path: []string{fmt.Sprintf("%0*d", 5+k%200, k)}, number: i + 1}))
	}
	all := entriesOf(t, tr)
	if !slices.IsSortedFunc(all, func(a, b manifest.Entry) int { return strings.Compare(a.Path, b.Path) }) || len(all) != names {
		t.Errorf("%d entries, want %d that are sorted", len(all), names)
	}
}

func TestOnlyTheFirstTablesAreInMemory(t *testing.T) {
	s := fileOnly(t, t.TempDir())
	s.memory = 0
	tr := newTree(s)
	for len(s.file.pieces) == 0 {
		_, err := tr.texts.add(strings.Repeat("x", maxPath))
		must(t, err)
	}
	if used := len(tr.texts.parts) * textBytes; used < scratchAfter-textBytes || used > scratchAfter+textBytes {
		t.Errorf("the file begins after %d bytes, want %d", used, scratchAfter)
	}
}

// Whatever is gone through, and in whatever order, little of it is resident.
func TestATreeInAFileRests(t *testing.T) {
	s := fileOnly(t, t.TempDir())
	tr := newTree(s)
	d := &disk{t: tr, maxDirs: 2, dirs: map[ref]int{}}
	tr.w = &hasher{hash: digest.NewWriter()}
	tr.begin(&archive{o: Options{Limits: Limits{}.withDefaults()}})
	most := map[string]int{}
	look := func(when string) {
		_, now := resident(t, s)
		most[when] = max(most[when], now)
	}
	const links, dirs = 80_000, 8_000
	for i, k := range rand.New(rand.NewPCG(1, 2)).Perm(links) {
		must(t, tr.add(&entry{kind: symlink, path: []string{fmt.Sprintf("%04d", k%dirs), fmt.Sprintf("%0200d", k)}, target: strings.Repeat("x", 100), number: i + 1}))
		if i%5000 == 4999 {
			look("adding")
		}
	}
	sorted := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		for {
			select {
			case <-sorted:
				return
			default:
				look("sorting")
			}
		}
	})
	m, err := tr.manifest(t.Context())
	close(sorted)
	looking.Wait()
	must(t, err)
	i := 0
	for _, err := range m {
		must(t, err)
		if i++; i%5000 == 0 {
			look("listing")
		}
	}
	for at := range tr.dirs.used {
		for range d.t.children(ref(at)) {
			i++
		}
	}
	look("going through directories")
	size, _ := resident(t, s)
	t.Logf("%d bytes in the file, resident at most: %v", size, most)
	for when, n := range most {
		if size < 24<<20 || n > 3*restAfter {
			t.Errorf("%d bytes of %d are resident when %s, want %d at most", n, size, when, 3*restAfter)
		}
	}
}

// Where there can be no such file, or no more of it, memory does.
func TestATreeWithoutAFile(t *testing.T) {
	archive := manyNames(60000)
	want := entriesOf(t, readInto(t, nil, archive))
	for _, dir := range []string{"/proc", "/dev/pts"} {
		s := fileOnly(t, dir)
		if got := entriesOf(t, readInto(t, s, archive)); !slices.Equal(got, want) || s.file.fd >= 0 {
			t.Errorf("%s: %d entries are others, or have a file", dir, len(got))
		}
	}
	if os.Getuid() == 0 {
		s := fileOnly(t, onImage(t, "ext4", "200M")) // files need that
		if got := entriesOf(t, readInto(t, s, archive)); !slices.Equal(got, want) || len(s.file.pieces) > 0 {
			t.Errorf("a small file system: %d entries are others, or have a file", len(got))
		}
		s.close()
	}
	s := fileOnly(t, t.TempDir())
	_, err := s.file.grow(s.dir)
	must(t, err)
	fd := s.file.fd
	s.file.fd = 1 << 20 // nothing that could grow
	tr := readInto(t, s, archive)
	s.file.fd = fd
	if got := entriesOf(t, tr); !slices.Equal(got, want) || len(s.file.pieces) != 1 {
		t.Errorf("%d entries are others, or have %d pieces of the file, want one and the rest in memory", len(got), len(s.file.pieces))
	}
}

// A disk that does not give back what it was given is an error, wherever that is
// noticed, and no signal that ends the process.
func TestATreeWhoseFileIsLost(t *testing.T) {
	archive := manyNames(60000)
	s := fileOnly(t, t.TempDir())
	tr := readInto(t, s, archive)
	m, err := tr.manifest(t.Context())
	must(t, err)
	must(t, unix.Ftruncate(s.file.fd, 0)) // what was there faults now
	seen := 0
	for e, fault := range m {
		if seen++; fault != nil {
			err = fault
		} else if err != nil {
			t.Errorf("%q follows the error", e.Path)
		}
	}
	if !errors.Is(err, unix.EIO) || seen != 1 {
		t.Errorf("%v after %d entries", err, seen)
	}
	if _, err := tr.manifest(t.Context()); !errors.Is(err, unix.EIO) {
		t.Errorf("sorting: %v", err)
	}

	s = fileOnly(t, t.TempDir())
	tr = newTree(s)
	tr.w = &hasher{hash: digest.NewWriter()}
	a := openArchive(t.Context(), "many", bytes.NewReader(archive), Options{})
	defer a.close()
	must(t, unix.Ftruncate(s.file.fd, 0))
	if err := s.guard(func() error { return tr.read(a, &Info{}, nil) }); !errors.Is(err, unix.EIO) {
		t.Errorf("reading an archive: %v", err)
	}

	func() {
		defer func() {
			if p := recover(); p != "mine" {
				t.Errorf("recovered %v", p)
			}
		}()
		s.guard(func() error { panic("mine") })
	}()
}

// What the kernel could not write later, it forgets: there would be zeros, and
// names of nothing.
func TestATreeWhoseFileIsNotWritten(t *testing.T) {
	needsRoot(t)
	small := t.TempDir()
	must(t, unix.Mount("none", small, "tmpfs", 0, "size=12M"))
	t.Cleanup(func() { must(t, unix.Unmount(small, 0)) })
	t.Run("on a disk that is smaller than it says", func(t *testing.T) {
		s := fileOnly(t, onImageIn(t, small, "ext4", "600M"))
		tr := newTree(s)
		tr.w = &hasher{hash: digest.NewWriter()}
		tr.begin(&archive{o: Options{Limits: Limits{}.withDefaults()}})
		for i := range 60_000 {
			must(t, tr.add(&entry{kind: symlink, path: []string{fmt.Sprintf("%0200d", i)}, target: strings.Repeat("x", 100), number: i + 1}))
		}
		m, err := tr.manifest(t.Context())
		must(t, err)
		unix.Syncfs(s.dir) // as the kernel does at some time
		for range 2 {
			got, err := manifest.Collect(m)
			if !errors.Is(err, unix.EIO) && !errors.Is(err, unix.ENOSPC) {
				t.Errorf("%d names, %v", len(got), err)
			}
		}
		if _, err := tr.manifest(t.Context()); err == nil {
			t.Error("sorting: no error")
		}
	})
}

func TestSortingEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	errEnough := errors.New("enough")
	cancel(errEnough)
	if _, err := readInto(t, nil, manyNames(10)).manifest(ctx); err != errEnough {
		t.Errorf("manifest = %v", err)
	}
}

// midway is an archive whose reader does something when so many bytes are left.
type midway struct {
	r    *bytes.Reader
	left int
	do   func()
}

func (m *midway) Read(p []byte) (int, error) {
	if m.r.Len() <= m.left && m.do != nil {
		m.do()
		m.do = nil
	}
	return m.r.Read(p[:min(len(p), 1<<10)])
}

func (*midway) Close() error { return nil }

// scratchOf returns the descriptor of the scratch file below dir.
func scratchOf(dir string) int {
	all, _ := os.ReadDir("/proc/self/fd") // none: -1
	for _, e := range all {
		to, _ := os.Readlink("/proc/self/fd/" + e.Name()) // the directory's own is gone
		if fd, err := strconv.Atoi(e.Name()); err == nil && strings.HasPrefix(to, dir+"/") && strings.HasSuffix(to, "(deleted)") {
			return fd
		}
	}
	return -1
}

// open returns how many descriptors, mapped files without a name, and goroutines
// there are.
func open() string {
	fds, _ := os.ReadDir("/proc/self/fd")
	maps, _ := os.ReadFile("/proc/self/maps")
	return fmt.Sprintf("%d descriptors, %d mappings, %d goroutines", len(fds), bytes.Count(maps, []byte("(deleted)")), runtime.NumGoroutine())
}

// Wherever the file is lost, in whichever goroutine that shows, unpacking ends with
// an error, and nothing is left.
func TestUnpackWhoseFileIsLost(t *testing.T) {
	defer func(n int) { scratchAfter = n }(scratchAfter)
	scratchAfter = 0
	archive := manyNames(1200)
	before := open()
	for left := 0; left < len(archive); left += len(archive) / 10 {
		dir := t.TempDir()
		lost := 0
		in := &midway{bytes.NewReader(archive), left, func() {
			if fd := scratchOf(dir); fd >= 0 {
				lost++
				must(t, unix.Ftruncate(fd, 0))
			}
		}}
		info, err := Unpack(t.Context(), dir, []Layer{{Name: "many", Open: func() (io.ReadCloser, error) { return in, nil }}}, Options{})
		if lost != 1 || info != nil || !errors.Is(err, unix.EIO) {
			t.Errorf("lost when %d bytes are left: %v, %v; %d files lost", left, info, err, lost)
		}
	}
	if after := open(); after != before {
		t.Errorf("%s, before %s", after, before)
	}

	d, err := newDisk(t.TempDir(), Options{})
	must(t, err)
	defer d.t.scratch.close()
	defer d.close()
	a := openArchive(t.Context(), "few", bytes.NewReader(tarball(reg("a", "a"), reg("b", "b"))), Options{})
	must(t, a.whole(d.t.read(a, &Info{}, nil)))
	must(t, unix.Ftruncate(d.t.scratch.file.fd, 0))
	if err := d.settle(); !errors.Is(err, unix.EIO) { // the writers have the digests
		t.Errorf("settle = %v", err)
	}
}

// Names that the disk has lost are no fault of the archive.
func TestWhatTheDiskLostIsNoRefusal(t *testing.T) {
	defer func(n int) { scratchAfter = n }(scratchAfter)
	scratchAfter = 0
	var b bytes.Buffer
	for i := range 500 {
		b.Write(sym(fmt.Sprintf("%0100d", i), "x"))
	}
	half := b.Len()
	for i := range 500 {
		b.Write(hard(fmt.Sprintf("%0101d", i), fmt.Sprintf("%0100d", i)))
	}
	archive := stored(join(b.Bytes(), make([]byte, 1024)))
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	dir := t.TempDir()
	in := &midway{bytes.NewReader(archive), len(archive) - half, func() {
		fd := scratchOf(dir)
		must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, scratchPiece)) // the names
		must(t, unix.Dup3(pipe[0], fd, unix.O_CLOEXEC))                                                  // cannot be asked without an error
	}}
	_, err := Unpack(t.Context(), dir, []Layer{{Name: "links", Open: func() (io.ReadCloser, error) { return in, nil }}}, Options{})
	if errors.Is(err, ErrRefused) || !errors.Is(err, unix.ESPIPE) {
		t.Errorf("Unpack = %v", err)
	}
}

func TestUnpackInAFile(t *testing.T) {
	defer func(n int) { scratchAfter = n }(scratchAfter)
	archive := manyNames(3000)
	for _, in := range []int{scratchAfter, 0} {
		scratchAfter = in
		dir := filepath.Join(t.TempDir(), "root")
		must(t, os.Mkdir(dir, 0o700))
		info, err := Unpack(t.Context(), dir, []Layer{{Name: "many", Open: openBytes(archive)}}, Options{})
		must(t, err)
		want := entriesOf(t, readInto(t, nil, archive))
		got := listed(t, info)
		for i := range want {
			want[i].UID, want[i].GID = os.Getuid(), os.Getgid()
		}
		if !slices.Equal(got, want) {
			t.Errorf("with %d bytes in memory: %d entries are others", in, len(got))
		}
		if n := len(info.scratch.file.pieces); n == 0 && in == 0 {
			t.Errorf("%d pieces of the file", n)
		}
		info.Close()
	}
}
