package atomic

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// readerIDs are a user's and his group's that nobody has.
const (
	readerUID = 54321
	readerGID = 54322
)

// asReader calls fn with the reader's rights to files.
func asReader(fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and end the thread with it
		must(unix.Setfsgid(readerGID))
		must(unix.Setfsuid(readerUID))
		done <- fn()
	}()
	return <-done
}

// sees runs a program as a user and returns what it says.
func sees(uid, gid uint32, argv ...string) string {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil && strings.Contains(string(out), "Permission denied") {
		return "denied"
	}
	return strings.TrimSpace(string(out))
}

// Another user sees before the switch what he will see after it, and no name of a
// directory that he may not list. A third one sees nothing.
func TestPreviewForAReader(t *testing.T) {
	needsRoot(t)
	s := newSite(t)
	for dir := s.etc; strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		must(os.Chmod(dir, 0o755))
	}
	s.write(t, "beside", "beside", 0o644)
	must(os.Mkdir(s.etc+"/private", 0o700))
	s.write(t, "private/beside", "a secret's name", 0o644)
	p := Plan{ID: "set", Files: []Target{
		{Path: s.etc + "/cert", Bytes: []byte("new cert"), Metadata: Metadata{Mode: 0o644}},
		{Path: s.etc + "/key", Bytes: []byte("new key"), Metadata: Metadata{Mode: 0o600}},
		{Path: s.etc + "/his", Bytes: []byte("new his"), Metadata: Metadata{Mode: 0o640, Group: []string{"54322"}}},
		{Path: s.etc + "/private/key", Bytes: []byte("new key"), Metadata: Metadata{Mode: 0o644}},
	}}
	set, _ := s.prepared(t, p)
	defer set.Close()
	preview, err := set.Staged(&Reader{GID: readerGID, As: asReader})
	if err != nil {
		t.Fatal(err)
	}
	at := preview.Dir + s.etc
	for _, want := range []struct{ path, says string }{
		{at + "/cert", "new cert"}, {at + "/his", "new his"}, {at + "/beside", "beside"},
		{at + "/key", "denied"}, {at + "/private/key", "denied"},
		{s.path(journalName), "denied"}, {s.path(keptName) + "/x", "denied"},
	} {
		if got := sees(readerUID, readerGID, "cat", want.path); got != want.says {
			t.Errorf("the reader sees %q at %s, want %q", got, want.path, want.says)
		}
		if got := sees(readerUID+1, readerGID+1, "cat", want.path); got != "denied" {
			t.Errorf("somebody else sees %q at %s", got, want.path)
		}
	}
	for dir, want := range map[string]string{at + "/private": "key", s.dir: "denied", at: "beside cert his key private"} {
		if got := strings.Join(strings.Fields(sees(readerUID, readerGID, "ls", dir)), " "); got != want {
			t.Errorf("the reader sees %q in %s, want %q", got, dir, want)
		}
	}
	if got := sees(readerUID, readerGID, "touch", at+"/cert", at+"/x"); got != "denied" {
		t.Errorf("the reader changes it: %q", got)
	}
	must(set.Undo(t.Context()))
	if _, err := os.Lstat(preview.Dir); !os.IsNotExist(err) {
		t.Errorf("the preview stays: %v", err)
	}
}
