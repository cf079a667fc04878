package cmd_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/layers"
	"deploytools/layers/digest"
	"deploytools/registry/client"
)

// The benchmarks compare in one run, round by round in turns, what we do with
// what a user would otherwise do; the median ratio counts. Times alone mean
// nothing on a shared machine.
const (
	benchRounds = 5
	benchBytes  = 192 << 20 // of the layer that is moved
	benchPolls  = 2000
)

// yard is a registry and an OpenSSH server, both processes of their own on the
// loopback interface.
type yard struct {
	b        *testing.B
	dir      string
	registry string // host:port
	sshd     string
	hostKey  string // fingerprint of the registry's
	pid      int    // of the registry
}

func newYard(b *testing.B) *yard {
	b.Helper()
	if _, err := os.Stat("/usr/sbin/sshd"); err != nil {
		b.Skip("the peer, OpenSSH's sshd, is not installed: run scripts/deps.sh")
	}
	y := &yard{b: b, dir: b.TempDir()}
	y.run("go", "build", "-trimpath", "-o", y.path("bin")+"/", "./...")
	for _, name := range []string{"operator", "agent", "peer_host"} {
		y.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", y.path(name))
	}
	y.startRegistry()
	y.startPeer()
	return y
}

func (y *yard) path(name string) string { return filepath.Join(y.dir, name) }

func (y *yard) run(name string, args ...string) []byte {
	y.b.Helper()
	cmd := exec.CommandContext(y.b.Context(), name, args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "SSH_AUTH_SOCK=",
		"DEPLOYCTL_ADDR="+y.registry, "DEPLOYCTL_FINGERPRINT="+y.hostKey, "DEPLOYCTL_KEY="+y.path("operator"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		y.b.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// start runs a daemon until the benchmark ends.
func (y *yard) start(log, name string, args ...string) int {
	y.b.Helper()
	f, err := os.Create(y.path(log))
	if err != nil {
		y.b.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Stderr = f
	if err := cmd.Start(); err != nil {
		y.b.Fatal(err)
	}
	y.b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		f.Close()
	})
	return cmd.Process.Pid
}

// await returns the content of a file as soon as it has some.
func (y *yard) await(name string) string {
	y.b.Helper()
	for range 500 {
		if b, err := os.ReadFile(y.path(name)); err == nil && len(b) > 0 {
			return strings.TrimSpace(string(b))
		}
		time.Sleep(20 * time.Millisecond)
	}
	y.b.Fatalf("%s does not come", name)
	return ""
}

func (y *yard) startRegistry() {
	y.pid = y.start("registry.log", y.path("bin/deploy-registry"), "-addr", "127.0.0.1:0", "-addr-file", y.path("addr"),
		"-dir", y.path("registry"), "-opauth", y.path("operator.pub"), "-srvauth", y.path("agent.pub"))
	y.registry = y.await("addr")
	_, rest, _ := strings.Cut(y.await("registry.log"), "SHA256:")
	y.hostKey = "SHA256:" + rest[:43]
}

// startPeer starts sshd, which can listen on no port of its own choice.
func (y *yard) startPeer() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		y.b.Fatal(err)
	}
	y.sshd = l.Addr().String()
	l.Close()
	os.MkdirAll("/run/sshd", 0o755) // its privilege separation wants it
	config := fmt.Sprintf("ListenAddress %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n",
		y.sshd, y.path("peer_host"), y.path("operator.pub"))
	if err := os.WriteFile(y.path("sshd_config"), []byte(config), 0o600); err != nil {
		y.b.Fatal(err)
	}
	y.start("sshd.log", "/usr/sbin/sshd", "-D", "-e", "-f", y.path("sshd_config"))
	for range 500 {
		if c, err := net.Dial("tcp", y.sshd); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	y.b.Fatal("sshd does not answer")
}

// sftp runs one command of OpenSSH's client.
func (y *yard) sftp(addr, user, key, command string, options ...string) time.Duration {
	y.b.Helper()
	host, port, _ := net.SplitHostPort(addr)
	batch := y.path("batch")
	if err := os.WriteFile(batch, []byte(command+"\n"), 0o600); err != nil {
		y.b.Fatal(err)
	}
	return timed(func() {
		y.run("sftp", append(options, "-q", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
			"-i", y.path(key), "-P", port, "-b", batch, user+"@"+host)...)
	})
}

// timed says how long fn takes, without what the disk has to do from before.
func timed(fn func()) time.Duration {
	unix.Sync()
	start := time.Now()
	fn()
	return time.Since(start)
}

// layer makes a layer of about benchBytes that no other is equal to.
func (y *yard) layer(name string) (string, digest.Digest) { return y.layerOf(name, benchBytes) }

func (y *yard) layerOf(name string, size int64) (string, digest.Digest) {
	y.b.Helper()
	tree := y.path(name)
	if err := os.MkdirAll(tree, 0o755); err != nil {
		y.b.Fatal(err)
	}
	content, err := os.Create(filepath.Join(tree, "content"))
	if err != nil {
		y.b.Fatal(err)
	}
	if _, err := io.CopyN(content, rand.Reader, size); err != nil {
		y.b.Fatal(err)
	}
	content.Close()
	var archive bytes.Buffer
	info, err := layers.Pack(y.b.Context(), &archive, tree, layers.PackOptions{Level: 1})
	if err != nil {
		y.b.Fatal(err)
	}
	file := y.path(name + ".tar.gz")
	if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
		y.b.Fatal(err)
	}
	os.RemoveAll(tree)
	return file, info.Digest
}

// report shows the median of peer/ours: above 1 is faster than the peer.
func report(b *testing.B, ours, peer []time.Duration, unit string) {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = float64(peer[i]) / float64(ours[i])
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
	b.ReportMetric(ratios[0], "min-"+unit)
}

