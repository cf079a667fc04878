package sftpfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func TestPutIsStoredAndTold(t *testing.T) { // U-05
	r := open(t, options())
	c, n, _ := session(t, r, ann)
	put(t, c, "web.tar.gz", "content")
	d := digest.Of([]byte("content"))
	if want := fmt.Sprintf("stored %s 7 bytes web.tar.gz\n", d); n.String() != want {
		t.Errorf("the user sees %q, want %q", n, want)
	}
	if got, want := read(t, c, "web.tar.gz.sha256"), fmt.Sprintf("%s  web.tar.gz\n", d); got != want {
		t.Errorf("web.tar.gz.sha256 holds %q, want %q", got, want)
	}
	if got := read(t, c, "/web.tar.gz"); got != "content" {
		t.Errorf("web.tar.gz holds %q", got)
	}
	want := "drwx------ 0 1970-01-01 00:00:00 by-hash\ndrwxr-x--- 0 1970-01-01 00:00:00 configs\ndrwx------ 0 1970-01-01 00:00:00 files\n-rw------- 7 2026-11-21 20:00:00 web.tar.gz\n"
	if got := ls(t, c, "."); got != want {
		t.Errorf("ls:\n%swant\n%s", got, want)
	}
	for path, size := range map[string]int64{"web.tar.gz": 7, "web.tar.gz.sha256": 64 + 2 + 10 + 1} {
		if info, err := c.Stat(path); err != nil || info.Size() != size || info.Mode() != 0o600 {
			t.Errorf("Stat(%s) = %v, %v, want %d bytes", path, info, err, size)
		}
	}
	addver(t, r, "code", "v1", "content")
	if _, err := c.Stat("web.tar.gz"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of what became a version = %v", err)
	}
}

func TestOperatorReadsWhatAgentsRead(t *testing.T) {
	r := open(t, options())
	stock(t, r)
	c, _, _ := session(t, r, ann)
	if got := read(t, c, "configs/web.json"); !strings.Contains(got, `"code"`) {
		t.Errorf("configs/web.json holds %q", got)
	}
	if got := read(t, c, "files/"+digest.Of([]byte("code v1")).String()); got != "code v1" {
		t.Errorf("the layer holds %q", got)
	}
	for _, path := range []string{"/configs/x.json", "/files/x", "/configs", "/files", "/configs/web.json"} {
		if _, err := c.Create(path); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Create(%s) = %v, want permission denied", path, err)
		}
		if err := c.Remove(path); err == nil {
			t.Errorf("Remove(%s) succeeds", path)
		}
		if err := c.Chmod(path, 0); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Chmod(%s) = %v, want permission denied", path, err)
		}
		if err := c.Truncate(path, 0); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("Truncate(%s) = %v, want permission denied", path, err)
		}
	}
}

