package layers

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// run runs a program in dir and returns what it prints.
func run(t testing.TB, dir string, stdin []byte, argv ...string) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, errs.String())
	}
	return out
}

// sourceTree makes a tree to archive. With short names it fits every format.
func sourceTree(t testing.TB, short bool) string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string, perm os.FileMode) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(t, os.WriteFile(at(name), []byte(content), 0o600))
		must(t, os.Chmod(at(name), perm))
	}
	write("etc/motd", "hello\n", 0o644)
	write("bin/run", strings.Repeat("run ", 500_000), 0o755)
	write("empty", "", 0o640)
	write("ro/file", "x", 0o444)
	write("space and\ttab", "x", 0o644)
	must(t, os.Rename(at("space and\ttab"), at("space and more")))
	must(t, os.Link(at("etc/motd"), at("etc/motd2")))
	must(t, os.Symlink("/absolute/nowhere", at("etc/dangling")))
	must(t, os.Symlink("motd", at("etc/link")))
	must(t, os.Link(at("etc/link"), at("etc/link2")))
	must(t, os.Mkdir(at("empty.d"), 0o700))
	if !short {
		long := strings.Repeat("long/", 60)
		write(long+"file", "deep", 0o644)
		write(strings.Repeat("n", 120), "120", 0o644)
		write(strings.Repeat("m", 255), "255", 0o644)
		write("größe/naïve-日本語", "utf-8", 0o644)
		write("latin-\xe4\xff", "bytes", 0o644)
		must(t, os.Symlink(strings.Repeat("../t/", 80), at("long-target")))
		must(t, os.Symlink("t\xe4rget", at("latin-target")))
		must(t, os.Link(at(long+"file"), at("link-to-long")))
		must(t, os.Link(at(strings.Repeat("n", 120)), at(strings.Repeat("o", 200))))
	}
	must(t, os.Chmod(at("ro"), 0o555))
	if os.Geteuid() == 0 {
		must(t, os.Lchown(at("etc/motd"), 12, 34))
		must(t, os.Lchown(at("etc/link"), 56, 78))
	}
	must(t, os.Chtimes(at("empty"), time.Time{}, time.Unix(1e9, 123456789)))
	must(t, os.Chtimes(at("etc"), time.Time{}, time.Unix(1.1e9, 5e8)))
	return dir
}

// sameAsTar asserts that we make the same tree as GNU tar, and returns it.
func sameAsTar(t *testing.T, archive []byte) (*world, *Info) {
	t.Helper()
	theirs := t.TempDir()
	run(t, theirs, archive, "tar", "xpzf", "-")
	w := newWorld(t)
	info := w.accepted(t, Options{Owner: os.Geteuid() == 0}, archive)
	if diff := gocmp.Diff(snapshot(t, theirs, false), snapshot(t, w.root, false)); diff != "" {
		t.Errorf("another tree than tar's: -tar +ours\n%s", diff)
	}
	return w, info
}

