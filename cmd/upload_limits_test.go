package cmd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"deploytools/layers/digest"
)

// wholeStream names the variable that makes the test of a great stream send all
// of it. Its value is a directory on a disk with 12 GiB of room.
const wholeStream = "DEPLOY_TEST_WHOLE_STREAM"

// TestTenGiBAreRefused: the stream ends at the limit with a clear error, the
// registry has not grown, and nothing is left of it.
func TestTenGiBAreRefused(t *testing.T) { // B-30
	const stream = 10 << 30
	limit := int64(128 << 20)
	if disk := os.Getenv(wholeStream); disk != "" {
		t.Setenv("TMPDIR", disk)
		limit = stream - 1
	} else {
		t.Parallel()
	}
	s := startSite(t, "-max-upload", fmt.Sprint(limit))
	big, err := os.Create(s.file("big"))
	if err == nil {
		err = big.Truncate(stream) // no byte of it is on the disk
	}
	if err != nil {
		t.Fatal(err)
	}
	big.Close()
	cmd := s.command("sftp", "-b", "-", "reg")
	cmd.Stdin = strings.NewReader("put big\n")
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("error: big: upload is larger than %d bytes (ask for a greater -max-upload at the registry)\n", limit)
	if err == nil || !bytes.Contains(out, []byte(want)) || bytes.Contains(out, []byte("stored")) {
		t.Errorf("sftp: %v\n%s\nwant %s", err, out, want)
	}
	if peak := s.peakMemory(t); peak > 200<<20 {
		t.Errorf("the registry took %d MiB of memory, want it bounded", peak>>20)
	} else {
		t.Logf("the registry took %d MiB of memory", peak>>20)
	}
	s.wantNoUploads(t)
	if left, err := os.ReadDir(s.file("registry/uploads")); err != nil || len(left) != 0 {
		t.Errorf("uploads/ holds %v, %v", left, err)
	}
}

// peakMemory returns the greatest amount of memory that the registry ever had.
func (s *site) peakMemory(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.running["registry"].cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no VmHWM in %s", b)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// TestTwoHundredUploadsOverTheNetwork sends them at once, eight sessions on each
// of 25 connections. Every other one has content that another one has too.
func TestTwoHundredUploadsOverTheNetwork(t *testing.T) {
	t.Parallel()
	s := startSite(t, "-maxver", "0")
	const connections, sessions = 25, 8
	archive := func(i int) []byte {
		return archiveOf(map[string]string{"f": strings.Repeat(fmt.Sprintf("upload %d\n", i/2), 2000)}, nil)
	}
	var wg sync.WaitGroup
	for i := range connections {
		conn := s.dial(t)
		for j := range sessions {
			n := i*sessions + j
			wg.Go(func() {
				if err := uploadBy(conn, fmt.Sprintf("d%d/%d.tar.gz", n%5, n), archive(n)); err != nil {
					t.Errorf("upload %d: %v", n, err)
				}
			})
		}
	}
	wg.Wait()
	var script strings.Builder
	for n := 0; n < connections*sessions; n += 2 {
		fmt.Fprintf(&script, "addver -name code -version v%d -hash %s -must-be-new\n", n, digest.Of(archive(n)))
	}
	cmd := s.command("ssh", "reg")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("addver: %v: %s", err, out)
	}
	s.wantNoUploads(t)
}

// uploadBy uploads content in a session of its own.
func uploadBy(conn *ssh.Client, name string, content []byte) error {
	c, err := sftp.NewClient(conn)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := c.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	info, err := c.Stat(name)
	if err == nil && info.Size() != int64(len(content)) {
		err = fmt.Errorf("%d bytes are there", info.Size())
	}
	return err
}