// B-31, finding 4: scp opens without truncation, asks for attributes and cuts
// the file at its end, all before the close.
func TestAttributesWhileWriting(t *testing.T) {
	r := open(t, options())
	c, _, _ := session(t, r, ann)
	f, err := c.OpenFile("f", os.O_WRONLY|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("contentXX"), 0); err != nil {
		t.Fatal(err)
	}
	for name, stat := range map[string]func() (os.FileInfo, error){
		"FSTAT": f.Stat, "STAT": func() (os.FileInfo, error) { return c.Stat("f") }, "LSTAT": func() (os.FileInfo, error) { return c.Lstat("/f") },
	} {
		if info, err := stat(); err != nil || info.Size() != 9 || info.Mode() != 0o600 {
			t.Errorf("%s = %v, %v, want 9 bytes", name, info, err)
		}
	}
	if got := ls(t, c, "/"); !strings.Contains(got, "-rw------- 9 2026-11-21 20:00:00 f\n") {
		t.Errorf("ls:\n%s", got)
	}
	for name, err := range map[string]error{
		"FSETSTAT size": f.Truncate(7), "FSETSTAT perm": f.Chmod(0o644), "FSETSTAT owner": f.Chown(1000, 1000),
		"SETSTAT times": c.Chtimes("f", moment, moment), "SETSTAT size": c.Truncate("f", 7),
	} {
		if err != nil {
			t.Errorf("%s = %v", name, err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, "f"); got != "content" {
		t.Errorf("f holds %q", got)
	}
	// -p sets times after the end, and other clients the size that it has.
	for name, err := range map[string]error{"times": c.Chtimes("f", moment, moment), "perm": c.Chmod("f", 0o644), "size": c.Truncate("f", 7)} {
		if err != nil {
			t.Errorf("SETSTAT %s after the end = %v", name, err)
		}
	}
	if err := c.Truncate("f", 3); err == nil {
		t.Error("a complete upload can be cut")
	}
	if err := c.Chmod("nope", 0o644); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SETSTAT of nothing = %v", err)
	}
}

// B-32: what was cut off is never claimed. It can go on.
func TestACutUploadIsAPart(t *testing.T) {
	r := open(t, options())
	c, n, cut := session(t, r, ann)
	put(t, c, "whole", "whole")
	f, err := c.Create("half")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("half of")); err != nil {
		t.Fatal(err)
	}
	cut()
	all, err := r.Uploads(t.Context())
	if err != nil || len(all) != 2 || all[1].Path != "/half" || all[1].Complete || all[1].Size != 7 {
		t.Errorf("Uploads() = %+v, %v, want the whole one and a part", all, err)
	}
	_, err = r.AddVersion(t.Context(), registry.Act{Caller: ann}, registry.NewVersion{Component: "code", Version: "v1", Digest: digest.Of([]byte("half of"))}, nil)
	if !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("AddVersion of a cut upload = %v", err)
	}
	if strings.Contains(n.String(), "half") {
		t.Errorf("the user sees %q", n)
	}
}

// A client whose write failed closes the file all the same, as OpenSSH's does.
func TestAFailedWriteFailsTheClose(t *testing.T) { // B-30
	o := options()
	o.MaxUpload = 10
	r := open(t, o)
	c, n, _ := session(t, r, ann)
	f, err := c.Create("big\u00e9")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.WriteAt([]byte("0123456789ab"), 0); err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
			t.Errorf("WriteAt = %v, want the limit", err)
		}
	}
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("Close = %v, want the limit", err)
	}
	if want := "error: big\u00e9: upload is larger than 10 bytes (ask for a greater -max-upload at the registry)\n"; n.String() != want {
		t.Errorf("the user sees %q, want %q once", n, want)
	}
	if all, err := r.Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v", all, err)
	}
	put(t, c, "big\u00e9", "small") // the name is free again
}

func TestUploadsOfAKeyOutliveTheSession(t *testing.T) {
	r := open(t, options())
	first, _, cut := session(t, r, ann)
	put(t, first, "mine", "content")
	cut()
	bob := registry.Caller{User: "ann", Role: registry.Publisher, Fingerprint: "SHA256:bob"}
	other, _, _ := session(t, r, bob)
	if _, err := other.Stat("mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key's Stat = %v", err)
	}
	if err := other.Remove("mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key's Remove = %v", err)
	}
	if _, err := other.Open("mine.sha256"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key's Open = %v", err)
	}
	again, _, _ := session(t, r, ann)
	if got := read(t, again, "mine"); got != "content" {
		t.Errorf("mine holds %q", got)
	}
	put(t, again, "mine", "newer")
	if got := read(t, again, "mine"); got != "newer" {
		t.Errorf("mine holds %q, want the newer one", got)
	}
	addver(t, r, "code", "old", "content") // the older one is still there by its digest
	put(t, again, "mine", "newest")
	if err := again.Remove("mine"); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if _, err := again.Stat("mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat after Remove = %v", err)
	}
	if err := again.Remove("mine"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Remove again = %v", err)
	}
	if all, err := r.Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v", all, err)
	}
}