func TestArchivesOfGNUTar(t *testing.T) {
	for _, format := range []string{"v7", "oldgnu", "gnu", "ustar", "pax"} {
		dir := sourceTree(t, format == "v7" || format == "ustar")
		for _, what := range [][]string{{"."}, {"etc", "bin"}, {"--no-recursion", "etc", "etc/motd", "ro", "empty.d"}, {"--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "."}} {
			t.Run(fmt.Sprint(format, what), func(t *testing.T) {
				_, info := sameAsTar(t, run(t, dir, nil, append([]string{"tar", "--format=" + format, "-czf", "-", "-C", dir}, what...)...))
				if n := len(listed(t, info)); n < 3 {
					t.Errorf("only %d entries", n)
				}
			})
		}
	}
}

func TestArchivesThatTarAppendedTo(t *testing.T) {
	dir := sourceTree(t, false)
	file := filepath.Join(t.TempDir(), "a.tar")
	run(t, dir, nil, "tar", "--sort=name", "-cf", file, ".")
	must(t, os.WriteFile(filepath.Join(dir, "etc/motd"), []byte("newer\n"), 0o600))
	run(t, dir, nil, "tar", "--sort=name", "-rf", file, "./empty", "./etc")
	w, _ := sameAsTar(t, run(t, dir, nil, "gzip", "-nc", file))
	if b, err := os.ReadFile(filepath.Join(w.root, "etc/motd2")); string(b) != "newer\n" {
		t.Errorf("motd2 = %q, %v, want what was appended", b, err)
	}
}

func TestConcatenatedGzip(t *testing.T) {
	dir := sourceTree(t, false)
	tar := run(t, dir, nil, "tar", "cf", "-", ".")
	var archive []byte
	for i := 0; i < len(tar); i += 300_001 {
		archive = append(archive, run(t, dir, tar[i:min(i+300_001, len(tar))], "gzip", "-c")...)
	}
	sameAsTar(t, archive)
}

func TestArchivesOfGit(t *testing.T) {
	dir := sourceTree(t, false)
	git := func(args ...string) []byte {
		return run(t, dir, nil, append([]string{"git", "-c", "user.name=n", "-c", "user.email=e", "-c", "core.hooksPath=/dev/null"}, args...)...)
	}
	git("init", "-q", ".")
	git("add", ".")
	git("commit", "-qm", "x")
	for _, prefix := range []string{"", "app/"} {
		_, info := sameAsTar(t, git("archive", "--format=tar.gz", "--prefix="+prefix, "HEAD"))
		if n := len(listed(t, info)); n < 10 {
			t.Errorf("prefix %q: %d entries", prefix, n)
		}
	}
}

// Sparse files, by every way in which GNU tar writes them.
func TestSparseFilesKeepTheirHoles(t *testing.T) {
	dir := t.TempDir()
	for name, parts := range map[string]map[int64]string{
		"hole at the end": {0: "start"}, "hole at the start": {1 << 20: "end"}, "many holes": many(), "only a hole": {},
	} {
		f, err := os.Create(filepath.Join(dir, name))
		must(t, err)
		for at, s := range parts {
			_, err := f.WriteAt([]byte(s), at)
			must(t, err)
		}
		must(t, f.Truncate(8<<20))
		must(t, f.Close())
	}
	must(t, os.WriteFile(filepath.Join(dir, "dense"), make([]byte, 1<<20), 0o600))
	for name, how := range map[string][]string{
		"oldgnu": {"--format=oldgnu"}, "gnu": {"--format=gnu"},
		"0.0": {"--format=pax", "--sparse-version=0.0"}, "0.1": {"--format=pax", "--sparse-version=0.1"}, "1.0": {"--format=pax", "--sparse-version=1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := sameAsTar(t, run(t, dir, nil, append([]string{"tar", "-cSzf", "-", "--hole-detection=seek"}, append(how, ".")...)...))
			for _, name := range []string{"hole at the end", "hole at the start", "many holes", "only a hole"} {
				was, is := stat(t, filepath.Join(dir, name)), stat(t, filepath.Join(w.root, name))
				if is.Blocks > was.Blocks || is.Blocks > 8<<20/512/2 {
					t.Errorf("%s: %d blocks, had %d", name, is.Blocks, was.Blocks)
				}
			}
		})
	}
}

// many is more pieces than a header, and one extension of it, can list.
func many() map[int64]string {
	m := map[int64]string{}
	for i := range int64(60) {
		m[i*128<<10] = fmt.Sprintf("piece %d", i)
	}
	return m
}

func TestWhatPackMakesIsAsTarReadsIt(t *testing.T) {
	dir := sourceTree(t, false)
	for name, o := range map[string]PackOptions{"default": {}, "times": {KeepTimes: true}, "time": {Time: time.Unix(1e9, 5), Level: 9}} {
		t.Run(name, func(t *testing.T) {
			archive, _ := pack(t, dir, o)
			w, _ := sameAsTar(t, archive)
			if again, _ := pack(t, w.root, o); !bytes.Equal(archive, again) {
				t.Error("packing what was unpacked gives other bytes")
			}
		})
	}
}
