package cmd_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptCommands are the commands that scripts have besides testscript's.
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"registry": startRegistry,
	"layer":    writeLayer,
}

// startRegistry is `registry DIR [FLAG...]`: it makes DIR with keys for an
// operator and an agent unless it is there, and starts deploy-registry on a
// free port until the script ends. It sets ADDR, HOSTFP and, for deployctl, the
// variables that reach it.
func startRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: registry DIR [FLAG...]")
	}
	dir := ts.MkAbs(args[0])
	keys := []string{filepath.Join(dir, "operator"), filepath.Join(dir, "agent")}
	if err := os.Mkdir(dir, 0o700); err == nil {
		for _, k := range keys {
			ts.Check(ts.Exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", k))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, programPath(ts, "deploy-registry"), append([]string{
		"-addr", "127.0.0.1:0", "-dir", filepath.Join(dir, "data"), "-opauth", keys[0] + ".pub", "-srvauth", keys[1] + ".pub",
	}, args[1:]...)...)
	ts.Check(os.MkdirAll(filepath.Join(dir, "data"), 0o700))
	log, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	// It listens when its log says so; the rest of the log is kept in a file.
	lines := bufio.NewScanner(log)
	var seen strings.Builder
	for lines.Scan() {
		seen.WriteString(lines.Text() + "\n")
		if fp := regexp.MustCompile(`host key fingerprint: (SHA256:[A-Za-z0-9+/]+)`).FindStringSubmatch(lines.Text()); fp != nil {
			ts.Setenv("HOSTFP", fp[1])
		}
		if addr := regexp.MustCompile(`msg=listening remote=(\S+)`).FindStringSubmatch(lines.Text()); addr != nil {
			ts.Setenv("ADDR", addr[1])
			break
		}
	}
	if ts.Getenv("ADDR") == "" {
		ts.Fatalf("registry does not start:\n%s", &seen)
	}
	ts.Setenv("DEPLOYCTL_ADDR", ts.Getenv("ADDR"))
	ts.Setenv("DEPLOYCTL_FINGERPRINT", ts.Getenv("HOSTFP"))
	ts.Setenv("DEPLOYCTL_KEY", keys[0])
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	ts.Defer(func() {
		cancel()
		<-drained
		cmd.Wait()
	})
}

// programPath returns where a script finds a program.
func programPath(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); exec.Command(path).Err == nil {
			if _, err := os.Stat(path); err == nil {
				return path
			}
		}
	}
	ts.Fatalf("no program %s", name)
	return ""
}

// writeLayer is `layer FILE REST`: it writes an archive whose size modulo 4096
// is REST, with one file of noise.
func writeLayer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: layer FILE REST")
	}
	rest, err := strconv.Atoi(args[1])
	ts.Check(err)
	size := len(archiveOf(rest, 0))
	b := archiveOf(rest, ((rest-size)%4096+4096)%4096)
	if len(b)%4096 != rest {
		ts.Fatalf("layer has %d bytes, not %d modulo 4096", len(b), rest)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// archiveOf returns a tar.gz of one file, with a field of pad bytes in its gzip
// header that means nothing (RFC 1952 section 2.3.1.1).
func archiveOf(seed, pad int) []byte {
	noise := make([]byte, 10_000)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(noise)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Extra = append([]byte{'X', 'X', byte(pad), byte(pad >> 8)}, make([]byte, pad)...)
	t := tar.NewWriter(z)
	// A buffer takes everything.
	t.WriteHeader(&tar.Header{Name: "noise", Mode: 0o644, Size: int64(len(noise))})
	t.Write(noise)
	t.Close()
	z.Close()
	return b.Bytes()
}
