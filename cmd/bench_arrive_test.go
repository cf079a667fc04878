package cmd_test

import (
	"bytes"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers"
	"deploytools/layers/digest"
)

// BenchmarkArrive brings a layer of 12,000 files from the registry into a root,
// synced, by deploy-agent from its start to its end. It unpacks while it fetches.
// The peers are our own fetch and unpacking one after the other, and sftp with
// tar and sync; all of them over the same line: as it is, and with 32 MiB/s.
func BenchmarkArrive(b *testing.B) {
	y := newYard(b)
	near, nearPeer := y.registry, y.sshd
	file, d := y.tree("code")
	y.run(y.path("bin/deployctl"), "addver", "-name", "bench", "-version", "1", "-file", file)
	y.run(y.path("bin/deployctl"), "addconf", "-name", "bench", "-layer", "bench:1")
	slow := line{rate: 32 << 20}
	for _, line := range []string{"near", "32M"} {
		if line != "near" {
			y.registry, y.sshd = slow.to(b, near), slow.to(b, nearPeer)
		}
		var ours, inTurn, peer []time.Duration
		for i := range benchRounds {
			dir := y.path(fmt.Sprint(line, i))
			inTurn = append(inTurn, timed(func() { y.fetchThenUnpack(d, dir+"-turn") }))
			peer = append(peer, y.sftpThenTar(file, dir+"-peer"))
			ours = append(ours, timed(func() {
				y.run(y.path("bin/deploy-agent"), "-once", "-name", "bench", "-dir", dir, "-state", "", "-script", "",
					"-addr", y.registry, "-fp", y.hostKey, "-key", y.path("agent"))
			}))
		}
		report(b, ours, inTurn, line+"-agent-x-in-turn")
		report(b, ours, peer, line+"-agent-x-sftp-tar")
	}
	y.registry, y.sshd = near, nearPeer
	b.ReportMetric(0, "ns/op")
}

// tree makes a layer of many small files and a few large ones, half of which
// can be compressed.
func (y *yard) tree(name string) (string, digest.Digest) {
	y.b.Helper()
	dir := y.path(name)
	random := mathrand.NewChaCha8([32]byte{1})
	write := func(path string, size int) {
		content := make([]byte, size)
		random.Read(content[:size/2])
		os.MkdirAll(filepath.Dir(path), 0o755)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			y.b.Fatal(err)
		}
	}
	for i := range 12_000 {
		write(fmt.Sprintf("%s/d%d/f%d", dir, i/20, i), 200+i%4000)
	}
	for i := range 8 {
		write(fmt.Sprintf("%s/large%d", dir, i), 16<<20)
	}
	var archive bytes.Buffer
	info, err := layers.Pack(y.b.Context(), &archive, dir, layers.PackOptions{})
	if err != nil {
		y.b.Fatal(err)
	}
	file := y.path(name + ".tar.gz")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		y.b.Fatal(err)
	}
	return file, info.Digest
}

func (y *yard) fetchThenUnpack(d digest.Digest, dir string) {
	y.b.Helper()
	y.fetch(d, dir+".tar.gz")
	if err := os.Mkdir(dir, 0o755); err != nil {
		y.b.Fatal(err)
	}
	layer := layers.Layer{Name: "bench", Digest: d, Open: func() (io.ReadCloser, error) { return os.Open(dir + ".tar.gz") }}
	if _, err := layers.Unpack(y.b.Context(), dir, []layers.Layer{layer}, layers.Options{}); err != nil {
		y.b.Fatal(err)
	}
	y.syncfs(dir)
}

func (y *yard) syncfs(dir string) {
	y.b.Helper()
	f, err := os.Open(dir)
	if err != nil {
		y.b.Fatal(err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		y.b.Fatal(err)
	}
}

func (y *yard) sftpThenTar(file, dir string) time.Duration {
	y.b.Helper()
	got := y.sftp(y.sshd, "root", "operator", fmt.Sprintf("get %s %s", file, dir+".tar.gz"))
	start := time.Now()
	y.run("mkdir", dir)
	y.run("tar", "xzf", dir+".tar.gz", "-C", dir)
	y.syncfs(dir)
	return got + time.Since(start)
}