// gcm is the cipher that our programs ask for. OpenSSH's client takes chacha20
// from its own server, and CTR from a registry that leaves chacha20 out.
var gcm = []string{"-c", "aes128-gcm@openssh.com"}

// BenchmarkUpload moves a layer into the registry by deployctl, with everything
// up to the version, and by sftp; the peer is sftp into OpenSSH's sftp-server,
// which checks nothing. It is asked as it comes, which leaves the file to the
// page cache; with -f, which brings it to the disk as ours always does; and with
// our cipher.
func BenchmarkUpload(b *testing.B) {
	y := newYard(b)
	var ctl, sftp, fast, peer, synced, fastPeer []time.Duration
	for i := range benchRounds {
		a, _ := y.layer(fmt.Sprint("a", i))
		c, _ := y.layer(fmt.Sprint("c", i))
		g, _ := y.layer(fmt.Sprint("g", i))
		files := fmt.Sprintf("%s %s", c, y.path("peer-copy"))
		peer = append(peer, y.sftp(y.sshd, "root", "operator", "put "+files))
		synced = append(synced, y.sftp(y.sshd, "root", "operator", "put -f "+files))
		fastPeer = append(fastPeer, y.sftp(y.sshd, "root", "operator", "put "+files, gcm...))
		ctl = append(ctl, timed(func() {
			y.run(y.path("bin/deployctl"), "addver", "-name", "bench", "-version", strconv.Itoa(i), "-file", a)
		}))
		sftp = append(sftp, y.sftp(y.registry, "operator", "operator", fmt.Sprintf("put %s", c)))
		fast = append(fast, y.sftp(y.registry, "operator", "operator", fmt.Sprintf("put %s", g), gcm...))
		for _, file := range []string{a, c, g} {
			os.Remove(file)
		}
	}
	report(b, ctl, peer, "deployctl-x-sftp")
	report(b, ctl, synced, "deployctl-x-synced")
	report(b, sftp, peer, "sftp-x-sftp")
	report(b, sftp, synced, "sftp-x-synced")
	report(b, fast, fastPeer, "gcm-x-gcm")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkDownload fetches a layer as the agent does, into a file, hashed and
// synced; the peer is sftp from OpenSSH's sftp-server.
func BenchmarkDownload(b *testing.B) {
	y := newYard(b)
	file, d := y.layer("layer")
	y.run(y.path("bin/deployctl"), "addver", "-name", "bench", "-version", "1", "-file", file)
	var ours, peer []time.Duration
	for i := range benchRounds {
		peer = append(peer, y.sftp(y.sshd, "root", "operator", fmt.Sprintf("get %s %s", file, y.path(fmt.Sprint("peer", i)))))
		ours = append(ours, timed(func() { y.fetch(d, y.path(fmt.Sprint("ours", i))) }))
	}
	report(b, ours, peer, "agent-x-sftp")
	b.ReportMetric(0, "ns/op")
}

func (y *yard) client() *client.Client {
	y.b.Helper()
	c, err := client.New(client.Options{Addr: y.registry, User: "deploy-agent", Fingerprints: []string{y.hostKey}, KeyFile: y.path("agent")})
	if err != nil {
		y.b.Fatal(err)
	}
	return c
}

func (y *yard) fetch(d digest.Digest, path string) {
	y.b.Helper()
	c := y.client()
	defer c.Close()
	f, err := os.Create(path)
	if err != nil {
		y.b.Fatal(err)
	}
	defer f.Close()
	h := digest.NewWriter()
	if err := c.Fetch(y.b.Context(), d, 0, io.MultiWriter(f, h)); err != nil {
		y.b.Fatal(err)
	}
	if h.Digest() != d {
		y.b.Fatal("fetched something else")
	}
	if err := f.Sync(); err != nil {
		y.b.Fatal(err)
	}
}

// BenchmarkPoll compares the CPU time of both ends for one poll over a held
// connection with that for connecting, polling and closing.
func BenchmarkPoll(b *testing.B) {
	y := newYard(b)
	file, _ := y.layer("layer")
	y.run(y.path("bin/deployctl"), "addver", "-name", "bench", "-version", "1", "-file", file)
	y.run(y.path("bin/deployctl"), "addconf", "-name", "bench", "-layer", "bench:1")
	held := y.client()
	defer held.Close()
	poll := func(c *client.Client) {
		if _, err := c.Poll(context.Background(), "bench"); err != nil {
			b.Fatal(err)
		}
	}
	poll(held)
	ours := y.cpu(benchPolls, func() { poll(held) })
	peer := y.cpu(benchPolls/10, func() {
		c := y.client()
		poll(c)
		c.Close()
	})
	b.ReportMetric(float64(peer)/float64(ours), "held-x-connect")
	b.ReportMetric(float64(ours.Microseconds()), "held-cpu-us")
	b.ReportMetric(float64(peer.Microseconds()), "connect-cpu-us")
	b.ReportMetric(0, "ns/op")
}

// cpu returns the CPU time that fn takes here and in the registry, on average.
func (y *yard) cpu(times int, fn func()) time.Duration {
	y.b.Helper()
	before := y.cpuNow()
	for range times {
		fn()
	}
	return (y.cpuNow() - before) / time.Duration(times)
}

func (y *yard) cpuNow() time.Duration {
	y.b.Helper()
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		y.b.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", y.pid))
	if err != nil {
		y.b.Fatal(err)
	}
	// proc(5): fields 14 and 15, in hundredths of a second; the second field
	// ends in the last parenthesis.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil || user > math.MaxInt32 {
		y.b.Fatalf("cannot read %q", stat)
	}
	return time.Duration(own.Utime.Nano()+own.Stime.Nano()) + time.Duration(user+system)*10*time.Millisecond
}