func TestOpenFlags(t *testing.T) {
	r := open(t, options())
	c, _, _ := session(t, r, ann)
	put(t, c, "there", "content")
	for _, test := range []struct {
		name, path string
		flags      int
		ok         bool
	}{
		{"create", "new1", os.O_WRONLY | os.O_CREATE, true},
		{"create and cut", "new2", os.O_WRONLY | os.O_CREATE | os.O_TRUNC, true},
		{"create, read and write", "new3", os.O_RDWR | os.O_CREATE, true},
		{"create only", "new4", os.O_WRONLY | os.O_CREATE | os.O_EXCL, true},
		{"append to nothing", "new5", os.O_WRONLY | os.O_CREATE | os.O_APPEND, true},
		{"in a directory", "dir/sub/new6", os.O_WRONLY | os.O_CREATE, true},
		{"no create", "nope", os.O_WRONLY, false},
		{"create only, there", "there", os.O_WRONLY | os.O_CREATE | os.O_EXCL, false},
		{"append", "there", os.O_WRONLY | os.O_CREATE | os.O_APPEND, false},
		{"append without create", "there", os.O_WRONLY | os.O_APPEND, false},
		{"the root", "/", os.O_WRONLY | os.O_CREATE, false},
		{"a directory", "dir", os.O_WRONLY | os.O_CREATE, false},
	} {
		f, err := c.OpenFile(test.path, test.flags)
		if (err == nil) != test.ok {
			t.Errorf("%s: OpenFile = %v", test.name, err)
		}
		if err != nil {
			continue
		}
		if _, err := f.WriteAt([]byte("abc"), 0); err != nil {
			t.Errorf("%s: WriteAt = %v", test.name, err)
		}
		if test.flags&os.O_RDWR != 0 {
			if b := make([]byte, 2); must(f.ReadAt(b, 1)) != 2 || string(b) != "bc" {
				t.Errorf("%s: reads %q", test.name, b)
			}
		}
		if _, err := c.OpenFile(test.path, os.O_WRONLY|os.O_CREATE); err == nil {
			t.Errorf("%s: a second writer is let in", test.name)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: Close = %v", test.name, err)
		}
	}
	if got := read(t, c, "there"); got != "content" {
		t.Errorf("there holds %q", got)
	}
	if got := ls(t, c, "dir/sub"); !strings.HasSuffix(got, "new6\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("ls dir/sub: %s", got)
	}
	if info, err := c.Stat("dir"); err != nil || !info.IsDir() {
		t.Errorf("Stat(dir) = %v, %v", info, err)
	}
}

func must(n int, _ error) int { return n }

func TestRemoveWhileWriting(t *testing.T) {
	r := open(t, options())
	other, _, _ := session(t, r, ann)
	put(t, other, "f", "another's")
	c, _, _ := session(t, r, ann)
	f, err := c.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove("f"); err != nil {
		t.Errorf("Remove = %v", err)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("Write after Remove succeeds")
	}
	if err := f.Close(); err == nil {
		t.Error("Close after Remove succeeds")
	}
	if got := read(t, c, "f"); got != "another's" {
		t.Errorf("f holds %q, want what was there before", got)
	}
}

func TestNamesAreChecked(t *testing.T) {
	r := open(t, options())
	c, n, _ := session(t, r, ann)
	for _, name := range []string{"a\nb", "\x1b[2Jx", "a\x00b", "a\x7f", "\u009b31m", "\u202egnp.exe", "\xff", strings.Repeat("x", 4097)} {
		if _, err := c.Create(name); err == nil {
			t.Errorf("Create(%.40q) succeeds", name)
		}
	}
	for i, r := range n.String() {
		if r < ' ' && r != '\n' || r == 0x7f {
			t.Errorf("the user's terminal gets %U at %d", r, i)
		}
	}
	for _, name := range []string{"name with spaces", "\u00e9\u4e16", "-rf", `a\b`, "x'y\"z", "../../etc/passwd"} {
		put(t, c, name, name)
	}
	if _, err := c.Stat("/etc/passwd"); err != nil {
		t.Errorf("../../etc/passwd is not /etc/passwd of the drop box: %v", err)
	}
}

