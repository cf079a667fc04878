package sftpfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"

	"deploytools/layers/digest"
	"deploytools/registry"
)

func TestDirectoriesAndRenames(t *testing.T) {
	r := open(t, options())
	c, _, cut := session(t, r, ann)
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s = %v", what, err)
		}
	}
	fails := func(what string, err error) {
		t.Helper()
		if err == nil {
			t.Errorf("%s succeeds", what)
		}
	}
	ok("Mkdir", c.Mkdir("dir"))
	fails("Mkdir again", c.Mkdir("dir"))
	ok("chmod of a directory", c.Chmod("dir", 0o755))
	if got := ls(t, c, "dir"); got != "" {
		t.Errorf("an empty directory lists %q", got)
	}
	cut() // directories outlive a session, as clients have several

	c, _, _ = session(t, r, ann)
	put(t, c, "dir/f.part", "content")
	fails("RemoveDirectory of a full one", c.RemoveDirectory("dir"))
	fails("Create over a directory", openErr(c.Create("dir")))
	fails("Create in a file", openErr(c.Create("dir/f.part/x")))
	ok("Rename", c.Rename("dir/f.part", "dir/f"))
	if _, err := c.Stat("dir/f.part"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat of the old name = %v", err)
	}
	if got, want := read(t, c, "dir/f.sha256"), digest.Of([]byte("content")).String()+"  f\n"; got != want {
		t.Errorf("dir/f.sha256 holds %q, want %q", got, want)
	}
	put(t, c, "g", "other")
	fails("Rename over a file", c.Rename("g", "dir/f"))
	ok("PosixRename over a file", c.PosixRename("g", "dir/f"))
	if got := read(t, c, "dir/f"); got != "other" {
		t.Errorf("dir/f holds %q", got)
	}
	ok("Rename of a directory", c.Rename("dir", "new"))
	if got := read(t, c, "new/f"); got != "other" {
		t.Errorf("new/f holds %q", got)
	}
	for _, to := range []string{"configs/web.json", "files/x", "by-hash/x", "a\nb", "/"} {
		fails("Rename to "+to, c.Rename("new/f", to))
	}
	fails("Mkdir in files", c.Mkdir("files/d"))
	fails("Mkdir with an escape", c.Mkdir("a\x1b[2J"))
	fails("Remove of a directory", c.Remove("new/nothing"))
	ok("Remove", c.Remove("new/f"))
	ok("RemoveDirectory", c.RemoveDirectory("new"))
	addver(t, r, "code", "v1", "content") // replaced, and still known by its digest
	if got := ls(t, c, "/"); strings.Count(got, "\n") != 3 {
		t.Errorf("left:\n%s", got)
	}
}

func openErr(_ *sftp.File, err error) error { return err }

func TestRenameWhileWriting(t *testing.T) {
	c, _, _ := session(t, open(t, options()), ann)
	f, err := c.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Rename("f", "g"); err == nil || !strings.Contains(err.Error(), "being written") {
		t.Errorf("Rename = %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestByHash(t *testing.T) {
	r := open(t, options())
	stock(t, r)
	c, _, _ := session(t, r, ann)
	put(t, c, "f", "mine")
	other, _, _ := session(t, r, registry.Caller{Role: registry.Publisher, Fingerprint: "SHA256:bob"})
	at := func(content string) string { return "by-hash/" + digest.Of([]byte(content)).String() }
	for _, content := range []string{"mine", "code v1"} {
		if got := read(t, c, at(content)); got != content {
			t.Errorf("%s by its digest holds %q", content, got)
		}
		if info, err := c.Stat(at(content)); err != nil || info.Size() != int64(len(content)) {
			t.Errorf("Stat = %v, %v", info, err)
		}
	}
	if got := ls(t, c, "by-hash"); strings.Count(got, "\n") != 3 {
		t.Errorf("by-hash lists\n%s", got)
	}
	if _, err := other.Stat(at("mine")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key's Stat = %v", err)
	}
	if _, err := other.Open(at("mine")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another key's Open = %v", err)
	}
	for _, p := range []string{at("nothing"), "by-hash/x", "by-hash/" + strings.Repeat("0", 63)} {
		if _, err := c.Stat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Stat(%s) = %v", p, err)
		}
	}
	if _, err := c.Create(at("new")); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Create = %v", err)
	}
	if err := c.Remove(at("mine")); err == nil {
		t.Error("Remove succeeds")
	}
}

func TestSpaceIsTold(t *testing.T) {
	o := options()
	o.Quota = registry.Quota{Operator: 1 << 20, Entries: 10}
	c, _, _ := session(t, open(t, o), ann)
	put(t, c, "f", "content")
	st, err := c.StatVFS("/")
	if err != nil || st.TotalSpace() != 1<<20 || st.FreeSpace() != 1<<20-blockBytes || st.Files != 10 || st.Ffree != 9 {
		t.Errorf("StatVFS = %+v, %v", st, err)
	}
	agent, _ := dial(t, Agent(t.Context(), open(t, options()), registry.Caller{}, nil))
	if _, err := agent.StatVFS("/"); err == nil {
		t.Error("agents are told of space")
	}
}