func TestHandlesAreLimited(t *testing.T) {
	r := open(t, options())
	stock(t, r)
	for name, h := range map[string]sftp.Handlers{
		"agent": Agent(t.Context(), r, registry.Caller{}, nil), "operator": Operator(t.Context(), r, ann, nil, nil),
	} {
		c, _ := dial(t, h)
		for range 3 { // places come back, after failures too
			var files []*sftp.File
			for {
				f, err := c.Open("configs/web.json")
				if err != nil {
					break
				}
				if files = append(files, f); len(files) > 100 {
					break
				}
				c.Open("nope")
				c.ReadDir("nope")
				c.ReadDir("/configs")
				c.Create("configs/x")
			}
			if len(files) != maxHandles {
				t.Errorf("%s: %d files open, want %d", name, len(files), maxHandles)
			}
			if _, err := c.ReadDir("/"); err == nil {
				t.Errorf("%s: one directory more can be opened", name)
			}
			if _, err := c.Stat("/"); err != nil {
				t.Errorf("%s: Stat needs a handle: %v", name, err)
			}
			for _, f := range files {
				f.Close()
			}
		}
	}
}

func TestViewersUploadNothing(t *testing.T) {
	r := open(t, options())
	for _, role := range []registry.Role{registry.NoRole, registry.Viewer} {
		c, n, _ := session(t, r, registry.Caller{Role: role, Fingerprint: "SHA256:v"})
		if _, err := c.Create("f"); !errors.Is(err, fs.ErrPermission) || !strings.Contains(n.String(), "cannot upload") {
			t.Errorf("Create as %v = %v, the user sees %q", role, err, n)
		}
	}
}

func TestAListingOfMany(t *testing.T) {
	r := open(t, options())
	c, _, _ := session(t, r, ann)
	for i := range 120 { // more than one answer holds
		put(t, c, fmt.Sprintf("f%03d", i), fmt.Sprint(i))
	}
	infos, err := c.ReadDir("/")
	if err != nil || len(infos) != 123 {
		t.Fatalf("ReadDir has %d entries, %v, want 123", len(infos), err)
	}
	for i, info := range infos[2:122] { // by-hash, configs, f000..., files
		if want := fmt.Sprintf("f%03d", i); info.Name() != want {
			t.Fatalf("entry %d is %s, want %s", i, info.Name(), want)
		}
	}
}

// A user who never reads the notices stops nothing.
func TestNoticesAreBounded(t *testing.T) {
	n := &notices{}
	b := &noticeBoard{w: n}
	for i := range 10_000 {
		b.printf("stored %d %s", i, strings.Repeat("x", 80))
	}
	if got := len(n.String()); got > maxNotices+200 {
		t.Errorf("%d bytes of notices, want at most about %d", got, maxNotices)
	}
	if got := n.String(); strings.Count(got, "left out") != 1 || !strings.HasSuffix(got, "\n") {
		t.Errorf("the notices end with %q", got[len(got)-100:])
	}
}

// TestAnUploadOutlivesARestart: U-24, B-04, with the real engines.
func TestAnUploadOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	r, stop, err := onDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	c, _, cut := session(t, r, ann)
	put(t, c, "f", "content")
	f, err := c.Create("half")
	if err == nil {
		_, err = f.Write([]byte("half"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cut()
	stop()

	r, stop, err = onDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, _, cut = session(t, r, ann)
	defer cut()
	if got := read(t, c, "f"); got != "content" {
		t.Errorf("f holds %q after a restart", got)
	}
	addver(t, r, "code", "v1", "content")
	if got := read(t, c, "files/"+digest.Of([]byte("content")).String()); got != "content" {
		t.Errorf("the layer holds %q", got)
	}
	goOn(t, c, "half", 4, "half of it")
	addver(t, r, "code", "v2", "half of it")
	if left, err := os.ReadDir(dir + "/uploads"); len(left) != 0 || err != nil {
		t.Errorf("uploads/ holds %v, %v", left, err)
	}
}

func TestASessionThatIsOverStoresNothing(t *testing.T) {
	r := open(t, options())
	ctx, cancel := context.WithCancel(t.Context())
	c, _ := dial(t, Operator(ctx, r, ann, nil, nil))
	f, err := c.Create("f")
	if err == nil {
		_, err = f.Write([]byte("x"))
	}
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := f.Close(); err == nil {
		t.Error("Close in a session that is over succeeds")
	}
	if all, err := r.Uploads(t.Context()); len(all) != 0 || err != nil {
		t.Errorf("Uploads() = %+v, %v", all, err)
	}
}