func TestQuotasAreTold(t *testing.T) { // B-30
	o := options()
	o.Quota.Operator = 10
	c, n, _ := session(t, open(t, o), ann)
	put(t, c, "f", "1234567")
	f, err := c.Create("g")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("1234")); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
		t.Errorf("Write = %v, want the quota", err)
	}
	if err := f.Close(); err == nil {
		t.Error("Close succeeds")
	}
	if !strings.Contains(n.String(), "error: g: your uploads would take more than 10 bytes (remove some of them") {
		t.Errorf("the user sees %q", n)
	}
	if err := c.Remove("f"); err != nil {
		t.Error(err)
	}
	put(t, c, "g", "1234567")
}

// TestWinSCP: more than 100 KB go to NAME.filepart first, which takes NAME's
// place when it is complete, and can go on when it was cut.
func TestWinSCP(t *testing.T) {
	r := open(t, options())
	c, _, _ := session(t, r, ann)
	put(t, c, "web.tar.gz", "old")
	cutOff(t, r, "web.tar.gz.filepart", "half of")
	goOn(t, c, "web.tar.gz.filepart", 7, "half of it")
	for what, err := range map[string]error{
		"times of the part": c.Chtimes("web.tar.gz.filepart", moment, moment), "removal of the target": c.Remove("web.tar.gz"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := c.Rename("web.tar.gz.filepart", "web.tar.gz"); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"times": c.Chtimes("web.tar.gz", moment, moment), "permissions": c.Chmod("web.tar.gz", 0o644),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := read(t, c, "web.tar.gz.sha256"); !strings.HasPrefix(got, digest.Of([]byte("half of it")).String()) {
		t.Errorf("the digest file holds %q", got)
	}
	addver(t, r, "code", "v1", "half of it")
}

// TestFileZilla: it lists, makes the directory and sets its mode, uploads,
// lists again, and sets times and modes.
func TestFileZilla(t *testing.T) {
	r := open(t, options())
	c, _, _ := session(t, r, ann)
	if at, err := c.RealPath("."); err != nil || at != "/" {
		t.Errorf("RealPath = %s, %v", at, err)
	}
	ls(t, c, "/")
	if err := c.Mkdir("site"); err != nil {
		t.Error(err)
	}
	if err := c.Chmod("site", 0o755); err != nil {
		t.Error(err)
	}
	ls(t, c, "site")
	put(t, c, "site/web.tar.gz", "content")
	if got := ls(t, c, "site"); got != "-rw------- 7 2026-11-21 20:00:00 web.tar.gz\n" {
		t.Errorf("ls site: %s", got)
	}
	if err := c.Chtimes("site/web.tar.gz", moment, moment); err != nil {
		t.Error(err)
	}
	if err := c.Chmod("site/web.tar.gz", 0o640); err != nil {
		t.Error(err)
	}
	cutOff(t, r, "site/next.tar.gz", "half of")
	f, err := c.OpenFile("site/next.tar.gz", os.O_WRONLY) // its reput asks the open file
	if err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 7 {
		t.Errorf("FSTAT = %v, %v", info, err)
	}
	if _, err := f.WriteAt([]byte(" it"), 7); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	addver(t, r, "code", "v1", "content")
	addver(t, r, "code", "v2", "half of it")
}

// TestTwoHundredUploadsAtOnce: half of them with content that another one has.
func TestTwoHundredUploadsAtOnce(t *testing.T) {
	r := open(t, options())
	content := func(i int) string { return strings.Repeat(fmt.Sprintf("upload %d\n", i%100), 5_000) }
	var wg sync.WaitGroup
	for s := range 20 {
		c, _, cut := session(t, r, ann)
		defer cut()
		for n := range 10 {
			i := s*10 + n
			wg.Go(func() {
				put(t, c, fmt.Sprintf("d%d/f%d", i%7, i), content(i))
				if info, err := c.Stat(fmt.Sprintf("d%d/f%d", i%7, i)); err != nil || info.Size() != int64(len(content(i))) {
					t.Errorf("Stat of upload %d = %v, %v", i, info, err)
				}
			})
		}
	}
	wg.Wait()
	all, err := r.Uploads(t.Context())
	if err != nil || len(all) != 200 {
		t.Fatalf("%d uploads are there, %v, want 200", len(all), err)
	}
	for i := range 100 {
		wg.Go(func() { addver(t, r, "code", fmt.Sprint("v", i), content(i)) })
	}
	wg.Wait()
	if all, err = r.Uploads(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("%d uploads are left, %v", len(all), err)
	}
}
